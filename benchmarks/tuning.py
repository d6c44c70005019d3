"""Hyperparameter search: trials of a method with a separate seed, selected on validation."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean

from benchmarks.records import Record
from thalnet_mtl.metrics.metric import METRICS, Metric, guess_among_equal_classes

CLASSES = {"permuted_mnist": 10, "cifar10_rows": 10, "text8": 256}
TRIAL_SEED = 102  # used for trials only, in no table of results

Setting = Mapping[str, str]  # flags of ``thalnet train``
Command = Callable[[int, Setting], list[str]]  # of a seed and a setting


def trial_jobs(name: str, settings: Sequence[Setting], command: Command) -> dict[str, list[str]]:
    """Return the command of every trial by the name of its run."""
    return {
        f"trial_{name}-{number}": command(TRIAL_SEED, setting)
        for number, setting in enumerate(settings)
    }


def validation_scores(results: Path, name: str, settings: Sequence[Setting]) -> dict[int, float]:
    """Return the final validation score of each trial that succeeded: the mean over its tasks."""
    paths = dict(enumerate(trial_paths(results, name, settings)))
    records = {k: json.loads(path.read_text()) for k, path in paths.items() if path.exists()}
    return {k: mean(normalized_scores(r)) for k, r in records.items() if "result" in r}


def best_setting(results: Path, name: str, settings: Sequence[Setting]) -> Setting:
    """Return the setting with the best validation score among the trials that succeeded."""
    scores = validation_scores(results, name, settings)
    if not scores:
        raise SystemExit(f"no trial of {name} has succeeded: run with --tune first.")
    return settings[max(scores, key=scores.__getitem__)]


def best_if_complete(results: Path, name: str, settings: Sequence[Setting]) -> list[Setting]:
    """Return the best setting in a list, or an empty list while trials are missing."""
    complete = all(path.exists() for path in trial_paths(results, name, settings))
    return [best_setting(results, name, settings)] if complete else []


def trial_paths(results: Path, name: str, settings: Sequence[Setting]) -> list[Path]:
    """Return the paths of the records of trials."""
    return [results / f"trial_{name}-{k}.json" for k in range(len(settings))]


def normalized_scores(record: Record) -> list[float]:
    """Return the validation score of each task: 0 is guessing among equal classes, 1 perfect."""
    return [
        METRICS[scores["metric"]].normalized_score(
            scores["validation"][scores["metric"]],
            guess_among_equal_classes(scores["metric"], CLASSES[task]),
        )
        for task, scores in record["result"]["tasks"].items()
    ]


def metric_of(task: str) -> Metric:
    """Return the metric of a task."""
    return METRICS["bits_per_character" if task == "text8" else "accuracy"]


def final_score(record: Record, task: str) -> float:
    """Return the final score on the test set."""
    return record["result"]["tasks"][task]["test"][metric_of(task).name]


def display_scale(task: str) -> float:
    """Return the factor by which tables multiply scores: accuracies in percent, bits as is."""
    return metric_of(task).scale(1.0)
