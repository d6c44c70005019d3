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
from dataclasses import asdict, fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from thalnet_mtl.config.overlay import overlay
from thalnet_mtl.config.schema import (
    ChangeConfig,
    Config,
    EntryConfig,
    ModuleConfig,
    TaskConfig,
)
from thalnet_mtl.errors import RunError, UserError, suggest, unknown

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


def load_configs(names: Iterable[str], flags: Mapping[str, str] | None = None) -> dict[str, Config]:
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
        configs = {run: with_value(c, key, value, f"--{key}") for run, c in configs.items()}
    return configs


def with_value(config: Config, key: str, value: Any, where: str) -> Config:
    """A copy with one value, whose key is ``section.field``."""
    for part in reversed(key.split(".")):
        value = {part: value}
    return overlay(config, value, where)


def with_seeds(
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


def load_run_config(folder: Path) -> Config:
    """The configuration that a run directory holds."""
    path = folder / "config.yaml"
    if not path.is_file():
        raise UserError(f"{folder} is not a run directory: it has no config.yaml.")
    configs = load_configs([str(path)])
    if list(configs) != [""]:
        raise UserError(f"{path} describes several runs, not one.")
    return configs[""]


def declaration_order(config: Config) -> list[list[str]]:
    """The names of tasks and modules: their order is that of losses, ports and slots."""
    return [list(config.tasks), list(config.modules)]


def dump_config(config: Config) -> str:
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


def described_fields() -> list[tuple[str, Any, str]]:
    """Every field of a section: ``section.field``, default, help."""
    return [
        (f"{section.name}.{leaf.name}", leaf.default, leaf.metadata["help"])
        for section in fields(Config)
        if is_dataclass(section.type)
        for leaf in fields(section.type)
        if "help" in leaf.metadata
    ]


def config_names() -> dict[str, str]:
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
    package = Path(__file__).parents[1]
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def _read(name: str) -> dict[str, Any]:
    path = Path(name) if name.endswith((".yaml", ".yml")) else _folder() / f"{name}.yaml"
    if not path.is_file():
        if path == Path(name):
            raise UserError(f"no config file '{name}'.")
        raise unknown("config", name, config_names())
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


def closest_field(word: str, others: Sequence[str] = ()) -> str:
    """The field that a word may stand for, with or without its section; '' if none is close."""
    fields = [name for name, _, _ in described_fields()]
    known = {name.partition(".")[2]: name for name in fields}
    known |= {name: name for name in (*fields, *others)}
    return next((known[close] for close in get_close_matches(word, known, n=1)), "")
