"""Hyperparameter search: trials of a method with a separate seed, selected on validation."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchmarks.records import Record
from thalnet_mtl.metrics.metric import METRICS, Metric
from thalnet_mtl.runs.summaries import read_summaries
from thalnet_mtl.sweep.scores import ranked, score_of

TRIAL_SEED = 102  # used for trials only, in no table of results

Setting = Mapping[str, str]  # flags of ``thalnet train``
Command = Callable[[int, Setting], list[str]]  # of a seed and a setting


def trial_jobs(name: str, settings: Sequence[Setting], command: Command) -> dict[str, list[str]]:
    """Return the command of every trial by the name of its run."""
    return {
        f"trial_{name}-{number}": command(TRIAL_SEED, setting)
        for number, setting in enumerate(settings)
    }


def ranked_trials(results: Path, name: str, settings: Sequence[Setting]) -> list[int]:
    """Return the numbers of the trials that succeeded, the best on validation first.

    Trials are ranked as by ``thalnet sweep --trials``: by the mean validation score of their tasks,
    normalized where the tasks differ in their metric.
    """
    paths = trial_paths(results, name, settings)
    runs = [read_summaries([path])[0][0] if path.exists() else None for path in paths]
    scored = [score_of(run.result, [*run.tasks]) if run and run.result else None for run in runs]
    metrics = [pair[1] for pair in scored if pair]
    return ranked([pair[0] if pair else None for pair in scored], metrics[0]) if metrics else []


def best_setting(results: Path, name: str, settings: Sequence[Setting]) -> Setting:
    """Return the setting with the best validation score among the trials that succeeded."""
    numbers = ranked_trials(results, name, settings)
    if not numbers:
        raise SystemExit(f"no trial of {name} has succeeded: run with --tune first.")
    return settings[numbers[0]]


def best_if_complete(results: Path, name: str, settings: Sequence[Setting]) -> list[Setting]:
    """Return the best setting in a list, or an empty list while trials are missing."""
    complete = all(path.exists() for path in trial_paths(results, name, settings))
    return [best_setting(results, name, settings)] if complete else []


def trial_paths(results: Path, name: str, settings: Sequence[Setting]) -> list[Path]:
    """Return the paths of the records of trials."""
    return [results / f"trial_{name}-{k}.json" for k in range(len(settings))]


def metric_of(task: str) -> Metric:
    """Return the metric of a task."""
    return METRICS["bits_per_character" if task == "text8" else "accuracy"]


def final_score(record: Record, task: str) -> float:
    """Return the final score on the test set."""
    return record["result"]["tasks"][task]["test"][metric_of(task).name]


def display_scale(task: str) -> float:
    """Return the factor by which tables multiply scores: accuracies in percent, bits as is."""
    return metric_of(task).scale(1.0)
