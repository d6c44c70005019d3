"""Configurations read from named or given YAML files and from flags, and written back.

A YAML file and a flag say the same thing (``train: {batch: 64}`` and ``--train.batch 64``) and go
through the same typed check, so that a mistake gets the same clear line from either. A file may
also hold ``runs``, a mapping from run names to overlays: it then describes several runs.
"""

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from thalnet_mtl.config.files import Layer, nested, read_file, read_flag
from thalnet_mtl.config.named_stream import write_out_stream
from thalnet_mtl.config.options import drop_options_of, resolve_options
from thalnet_mtl.config.overlay import as_plain, overlay
from thalnet_mtl.config.plugins import import_plugins, with_plugin
from thalnet_mtl.config.schema import Config
from thalnet_mtl.config.yaml_text import write_yaml
from thalnet_mtl.errors import UserError

Source = str | os.PathLike[str] | Mapping[str, Any]


def load_config(*sources: Source, **sections: Any) -> Config:
    """Load the configuration of one run.

    Args:
        sources: names (see ``thalnet list configs``), paths of YAML files, paths of Python files
            that register entries, or mappings with sections (``{"train": {"seed": 3}}``) or flags
            (``{"train.seed": 3}``) as keys. Each is laid over those before it.
        sections: values laid over all of them, by section. A dataclass replaces the section.

    Raises:
        UserError: a name or a value is not allowed, or a file describes several runs.

    >>> config = load_config("digits", train={"seed": 3}, model={"features": 8})
    >>> config.task.name, config.train.seed
    ('digits_rows', 3)
    """
    configs = {"": Config()}
    for source in (*sources, sections):
        if isinstance(source, Mapping):
            configs = {run: _with_values(config, source) for run, config in configs.items()}
        else:
            configs = lay_over(configs, read_file(os.fspath(source)))
    configs = _resolved(configs)
    if list(configs) != [""]:
        names = [source for source in sources if not isinstance(source, Mapping)]
        raise UserError(
            f"{', '.join(map(str, names))} describes several runs ({', '.join(configs)}), not "
            f"one; thalnet_mtl.config.load.load_configs returns all of them by name."
        )
    return configs[""]


def check_config(config: Config) -> Config:
    """Return a configuration made in Python, after the typed check that files go through.

    Numbers come back in the type of their field: ``TrainConfig(clip=1)`` as 1.0.

    Raises:
        UserError: it is no ``Config``, or a value has a wrong type or is out of range.
    """
    if not isinstance(config, Config):
        raise UserError(f"expected a Config, as load_config returns it, got {config!r}.")
    return write_out_stream(import_plugins(overlay(Config(), as_plain(config), "config")))


def load_configs(
    names: Iterable[str], flags: Mapping[str, str] | None = None, swept: Collection[str] = ()
) -> dict[str, Config]:
    """Load the configuration of each run that files describe, by the name of the run.

    The files are laid over each other in order, then the flags over all runs. Where no file has
    ``runs``, there is one run, whose name is ''.

    Args:
        names: of the files.
        flags: by ``section.field``.
        swept: keys of a grid that will be laid over the runs. With ``train.strategy`` among them,
            options of strategies are left for the sweep to check; with an option of ``stream``,
            the experiences are left for the sweep to write out.
    """
    names, flags = list(names), flags or {}
    if names and all(name.endswith(".py") for name in names) and not names_task(flags):
        raise UserError(
            f"{names[0]} holds no configuration. Name one before it, as in 'digits {names[0]}', or "
            f"a task with --task.name."
        )
    configs = {"": Config()}
    for layer in layers(names, flags):
        configs = lay_over(configs, layer)
    return _resolved(configs, swept)


def names_task(flags: Iterable[str]) -> bool:
    """Return whether one of some flags is about tasks."""
    return any(key.partition(".")[0] in ("task", "tasks", "stream") for key in flags)


def layers(names: Iterable[str], flags: Mapping[str, str]) -> Iterator[Layer]:
    """Yield what files and flags say, in the order in which each is laid over those before."""
    yield from map(read_file, names)
    yield from (read_flag(key, text) for key, text in names_first(flags))


