"""Runs on images, by part of the benchmark: the paper's recipe, mechanisms, search, best."""

from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from statistics import mean

from benchmarks.records import Record, RunsBySeed, load_by_seed, load_records

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results"

Jobs = dict[str, list[str]]

TASKS = {"permuted_mnist": "permuted MNIST", "cifar10": "CIFAR-10 by rows"}
BODIES = {"thalnet": "ThalNet, 4 modules", "gru": "GRU, 4 layers"}
READINGS = ("weight_norm", "weight_norm_rows", "linear", "fast_gaussian", "fast_softmax")
DESIGNS = ("ff", "gru", "ff_gru", "gru_ff", "ff_gru_ff")
EPOCHS = 20  # of the comparison by the paper's recipe


def paper_recipe(seeds: Sequence[int], flags: Sequence[str] = (), epochs: int = EPOCHS) -> Jobs:
    """Return runs of both bodies on both image tasks that follow the paper as far as known."""
    return {
        f"{task}_{body}-{epochs}epochs-seed{seed}": [
            *(f"paper/{task}_{body}", "--train.epochs", str(epochs)),
            *("--train.seed", str(seed), "--evaluate.log_every", "550", *flags),
        ]
        for task, body, seed in product(TASKS, BODIES, seeds)
    }


def mechanisms(seeds: Sequence[int], flags: Sequence[str] = ()) -> Jobs:
    """Return runs of every reading with every module design on permuted MNIST."""
    return {
        f"{reading}-{design}-seed{seed}": [
            *("paper/permuted_mnist_thalnet", "--model.reading", reading, "--model.module", design),
            *("--train.epochs", "4", "--train.seed", str(seed)),
            *("--evaluate.log_every", "550", *flags),
        ]
        for seed, reading, design in product(seeds, READINGS, DESIGNS)
    }


def search(seeds: Sequence[int] = (), flags: Sequence[str] = ()) -> Jobs:
    """Return the trials of the random search as they were recorded: equally many for both bodies.

    The first round on CIFAR-10 happened to sample few high learning rates for ThalNet and little
    dropout for the GRU. There, further rounds sampled for both from the ranges that did well. A new
    search is one command today: see README.
    """
    return {
        name: [*recorded_command(record), *flags]
        for name, record in load_records(RESULTS / "search").items()
    }


def recorded_command(record: Record) -> list[str]:
    """Return the arguments of ``thalnet train`` of a trial, without those of the GPU it had."""
    return record["command"].partition(" --train.precision ")[0].split()[2:]


def best(seeds: Sequence[int], flags: Sequence[str] = ()) -> Jobs:
    """Return runs with other seeds of the trials that validated best for each task and body."""
    jobs = {}
    for seed, ((task, body), names) in product(seeds, best_trials().items()):
        for place, name in enumerate(names):
            run = name if place else f"{task}_{body}"
            jobs[f"{run}-seed{seed}"] = [*with_seed(name, seed), *flags]
    return jobs


def confirm(seeds: Sequence[int], flags: Sequence[str] = ()) -> Jobs:
    """Return runs with new seeds of the finalists that were selected among several trials."""
    jobs = {}
    for seed, ((task, body), names) in product(seeds, best_trials().items()):
        if len(names) > 1:
            selected = finalist(task, body)
            name = selected if selected in names else names[0]
            jobs[f"{task}_{body}-seed{seed}"] = [*with_seed(name, seed), *flags]
    return jobs


def with_seed(trial: str, seed: int) -> list[str]:
    """Return the command of a trial with another seed."""
    words = search()[trial]
    at = words.index("--train.seed") + 1
    return [*words[:at], str(seed), *words[at + 1 :]]


def finalist(task: str, body: str) -> str:
    """Return the candidate with the best mean validation accuracy, by the name of its runs."""
    scores = {
        name: mean(values)
        for name, runs in candidates(task, body).items()
        if (values := [accuracy(r, "validation") for r in runs.values() if "result" in r])
    }
    return max(scores, key=scores.__getitem__, default="")


def candidates(task: str, body: str) -> dict[str, RunsBySeed]:
    """Return the runs with other seeds of the best trials of a task and body, the best first."""
    runs = load_by_seed(RESULTS / "best")
    return {name: runs[name] for name in runs if name.partition("-")[0] == f"{task}_{body}"}


def best_trials() -> dict[tuple[str, str], list[str]]:
    """Return by task and body the trials to run with other seeds, best on validation first.

    There is one, or, for both bodies alike, as many as tie for the first place of either.
    """
    scores: dict[tuple[str, str], dict[str, float]] = {}
    for name, record in load_records(RESULTS / "search").items():
        task, _, body = name.partition("-")[0].rpartition("_")
        if "result" in record:
            scores.setdefault((task, body), {})[name] = accuracy(record, "validation")
    places: dict[str, int] = {}
    for (task, _), trials in scores.items():
        ties = [*trials.values()].count(max(trials.values()))
        places[task] = max(ties, places.get(task, 1))
    ranked = {
        key: sorted(trials, key=lambda name: (-trials[name], name))
        for key, trials in scores.items()
    }
    return {key: names[: places[key[0]]] for key, names in ranked.items()}


def accuracy(record: Record, split: str) -> float:
    """Return the accuracy of a single-task run; the first records lack the name of the task."""
    (task,) = record["result"].get("tasks", {"": record["result"]}).values()
    return task[split]["accuracy"]


PARTS: dict[str, Callable[[Sequence[int], Sequence[str]], Jobs]] = {
    "poster": paper_recipe,
    "mechanisms": mechanisms,
    "search": search,
    "best": best,
    "confirm": confirm,
}
