"""Runs of the search for the best ThalNet and the best GRU: trials, finalists, new seeds."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from benchmarks.launch import arguments, config_path
from benchmarks.records import Record, load_records
from benchmarks.tuning import metric_of
from thalnet_mtl.sweep.space import distribution_of, parse_samples

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results"

BODIES = {"thalnet": "ThalNet", "gru": "GRU", "mlp": "MLP"}
TRIAL_SEED = 102  # of all trials, in no table of results
FINALIST_SEEDS = (103, 104)  # further seeds of the best trials
FINALISTS = 4  # trials of each body that are trained with these
SEEDS = 8  # of the selected settings; with fewer they are not compared

Jobs = dict[str, list[str]]


@dataclass(frozen=True)
class Search:
    """A random search on a task, with the same number of trials for every body.

    Trials of the same number have the same values of the fields that all bodies have.

    Args:
        title: of the task in tables.
        shared: words as after ``thalnet sweep --sample``, for fields that all bodies have.
        bodies: the same by body, for fields that it alone has. ThalNet has ``blocks``, its number
            of modules, and ``input``, which of them take the input: ``first`` or ``all``.
        trials: number of trials of each body.
    """

    title: str
    shared: Sequence[str]
    bodies: Mapping[str, Sequence[str]]
    trials: int

    def settings(self, task: str, body: str) -> list[dict[str, str]]:
        """Return the flags of every trial, the same ones whenever it is called.

        The trials divide the range of a field into equal parts, a part for each of them in random
        order (Latin hypercube), so that all values of a choice are tried equally often.
        """
        settings: list[dict[str, str]] = [{} for _ in range(self.trials)]
        for part, words in (("shared", self.shared), (body, self.bodies[body])):
            for sample in parse_samples([f"space.{word}" for word in words]):
                key = sample.key.removeprefix("space.")
                distribution = distribution_of(sample, lambda value: value)
                generator = random.Random(f"{task} {part} {key}")
                places = generator.sample(range(self.trials), self.trials)
                for setting, place in zip(settings, places, strict=True):
                    quantile = (place + generator.random()) / self.trials
                    setting[key] = str(distribution.at(quantile))
        return settings


SEARCHES = {
    "permuted_mnist": Search(
        title="permuted MNIST",
        shared=[
            "train.learning_rate=log:0.002,0.012",
            "train.batch=50,100",
            "train.dropout=0,0.05,0.1,0.2",
            "train.weight_decay=0,0.1",
            "model.extra_steps=0,1",
        ],
        bodies={
            "thalnet": ["blocks=2,3,4", "input=first,all", "model.context=4,8,16,24"],
            "gru": ["model.layers=1,2,3,4"],
            "mlp": ["model.layers=1,2", "model.extra_steps=0"],  # it has no steps to settle in
        },
        trials=32,
    ),
    "text8": Search(
        title="text8, 1 M parameters",
        shared=[
            "train.learning_rate=log:0.002,0.012",
            "train.warmup=0,40,80",
        ],
        bodies={
            "thalnet": ["blocks=2,3,4", "input=first,all", "model.context=8,16,24,48,96"],
            "gru": ["model.layers=1,2,3"],
        },
        trials=16,
    ),
}


def command(task: str, body: str, setting: Mapping[str, str], seed: int) -> list[str]:
    """Return the arguments of ``thalnet train``.

    A ThalNet has plain GRU modules with a linear reading, and the head reads all of them.
    """
    flags = {"model.body": body, "train.seed": str(seed)}
    flags |= {key: value for key, value in setting.items() if "." in key}
    if body == "thalnet":
        flags |= {"model.module": "gru", "model.reading": "linear"}
        for k in range(int(setting["blocks"])):
            takes_input = k == 0 or setting["input"] == "all"
            flags |= {
                f"modules.m{k}.input": str(takes_input).lower(),
                f"modules.m{k}.output": "true",
            }
    return [config_path(FOLDER / f"{task}.yaml"), *arguments(flags)]


def trials(task: str, body: str) -> Jobs:
    """Return the trials of a body on a task."""
    return {
        f"{task}_{body}-trial{k:02}-seed{TRIAL_SEED}": command(task, body, setting, TRIAL_SEED)
        for k, setting in enumerate(SEARCHES[task].settings(task, body))
    }


def finalists(task: str, body: str) -> Jobs:
    """Return further seeds of the trials that validated best."""
    settings = SEARCHES[task].settings(task, body)
    return {
        f"{task}_{body}-trial{k:02}-seed{seed}": command(task, body, settings[k], seed)
        for k in ranked(task, body)[:FINALISTS]
        for seed in FINALIST_SEEDS
    }


def confirm(task: str, body: str, seeds: Sequence[int]) -> Jobs:
    """Return runs with new seeds of the finalist that validated best on the mean of its seeds."""
    number = ranked(task, body, (TRIAL_SEED, *FINALIST_SEEDS))[0]
    setting = SEARCHES[task].settings(task, body)[number]
    return {
        f"{task}_{body}-trial{number:02}-seed{seed}": command(task, body, setting, seed)
        for seed in seeds
    }


def ranked(task: str, body: str, seeds: Sequence[int] = (TRIAL_SEED,)) -> list[int]:
    """Return the numbers of the trials that have all these seeds, the best on validation first.

    Raises:
        SystemExit: some trial was not run yet, or every trial failed.
    """
    part = "search" if len(seeds) == 1 else "finalists"
    records = load_records(RESULTS / "search") | load_records(RESULTS / part)
    missing = [name for name in trials(task, body) if name not in records]
    if missing:
        raise SystemExit(f"{task}, {body}: {len(missing)} trials are missing: run 'search' first.")
    scores = {}
    for k in range(SEARCHES[task].trials):
        names = [f"{task}_{body}-trial{k:02}-seed{seed}" for seed in seeds]
        if all("result" in records.get(name, {}) for name in names):
            scores[k] = mean(score(records[name], task, "validation") for name in names)
    if not scores:
        raise SystemExit(f"{task}, {body}: no trial has all seeds {seeds}: run '{part}' first.")
    return sorted(scores, key=lambda k: scores[k], reverse=metric_of(task).higher_is_better)


def score(record: Record, task: str, split: str) -> float:
    """Return the final score of a run on a split: accuracy, or bits per character."""
    return record["result"]["tasks"][task][split][metric_of(task).name]