def names_first(flags: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return flags with those first that name something, since others may be its options."""
    return sorted(flags.items(), key=lambda flag: not key_names_something(flag[0]))


def key_names_something(key: str) -> bool:
    """Return whether the value of a field is a name that other fields may be options of."""
    return key.endswith((".name", ".body", "growth.when", "train.strategy"))


def _resolved(configs: Mapping[str, Config], swept: Collection[str] = ()) -> dict[str, Config]:
    """Import plugins, write out streams and check options, but for those that are swept."""
    configs = {run: import_plugins(config) for run, config in configs.items()}
    runs = {run: f"run '{run}'" if run else "" for run in configs}
    if not any(key.startswith("stream.") for key in swept):
        configs = {run: write_out_stream(configs[run], where) for run, where in runs.items()}
    strategy = "train.strategy" not in swept
    return {run: resolve_options(configs[run], runs[run], strategy=strategy) for run in runs}


def complete(config: Config) -> Config:
    """Import plugins, write out the stream, and add the defaults of all options."""
    return resolve_options(write_out_stream(import_plugins(config)), complete=True)


def lay_over(configs: Mapping[str, Config], layer: Layer) -> dict[str, Config]:
    """Lay a layer over every run; one with ``runs`` turns the only run into several.

    A Python file is a plugin of every run.
    """
    where = layer.where
    if where.endswith(".py"):
        return {run: with_plugin(config, where) for run, config in configs.items()}
    configs = {run: overlay_config(c, layer.sections, where) for run, c in configs.items()}
    if layer.runs is None:
        return configs
    if list(configs) != [""]:
        raise UserError(f"{where}: an earlier file already has 'runs'.")
    return {
        run: overlay_config(configs[""], values, f"run '{run}'")
        for run, values in layer.runs.items()
    }


def _with_values(config: Config, values: Mapping[str, Any]) -> Config:
    """Lay a mapping over a configuration; its keys are sections, or flags with a dot."""
    for key, value in names_first(values):
        if is_dataclass(value) and isinstance(getattr(config, key, None), type(value)):
            kind: Any = type(value)
            default: Any = kind()  # so that no option of the old section is left
            config = replace(config, **{key: default})
        config = with_value(config, key, as_plain(value), "config")
    return config


def with_value(config: Config, key: str, value: Any, where: str) -> Config:
    """Return a copy with one value replaced; its key is ``section.field``, or a section."""
    return overlay_config(config, nested(key.split("."), value), where)


def overlay_config(config: Config, values: Any, where: str) -> Config:
    """Return a configuration with values laid over it.

    Where they name another strategy, options that only the earlier one has are dropped.
    """
    train = values.get("train") if isinstance(values, dict) else None
    strategy = train.get("strategy") if isinstance(train, dict) else None
    earlier = config.train.strategy
    if config.strategy.options and isinstance(strategy, str) and strategy != earlier:
        config = replace(config, train=replace(config.train, strategy=strategy))
        config = drop_options_of(config, earlier)
    changed: Config = overlay(config, values, where)
    return changed


def with_seeds(
    configs: Mapping[str, Config], seeds: Sequence[int], flags: Mapping[str, str]
) -> dict[str, Config]:
    """Repeat every run with each seed, under the name ``seed0`` or ``NAME-seed0``."""
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
    """Raise if a seed is given twice, or by ``--train.seed`` as well."""
    if seeds and "train.seed" in flags:
        raise UserError("--seeds and --train.seed: give one of them.")
    if len(set(seeds)) < len(seeds):
        raise UserError(f"--seeds: give each seed once, got {' '.join(map(str, seeds))}.")


def check_run_directory(folder: Path) -> None:
    """Raise unless a folder exists; the error names the run, here or in runs/, that is closest."""
    if folder.is_dir():
        return
    files = [*Path("runs").glob("*/config.yaml"), *folder.parent.glob("*/config.yaml")]
    runs = {file.parent.name: file.parent for file in files}
    hint = [f" Did you mean '{runs[name]}'?" for name in get_close_matches(folder.name, runs, n=1)]
    why = "is a file" if folder.exists() else "does not exist"
    raise UserError(f"no run directory '{folder}': it {why}.{''.join(hint)}")


def load_run_config(folder: Path) -> Config:
    """Load the configuration that a run directory holds."""
    check_run_directory(folder)
    path = folder / "config.yaml"
    if not path.is_file():
        raise UserError(f"{folder} is not a run directory: it has no config.yaml.")
    configs = lay_over({"": Config()}, read_file(str(path)))
    if list(configs) != [""]:
        raise UserError(f"{path} describes several runs, not one.")
    return configs[""]


def declaration_order(config: Config) -> list[list[str]]:
    """Return the names of tasks and modules in order, which is that of losses, heads and slots."""
    return [list(config.tasks), list(config.modules)]


def dump_config(config: Config) -> str:
    """Return the complete configuration as YAML, which ``load_config`` reads back."""
    return write_yaml(as_plain(config))


def flatten(config: Config) -> dict[str, Any]:
    """Return all values by path: ``train.batch``, ``tasks.text8.weight``, ``changes.0.step``.

    ``trackers`` is one value.
    """
    return flatten_section(config)


def flatten_section(section: Any, path: str = "") -> dict[str, Any]:
    """Return all values of a section by path, which begins with that of the section."""

    def leaves(tree: Any, path: str) -> Iterator[tuple[str, Any]]:
        nested = isinstance(tree, list) and tree and isinstance(tree[0], dict)
        if path == "trackers" or not (isinstance(tree, dict) or nested):
            yield path, tree
            return
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from leaves(value, f"{path}.{key}" if path else str(key))

    return dict(leaves(as_plain(section), path))


def flag_names() -> list[str]:
    """Return the flags of all sections with a fixed set of fields, as ``section.field``."""
    return [
        f"{section.name}.{leaf.name}"
        for section in fields(Config)
        if is_dataclass(section.type)
        for leaf in fields(section.type)
        if "choices" in leaf.metadata
    ]


def closest_flag(word: str, options: Sequence[str] = ()) -> str:
    """Return the flag or option that a word may stand for, '' if none is close.

    The section may be missing: 'sede' is close to 'train.seed'.
    """
    names = {name.partition(".")[2]: name for name in flag_names()}
    names |= {name: name for name in (*flag_names(), *options)}
    return next((names[close] for close in get_close_matches(word, names, n=1)), "")
