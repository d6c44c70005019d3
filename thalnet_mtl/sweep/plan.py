"""The plan of a sweep: named runs of a configuration × values of a grid × seeds."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

from thalnet_mtl.config.declarations import declarations
from thalnet_mtl.config.load import check_seeds, closest_flag, flatten, names_first, with_value
from thalnet_mtl.config.named_stream import write_out_stream
from thalnet_mtl.config.options import drop_options_of, resolve_options
from thalnet_mtl.config.schema import Config
from thalnet_mtl.config.yaml_text import parse_flag
from thalnet_mtl.errors import UserError

STRATEGY = "train.strategy"  # what names the strategy, whose options are in ``strategy``

MOST_RUNS = 10_000


@dataclass(frozen=True)
class PlannedRun:
    """A run of a sweep and its point in the grid."""

    name: str  # name of its folder: 'learning_rate=0.001,modules=2-seed0'
    run: str  # name in the ``runs`` of the configuration; '' if there are none
    values: dict[str, Any]  # values of the grid, by ``section.field``
    seed: int
    config: Config


def parse(words: Sequence[str]) -> dict[str, list[str]]:
    """Parse ``section.field=value,value`` into values by key, in order.

    >>> parse(["train.clip=0,1", "model.modules=2,4"])
    {'train.clip': ['0', '1'], 'model.modules': ['2', '4']}
    """
    grid: dict[str, list[str]] = {}
    for word in words:
        key, equals, text = word.partition("=")
        values = [value.strip() for value in text.split(",")]
        if not re.fullmatch(r"[a-z_]+(\.\w+)+", key) or not equals:
            close = closest_flag(key)
            hint = f" Did you mean '{close}={text or '…'}'?" if close else ""
            raise UserError(f"--grid {word}: expected section.field=value,value.{hint}")
        if not all(values):
            raise UserError(f"--grid {word}: a value is empty.")
        if key in grid:
            raise UserError(f"--grid {key} is given twice: put all its values behind one.")
        grid[key] = values
    return grid


def plan(
    bases: Mapping[str, Config],
    grid: Mapping[str, Sequence[str]],
    seeds: Sequence[int],
    flags: Mapping[str, str],
) -> list[PlannedRun]:
    """Return all runs, ordered by named run, then by values (last key fastest), then by seed.

    Without seeds, every run has the seed of its configuration.

    Raises:
        UserError: a key or a value is not allowed, or a key, value or seed is given twice.
    """
    check_seeds(seeds, flags)
    count = len(bases) * max(len(seeds), 1) * prod(map(len, grid.values()))
    if count > MOST_RUNS:
        raise UserError(f"a sweep of {count:,} runs is over {MOST_RUNS:,}.")
    for key in grid:
        if key == "train.seed":
            raise UserError("--grid train.seed: seeds are given by --seeds.")
        if key in flags:
            raise UserError(f"--grid {key} and --{key}: give one of them.")
    runs = []
    for run, base in bases.items():
        choices = [_choices(base, key, grid) for key in grid]
        for values in product(*choices):
            point = dict(zip(grid, values, strict=True))
            for seed in seeds or [base.train.seed]:
                config = configure(base, point, seed)
                runs.append(PlannedRun(_name(run, point, seed), run, point, seed, config))
    for name, count in Counter(planned.name for planned in runs).items():
        if count > 1:
            raise UserError(f"{count} runs of this sweep would have the name '{name}'.")
    return runs


def configure(base: Config, values: Mapping[str, Any], seed: int, where: str = "--grid") -> Config:
    """Return a configuration with values of the grid and a seed, all of them checked.

    In a grid over ``train.strategy``, the options of ``base`` go to the strategies that have them.
    """
    config = with_value(_lay_over(base, values, where), "train.seed", seed, "--seeds")
    return resolve_options(write_out_stream(config))


def _lay_over(base: Config, values: Mapping[str, Any], where: str = "--grid") -> Config:
    """Return a configuration with values of the grid, whose stream may still be a name."""
    for key, value in names_first(values):
        base = with_value(base, key, value, f"{where} {key}")
        if key == STRATEGY:
            for other in declarations("strategy"):
                base = drop_options_of(base, other)
    return base


def options_without_effect(bases: Mapping[str, Config], runs: Sequence[PlannedRun]) -> list[str]:
    """Return a line for each option of ``bases`` that some strategies of a grid do not have.

    Raises:
        UserError: none of them has it.
    """
    lines = []
    for option in dict.fromkeys(name for base in bases.values() for name in base.strategy.options):
        without = [
            run.config.train.strategy for run in runs if option not in run.config.strategy.options
        ]
        names = ", ".join(dict.fromkeys(without))
        if len(without) == len(runs):
            raise UserError(f"strategy.{option}: no strategy of the grid has it: {names}.")
        if without:
            lines.append(f"strategy.{option} has no effect where {STRATEGY} is {names}")
    return lines


def column_names(keys: Sequence[str]) -> dict[str, str]:
    """Map each key to the name of its field, or to itself if two fields have the same name.

    >>> column_names(["train.batch", "evaluate.batch", "model.modules"])
    {'train.batch': 'train.batch', 'evaluate.batch': 'evaluate.batch', 'model.modules': 'modules'}
    """
    fields = Counter(key.rpartition(".")[2] for key in keys)
    return {key: field if fields[field := key.rpartition(".")[2]] == 1 else key for key in keys}


def format_value(value: Any) -> str:
    """Format a value as people write it in YAML."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _choices(base: Config, key: str, grid: Mapping[str, Sequence[str]]) -> list[Any]:
    """Return values of a key of the grid, converted to the type of their field."""
    texts, first = grid[key], dict[str, Any]()
    for section, name in (("strategy.", STRATEGY), ("growth.", "growth.when")):
        if key.startswith(section) and name in grid:
            first = {name: grid[name][0]}
    values = []
    for text in texts:
        point = first | {key: parse_flag(text, f"--grid {key}")}
        config = configure(base, point, 0)
        if key.startswith("stream."):  # an option of a stream, which is written out by now
            config = _lay_over(base, point)
        values.append(flatten(config)[key])
    check_values(values, f"--grid {key}", texts)
    return values


def check_values(values: Sequence[Any], where: str, texts: Sequence[str]) -> None:
    """Raise ``UserError`` if the values of an option are lists, or one of them is given twice.

    Args:
        values: of a field.
        where: the option, for the error.
        texts: the values as they were given.
    """
    if isinstance(values[0], list):
        raise UserError(
            f"{where}: a list cannot be told from several values by its commas; describe such runs "
            f"under 'runs' in a YAML file."
        )
    if len(set(values)) < len(values):
        raise UserError(f"{where}: each value must be given once, got {','.join(texts)}.")


def point_name(run: str, values: Mapping[str, Any]) -> str:
    """Return the name of a named run at a point of the grid: 'strategy=ewc,when=never'."""
    names = column_names(list(values))
    point = ",".join(f"{names[key]}={format_value(value)}" for key, value in values.items())
    parts = [run, re.sub(r"[^\w.=+,-]+", "_", point)]
    return "-".join(part for part in parts if part)


def _name(run: str, values: Mapping[str, Any], seed: int) -> str:
    return "-".join(part for part in (point_name(run, values), f"seed{seed}") if part)
