"""Runs of the search benchmark: every stream with every arm, all with the same budget."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.launch import arguments, config_path
from thalnet_mtl.cli.parser import split_flags
from thalnet_mtl.config.load import load_config, load_configs
from thalnet_mtl.config.schema import Config

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results"
RECIPE = "search/recipe"
STREAMS = ("s_minus", "s_plus", "s_in", "s_out", "s_pl", "input_shape", "null", "s_long30")
BUDGET = 1.3  # steps of arms without a race over the recipe's: the most that a search may cost


@dataclass(frozen=True)
class Arm:
    """A way to decide what new tasks get.

    Args:
        title: of its rows in tables.
        when: ``growth.when``; '' to leave it as it is.
        races: whether candidates train for a decision. Otherwise every task trains longer.
        file: of this folder, laid over recipe and stream; '' for none.
        price: ``growth.price``; '' to leave it as it is.
    """

    title: str
    when: str = ""
    races: bool = False
    file: str = ""
    price: str = ""


FIRST = ("search", "independent", "oracle", "random")  # trained first: the tables stand on them
ARMS = {
    "search": Arm("**search**", "search", races=True),
    "oracle": Arm("oracle: the right answer", "oracle"),
    "exhaustive": Arm("exhaustive: every candidate to the end", "exhaustive", races=True),
    "random": Arm("random candidate", "random"),
    "independent": Arm("independent networks", "independent"),
    "never": Arm("fixed size, naive", "never"),
    "per_task": Arm("new modules for every task", "per_task"),
    "on_plateau": Arm("new modules on a plateau, all train", file="on_plateau"),
    "columns": Arm("progressive columns of GRUs", file="columns"),
    "prior_alone": Arm("prior alone", "prior_alone"),
    "race_alone": Arm("race alone, source: the last task", "race_alone", races=True),
    "any_path": Arm("a race even with a path that knows nothing", "any_path", races=True),
    "price_0": Arm("price 0", "search", races=True, price="0"),
}


def command(stream: str, name: str, seed: int) -> list[str]:
    """Return the arguments of ``benchmarks.search.train``.

    Args:
        stream: one of ``STREAMS``, or the path of a YAML file, in which the recipe is included.
        name: of the arm.
        seed: of the run.
    """
    arm, files = ARMS[name], [*stream_files(stream)]
    flags = {"growth.when": arm.when, "growth.price": arm.price}
    flags |= (
        {} if arm.races else {"train.steps": str(round(BUDGET * recipe_config(stream).train.steps))}
    )
    files += [config_path(FOLDER / f"{arm.file}.yaml")] if arm.file else []
    flags = {key: value for key, value in flags.items() if value} | {"train.seed": str(seed)}
    return [*files, *arguments(flags | data_flags(stream, seed))]


def data_flags(stream: str, seed: int) -> dict[str, str]:
    """Return the options by which the data of a stream depend on the seed of a run.

    Samples, permutations, labels and gains are drawn anew. Tasks with the same data keep that.
    """
    flags = {}
    for name, task in recipe_config(stream).tasks.items():
        if task.name != "variant" or not seed:
            continue
        options = {**task.options, "sample_seed": task.options.get("sample_seed", 0)}
        steps = {"sample_seed": 100, "label_order": 1, "gains": 1, "random_labels": 1}
        flags |= {
            f"tasks.{name}.{option}": str(options[option] + step * seed)
            for option, step in steps.items()
            if option in options
        }
        if isinstance(options["of"], dict):
            permutation = options["of"]["permutation"] + 10 * seed
            of = f"{{name: {options['of']['name']}, permutation: {permutation}}}"
            flags[f"tasks.{name}.of"] = of
    return flags


def stream_files(stream: str) -> tuple[str, ...]:
    """Return the configuration files of a stream; see ``command``."""
    return (stream,) if stream.endswith(".yaml") else (RECIPE, f"search/{stream}")


@cache
def recipe_config(stream: str) -> Config:
    """Return the configuration of a stream before an arm changes it."""
    return load_config(*stream_files(stream))


def jobs(streams: Sequence[str], arms: Sequence[str], seeds: Sequence[int]) -> dict[str, list[str]]:
    """Return the command of every run by its name, by stream and seed, the ``FIRST`` arms first."""
    groups = ([arm for arm in arms if (arm in FIRST) == first] for first in (True, False))
    return {
        f"{Path(stream).stem}/{arm}-seed{seed}": command(stream, arm, seed)
        for group in groups
        for stream in streams
        for seed in seeds
        for arm in group
    }


def load(words: Sequence[str]) -> Config:
    """Return the configuration of a run by its command."""
    files, flags = split_flags(words)
    return load_configs(files, flags)[""]


def fingerprint(words: Sequence[str]) -> str:
    """Return a number that changes with the configuration of a run, however it is written.

    Defaults do not count, so that a new field of the configuration changes no number.
    """
    text = json.dumps(without_defaults(load(words)), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def without_defaults(value: Any) -> Any:
    """Return a section as plain values, without fields that have their default, at every level."""
    if is_dataclass(value) and not isinstance(value, type):
        plain = {}
        for field in fields(value):
            factory, entry = field.default_factory, getattr(value, field.name)
            if entry != (field.default if factory is MISSING else factory()):
                plain[field.name] = without_defaults(entry)
        return plain
    if isinstance(value, Mapping):
        return {str(key): without_defaults(entry) for key, entry in value.items()}
    if isinstance(value, tuple | list):
        return [without_defaults(entry) for entry in value]
    return value
