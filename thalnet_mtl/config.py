"""Configuration: frozen dataclasses, the only home of defaults, read from YAML and from flags.

A YAML file and a flag say the same thing (``train: {batch: 64}`` and ``--train.batch 64``) and go
through the same typed check, so that a typo gets the same one clear line from either side. A file
may also hold ``runs``, a mapping from run names to overlays: it then describes several runs.

What differs from experiment to experiment in number as well as in value is data, not flags:
``tasks`` and ``modules`` map names to what each is, ``changes`` lists what happens to the modules
while they train.
"""

import difflib
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import yaml


class UserError(ValueError):
    """A mistake of the user: one clear line, exit status 2, no traceback."""


class RunError(RuntimeError):
    """A run ended early, through nobody's typo: one clear line, exit status 1."""


def suggest(value: str, allowed: Iterable[str]) -> str:
    """The closest match as the end of an error line, or nothing when nothing is close."""
    close = difflib.get_close_matches(str(value), list(allowed), n=1)
    return f" Did you mean '{close[0]}'?" if close else ""


def unknown(what: str, value: str, allowed: Iterable[str]) -> UserError:
    """The error for a name that is not among the allowed ones."""
    names = list(allowed)
    return UserError(
        f"unknown {what} '{value}'. Allowed: {', '.join(names)}.{suggest(value, names)}"
    )


def option(
    default: Any,
    help: str,
    *,
    low: float | int = -math.inf,
    high: float | int = math.inf,
    choices: tuple[str, ...] = (),
) -> Any:
    """A field with its default, its line of help and the values that it allows."""
    return field(
        default=default, metadata={"help": help, "low": low, "high": high, "choices": choices}
    )


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


@dataclass(frozen=True)
class TaskConfig:
    """What is learned. In ``tasks`` each entry has these fields, and its own name by default."""

    name: str = option("permuted_mnist", "see 'thalnet list tasks'")
    permutation: int = option(0, "permuted_mnist: seed of the permutation", low=0, high=2**32 - 1)
    batch: int = option(0, "sequences in a batch; 0: train.batch", low=0)
    weight: float = option(1.0, "several tasks: factor of its loss", low=0.0)
    share: float = option(0.0, "several tasks: train.draw's size of it; 0: its batches", low=0.0)


@dataclass(frozen=True)
class ModuleConfig:
    """One module of a ThalNet: an entry of ``modules``, where they are not all equal.

    What is 0 or empty is as ``model`` says; ``model.features`` 0 still fills the budget.
    """

    input: bool = option(False, "takes the input of its tasks")
    output: bool = option(False, "feeds the heads of its tasks")
    tasks: tuple[str, ...] = option((), "tasks that it belongs to; none: shared by all")
    reads: tuple[str, ...] = option((), "modules that it reads; none: all of its tasks")
    features: int = option(0, "width of its slot", low=0)
    context: int = option(0, "width of what it reads", low=0)
    hidden: int = option(0, "inner width", low=0)
    module: str = option("", "its design")
    reading: str = option("", "how it reads the center")
    frozen: bool = option(False, "whether it does not learn")


@dataclass(frozen=True)
class ChangeConfig:
    """One change of the modules between two steps of the training: an entry of ``changes``."""

    step: int = option(0, "after how many steps", low=1)
    verb: str = option("", "what is done", choices=("attach", "detach", "clone", "freeze",
                                                    "unfreeze", "route"))  # fmt: skip
    name: str = option("", "the module that it is done to; for freeze, unfreeze also a task's")
    source: str = option("", "clone: the module to start from; route: the one that is read or not")
    read_by: tuple[str, ...] = option((), "attach: modules opened to the new one")
    open: bool = option(True, "route: whether name may see source from now on")
    module: ModuleConfig = field(default_factory=ModuleConfig)  # attach, clone: what it is


@dataclass(frozen=True)
class TrainConfig:
    """How it is learned."""

    epochs: int = option(10, "passes over the training part", low=1)
    steps: int = option(0, "optimizer steps; 0: as many as epochs says", low=0)
    batch: int = option(50, "sequences in a batch", low=1)
    chunk: int = option(200, "text: bytes between truncations of back-propagation", low=1)
    optimizer: str = option("rmsprop", "update rule", choices=("rmsprop", "adam", "adamw", "sgd"))
    learning_rate: float = option(1e-3, "peak learning rate", low=0.0)
    weight_decay: float = option(0.0, "weight decay", low=0.0)
    schedule: str = option("constant", "after warm-up", choices=("constant", "cosine"))
    warmup: int = option(0, "steps of linear warm-up", low=0)
    clip: float = option(0.0, "largest gradient norm; 0: no clipping", low=0.0)
    combine: str = option("fixed", "several losses: fixed weights, uncertainty, or see the docs")
    draw: float = option(0.0, "0: all tasks each step; T: one, odds by size^(1/T)", low=0.0)
    patience: int = option(0, "validations that a task may not improve; 0: any", low=0)
    precision: str = option("fp32", "arithmetic of products", choices=("fp32", "bf16"))
    device: str = option("auto", "auto: cuda where there is one", choices=("auto", "cpu", "cuda"))
    threads: int = option(0, "CPU threads; 0: one for small networks, else all", low=0)
    seed: int = option(0, "of the initial weights and the order of batches", low=0, high=2**31)


