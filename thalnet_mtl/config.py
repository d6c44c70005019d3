"""Configuration: frozen dataclasses, the only home of defaults, read from YAML and from flags.

A YAML file and a flag say the same thing (``train: {batch: 64}`` and ``--train.batch 64``) and go
through the same typed check, so that a typo gets the same one clear line from either side. A file
may also hold ``runs``, a mapping from run names to overlays: it then describes several runs.

What differs from experiment to experiment in number as well as in value is data, not flags:
``tasks`` and ``modules`` map names to what each is, ``stream`` lists what is learned one after
another, ``growth`` and ``strategy`` say how, ``changes`` what else happens to modules meanwhile.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import yaml

from thalnet_mtl.experiment import (
    ChangeConfig,
    EntryConfig,
    ExperienceConfig,
    GrowthConfig,
    ModuleConfig,
    StrategyConfig,
    TaskConfig,
)
from thalnet_mtl.options import RunError, UserError, option, overlay, suggest, unknown

__all__ = [
    "ChangeConfig",
    "EntryConfig",
    "ModuleConfig",
    "RunError",
    "TaskConfig",
    "UserError",
    "overlay",
    "suggest",
    "unknown",
]


@dataclass(frozen=True)
class ModelConfig:
    """What is trained."""

    body: str = option("thalnet", "thalnet, or a baseline: gru, lstm, mlp")
    modules: int = option(4, "ThalNet: modules around the center", low=1)
    module: str = option("ff_gru", "ThalNet: design of every module")
    reading: str = option("weight_norm", "ThalNet: how modules read the center")
    features: int = option(0, "width of a slot or layer; 0: the most within budget", low=0)
    context: int = option(0, "ThalNet: width of a context; 0: as features", low=0)
    hidden: int = option(0, "ThalNet: inner width of a module; 0: as features", low=0)
    layers: int = option(4, "baselines: layers", low=1)
    sub_steps: int = option(1, "times that each input is shown", low=1)
    extra_steps: int = option(0, "steps without input after the last one", low=0)
    budget: int = option(50_000, "parameters allowed, encoder and head included; 0: any", low=0)


OPS = ("auto", "triton", "cpp", "fused", "batched", "reference")


@dataclass(frozen=True)
class TrainConfig:
    """How it is learned."""

    epochs: int = option(10, "passes over the training part, the shortest of several", low=1)
    steps: int = option(0, "optimizer steps; 0: as many as epochs says", low=0)
    batch: int = option(50, "sequences in a batch", low=1)
    chunk: int = option(200, "text: bytes between truncations of back-propagation", low=1)
    optimizer: str = option("rmsprop", "update rule", choices=("rmsprop", "adam", "adamw", "sgd"))
    learning_rate: float = option(1e-3, "peak learning rate", low=0.0)
    weight_decay: float = option(0.0, "weight decay", low=0.0)
    schedule: str = option("constant", "after warm-up", choices=("constant", "cosine"))
    warmup: int = option(0, "steps of linear warm-up", low=0)
    dropout: float = option(0.0, "of rows and of what heads read, while learning", low=0, high=0.9)
    clip: float = option(0.0, "largest gradient norm; 0: no clipping", low=0.0)
    combine: str = option("fixed", "several losses: fixed, uncertainty, upgrad, mgda, …")
    draw: float = option(0.0, "0: all tasks each step; T: one, odds by size^(1/T)", low=0.0)
    strategy: str = option("naive", "what keeps old tasks: see 'thalnet list strategies'")
    patience: int = option(0, "validations that a task may not improve; 0: any", low=0)
    precision: str = option("fp32", "of products; tf32: on a GPU", choices=("fp32", "tf32", "bf16"))
    ops: str = option("auto", "how a ThalNet is computed; auto: the fastest", choices=OPS)
    device: str = option("auto", "auto: cuda where there is one", choices=("auto", "cpu", "cuda"))
    threads: int = option(0, "CPU threads; 0: one for small networks, else as PyTorch", low=0)
    seed: int = option(0, "of the initial weights and the order of batches", low=0, high=2**31)


@dataclass(frozen=True)
class EvaluateConfig:
    """When to look, and how closely."""

    every: int = option(0, "steps between validations; 0: once an epoch", low=0)
    batch: int = option(500, "sequences in a batch of evaluation", low=1)
    batches: int = option(0, "at most so many batches of each part; 0: all", low=0)
    log_every: int = option(50, "steps between lines of training loss", low=1, high=10**6)
    checkpoint_every: int = option(0, "steps between checkpoints; 0: at every validation", low=0)


@dataclass(frozen=True)
class Config:
    """One run, complete."""

    model: ModelConfig = field(default_factory=ModelConfig)
    task: TaskConfig = field(default_factory=TaskConfig)
    tasks: dict[str, EntryConfig] = field(default_factory=dict)
    modules: dict[str, ModuleConfig] = field(default_factory=dict)
    changes: tuple[ChangeConfig, ...] = ()
    stream: tuple[ExperienceConfig, ...] = ()
    growth: GrowthConfig = field(default_factory=GrowthConfig)
    strategy: StrategyConfig = field(default_factory=StrategyConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)

    @property
    def named_tasks(self) -> dict[str, EntryConfig]:
        """The tasks of this run by the name that they have in it."""
        return self.tasks or {self.task.name: EntryConfig(**asdict(self.task))}


def load(names: Iterable[str], flags: Mapping[str, str] | None = None) -> dict[str, Config]:
    """Overlay named or given YAML files in order, then flags. One entry a run, '' if only one."""
    configs = {"": Config()}
    for name in names:
        tree = _read(name)
        runs = _runs(tree.pop("runs"), name) if "runs" in tree else None
        configs = {run: overlay(config, tree, name) for run, config in configs.items()}
        if runs is not None:
            if list(configs) != [""]:
                raise UserError(f"{name}: an earlier file has 'runs' already.")
            base = configs[""]
            configs = {run: overlay(base, more, f"run '{run}'") for run, more in runs.items()}
    for key, value in (flags or {}).items():
        configs = {run: put(c, key, value, f"--{key}") for run, c in configs.items()}
    return configs


def put(config: Config, key: str, value: Any, where: str) -> Config:
    """A copy with one value, whose key is ``section.field``."""
    for part in reversed(key.split(".")):
        value = {part: value}
    return overlay(config, value, where)


def seeded(
    configs: Mapping[str, Config], seeds: Sequence[int], flags: Mapping[str, str]
) -> dict[str, Config]:
    """Every run once for each seed, ``seed0`` or ``NAME-seed0``."""
    if not seeds:
        raise UserError("--stacked needs --seeds.")
    check_seeds(seeds, flags)
    return {
        f"{name}-seed{seed}" if name else f"seed{seed}": overlay(
            config, {"train": {"seed": seed}}, "--seeds"
        )
        for name, config in configs.items()
        for seed in seeds
    }


def check_seeds(seeds: Sequence[int], flags: Mapping[str, str]) -> None:
    """Raise if a seed is given twice."""
    if seeds and "train.seed" in flags:
        raise UserError("--seeds and --train.seed: give one of them.")
    if len(set(seeds)) < len(seeds):
        raise UserError(f"--seeds: every seed once, got {' '.join(map(str, seeds))}.")


def load_run(folder: Path) -> Config:
    """The configuration that a run directory holds."""
    path = folder / "config.yaml"
    if not path.is_file():
        raise UserError(f"{folder} is not a run directory: it has no config.yaml.")
    configs = load([str(path)])
    if list(configs) != [""]:
        raise UserError(f"{path} describes several runs, not one.")
    return configs[""]


def in_order(config: Config) -> list[list[str]]:
    """The names of tasks and modules: their order is that of losses, ports and slots."""
    return [list(config.tasks), list(config.modules)]


def dump(config: Config) -> str:
    """The complete configuration as YAML that ``load`` reads back."""
    return yaml.safe_dump(asdict(config), sort_keys=False)


def flatten(config: Config) -> dict[str, Any]:
    """Values by path: ``train.batch``, ``tasks.text8.weight``, ``changes.0.step``."""

    def leaves(tree: Any, path: str) -> Iterator[tuple[str, Any]]:
        nested = isinstance(tree, tuple | list) and tree and isinstance(tree[0], dict)
        if not (isinstance(tree, dict) or nested):
            yield path, tree
            return
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from leaves(value, f"{path}.{key}" if path else str(key))

    return dict(leaves(asdict(config), ""))


def all_fields() -> list[tuple[str, Any, str]]:
    """Every field of a section: ``section.field``, default, help."""
    return [
        (f"{section.name}.{leaf.name}", leaf.default, leaf.metadata["help"])
        for section in fields(Config)
        if is_dataclass(section.type)
        for leaf in fields(section.type)
        if "help" in leaf.metadata
    ]


def names() -> dict[str, str]:
    """The configs that come with the package, each with the comment on its first line."""
    folder = _folder()
    paths = sorted(folder.rglob("*.yaml"))
    return {
        path.relative_to(folder).with_suffix("").as_posix(): path.read_text()
        .partition("\n")[0]
        .removeprefix("#")
        .strip()
        for path in paths
    }


def _folder() -> Path:
    """Inside the package in a wheel, beside it in a checkout."""
    inside = Path(__file__).parent / "configs"
    return inside if inside.is_dir() else Path(__file__).parents[1] / "configs"


def _read(name: str) -> dict[str, Any]:
    path = Path(name) if name.endswith((".yaml", ".yml")) else _folder() / f"{name}.yaml"
    if not path.is_file():
        if path == Path(name):
            raise UserError(f"no config file '{name}'.")
        raise unknown("config", name, names())
    try:
        tree = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{name} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        sections = ", ".join([f.name for f in fields(Config)] + ["runs"])
        raise UserError(f"{name} holds no sections. Allowed: {sections}.")
    return tree


def _runs(runs: Any, name: str) -> dict[str, Any]:
    """Overlays by the name of their run, which is also that of its folder."""
    if not isinstance(runs, dict) or not runs:
        raise UserError(f"{name}: 'runs' must map names of runs to overlays.")
    for run in runs:
        if not re.fullmatch(r"\w[\w.=+-]*", str(run)):
            raise UserError(f"{name}: '{run}' cannot be the name of a run; use letters and digits.")
    return {str(run): more or {} for run, more in runs.items()}
