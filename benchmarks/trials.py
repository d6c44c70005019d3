"""Trials of a method, with a seed of their own, and what they choose: on validation, none else."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean

from benchmarks.shared import Record
from thalnet_mtl.metrics.metric import METRICS, Metric

CLASSES = {"permuted_mnist": 10, "cifar10_rows": 10, "text8": 256}
TRIAL_SEED = 102  # in no table

Flags = Mapping[str, str]
Command = Callable[[int, Flags], list[str]]  # of a seed and what is tried


def trials(name: str, settings: Sequence[Flags], command: Command) -> dict[str, list[str]]:
    """Commands by the names of their runs."""
    return {
        f"trial_{name}-{number}": command(TRIAL_SEED, flags)
        for number, flags in enumerate(settings)
    }


def reached(results: Path, name: str, settings: Sequence[Flags]) -> dict[int, float]:
    """The mean level over the tasks on validation in the end, of each trial that succeeded."""
    paths = dict(enumerate(records_of(results, name, settings)))
    records = {k: json.loads(path.read_text()) for k, path in paths.items() if path.exists()}
    return {k: mean(levels(record)) for k, record in records.items() if "result" in record}


def chosen(results: Path, name: str, settings: Sequence[Flags]) -> Flags:
    """What validates best."""
    scores = reached(results, name, settings)
    if not scores:
        raise SystemExit(f"no trial of {name} has succeeded: run with --tune first.")
    return settings[max(scores, key=scores.__getitem__)]


def decided(results: Path, name: str, settings: Sequence[Flags]) -> list[Flags]:
    """What validates best, once all have been tried; before that nothing."""
    over = all(path.exists() for path in records_of(results, name, settings))
    return [chosen(results, name, settings)] if over else []


def records_of(results: Path, name: str, settings: Sequence[Flags]) -> list[Path]:
    """Where the records of trials are."""
    return [results / f"trial_{name}-{k}.json" for k in range(len(settings))]


def levels(record: Record) -> list[float]:
    """Of each task, on validation: 0 is guessing among equal classes, 1 perfection."""
    tasks = record["result"]["tasks"].items()
    return [
        METRICS[of["metric"]].normalized_score(of["validation"][of["metric"]], CLASSES[name])
        for name, of in tasks
    ]


def metric_of(task: str) -> Metric:
    """What a task is judged by."""
    return METRICS["bits_per_character" if task == "text8" else "accuracy"]


def score(record: Record, task: str) -> float:
    """On the test part, in the end."""
    return record["result"]["tasks"][task]["test"][metric_of(task).name]


def unit(task: str) -> float:
    """By which scores are multiplied to be shown: accuracies in percent, bits as they are."""
    return 100 if metric_of(task).higher_is_better else 1


def words(flags: Flags) -> list[str]:
    """Flags as a command has them."""
    return [word for key, value in flags.items() for word in (f"--{key}", value)]