@dataclass(frozen=True)
class EvaluateConfig:
    """When to look, and how closely."""

    every: int = option(0, "steps between validations; 0: once an epoch", low=0)
    batch: int = option(500, "sequences in a batch of evaluation", low=1)
    batches: int = option(0, "at most so many batches of each part; 0: all", low=0)
    log_every: int = option(50, "steps between lines of training loss", low=1)
    checkpoint_every: int = option(0, "steps between checkpoints; 0: at every validation", low=0)


@dataclass(frozen=True)
class Config:
    """One run, complete."""

    model: ModelConfig = field(default_factory=ModelConfig)
    task: TaskConfig = field(default_factory=TaskConfig)
    tasks: dict[str, TaskConfig] = field(default_factory=dict)
    modules: dict[str, ModuleConfig] = field(default_factory=dict)
    changes: tuple[ChangeConfig, ...] = ()
    train: TrainConfig = field(default_factory=TrainConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)

    @property
    def named_tasks(self) -> dict[str, TaskConfig]:
        """The tasks of this run by the name that they have in it."""
        return self.tasks or {self.task.name: self.task}


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
        nested: Any = value
        for part in reversed(key.split(".")):
            nested = {part: nested}
        configs = {run: overlay(c, nested, f"--{key}") for run, c in configs.items()}
    return configs


def load_run(folder: Path) -> Config:
    """The configuration that a run directory holds."""
    path = folder / "config.yaml"
    if not path.is_file():
        raise UserError(f"{folder} is not a run directory: it has no config.yaml.")
    configs = load([str(path)])
    if list(configs) != [""]:
        raise UserError(f"{path} describes several runs, not one.")
    return configs[""]


def overlay(config: Any, tree: Any, where: str) -> Any:
    """A copy of a dataclass with the values of a nested mapping, each checked."""
    if not isinstance(tree, dict):
        raise UserError(f"{where}: expected a section of fields, got {tree!r}.")
    known = {f.name: f for f in fields(config)}
    changes = {}
    for key, value in tree.items():
        if key not in known:
            raise UserError(f"{where}: {unknown('field', key, known)}")
        current = getattr(config, key)
        inner = where if where.startswith("--") else f"{where}: {key}"
        if is_dataclass(current):
            changes[key] = overlay(current, value, inner)
        elif isinstance(current, dict):
            changes[key] = _overlay_entries(current, value, known[key].type, inner)
        elif known[key].type == tuple[ChangeConfig, ...]:
            changes[key] = _change_list(value, inner)
        else:
            changes[key] = _check(value, known[key], where)
    return replace(config, **changes)


def _overlay_entries(current: dict[str, Any], tree: Any, kind: Any, where: str) -> dict[str, Any]:
    """Entries by name, each overlaid on the one of that name; null takes an entry out."""
    if not isinstance(tree, dict):
        raise UserError(f"{where}: expected entries by name, got {tree!r}.")
    entries = dict(current)
    for name, more in tree.items():
        if more is None:
            entries.pop(str(name), None)
            continue
        new = TaskConfig(name=str(name)) if kind == dict[str, TaskConfig] else ModuleConfig()
        inner = where if where.startswith("--") else f"{where}: {name}"
        entries[str(name)] = overlay(entries.get(str(name), new), more, inner)
    return entries


def _change_list(changes: Any, where: str) -> tuple[ChangeConfig, ...]:
    """All changes anew, in the order of their steps."""
    if not isinstance(changes, list):
        raise UserError(f"{where}: expected a list of changes, got {changes!r}.")
    made = [overlay(ChangeConfig(), change, where) for change in changes]
    for change in made:
        if not (change.step and change.verb and change.name):
            raise UserError(f"{where}: every change needs a step, a verb and a name.")
    return tuple(sorted(made, key=lambda change: change.step))


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


def _check(value: Any, known: Any, where: str) -> Any:
    """The value in the field's type, or an error that says what is allowed."""
    kind, allowed = known.type, known.metadata
    name = where if where.startswith("--") else f"{where}: {known.name}"
    try:
        checked = _CASTS[kind](value)
    except (TypeError, ValueError, OverflowError, KeyError):
        raise UserError(f"{name}: expected {_WORDS[kind]}, got {value!r}.") from None
    if allowed["choices"] and checked not in allowed["choices"]:
        raise UserError(f"{name}: {unknown('value', checked, allowed['choices'])}")
    if kind in (int, float) and not allowed["low"] <= checked <= allowed["high"]:
        low, high = allowed["low"], allowed["high"]
        span = f"at least {low}" if high == math.inf else f"between {low} and {high}"
        raise UserError(f"{name}: must be {span}, got {checked}.")
    return checked


def _number(kind: type) -> Callable[[Any], Any]:
    def cast(value: Any) -> Any:
        checked = kind(value)
        if isinstance(value, bool) or not math.isfinite(checked) or checked != float(value):
            raise ValueError
        return checked

    return cast


def _word(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError
    return value


def _truth(value: Any) -> bool:
    return value if isinstance(value, bool) else {"true": True, "false": False}[_word(value)]


def _words(value: Any) -> tuple[str, ...]:
    return tuple(map(_word, value.split(",") if isinstance(value, str) else value))


_CASTS: dict[Any, Callable[[Any], Any]] = {
    int: _number(int),
    float: _number(float),
    str: _word,
    bool: _truth,
    tuple[str, ...]: _words,
}
_WORDS = {
    int: "a whole number",
    float: "a number",
    str: "a word",
    bool: "true or false",
    tuple[str, ...]: "a list of names",
}
