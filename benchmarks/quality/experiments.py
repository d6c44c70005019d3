"""Runs on images, by part of the benchmark: the paper's recipe, mechanisms, search, best."""

import random
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from statistics import mean

from benchmarks.launch import arguments, config_path
from benchmarks.records import Record, RunsBySeed, load_by_seed, load_records

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results"

Jobs = dict[str, list[str]]
Flags = dict[str, object]

TASKS = {"permuted_mnist": "permuted MNIST", "cifar10": "CIFAR-10 by rows"}
BODIES = {"thalnet": "ThalNet, 4 modules", "gru": "GRU, 4 layers"}
READINGS = ("weight_norm", "weight_norm_rows", "linear", "fast_gaussian", "fast_softmax")
DESIGNS = ("ff", "gru", "ff_gru", "gru_ff", "ff_gru_ff")
EPOCHS = 20  # of the comparison by the paper's recipe
TRIALS = 16  # first round of the search, for each body on each task
TRIAL_SEED = 100  # used for trials only, in no table of results


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
    """Return the trials of the random search: equally many for both bodies on each task.

    The first round on CIFAR-10 happened to sample few high learning rates for ThalNet and little
    dropout for the GRU. There, further rounds sample for both from the ranges that did well.
    """
    jobs = {}
    for task, body in product(TASKS, BODIES):
        rng = random.Random(f"{task} {body}")
        trials = [sample_training(rng) | SHAPES[body](rng) for _ in range(TRIALS)]
        if task == "cifar10":
            rng = random.Random(f"{task} {body} again")
            trials += [sample_training(rng, -2.5, 0.1) | shape(rng) for shape in LATER_SHAPES[body]]
        for number, trial in enumerate(trials):
            name = f"{task}_{body}-trial{number:02}"
            jobs[name] = command(task, body, trial, TRIAL_SEED, flags)
    return jobs


def sample_training(rng: random.Random, low: float = -3, dropout: float = 0.2) -> Flags:
    """Sample the options of both bodies; rates from 10^low to 0.01, dropout up to ``dropout``."""
    return {
        "train.learning_rate": round(10 ** rng.uniform(low, -2), 5),
        "train.batch": rng.choice([50, 100]),
        "train.dropout": rng.choice([p for p in (0, 0.05, 0.1, 0.2) if p <= dropout]),
        "train.weight_decay": rng.choice([0, 0.01, 0.1]),
        "model.extra_steps": rng.choice([0, 0, 1, 3]),
    }


def sample_gru(rng: random.Random) -> Flags:
    """Sample the number of layers of a GRU."""
    return {"model.layers": rng.choice([1, 2, 3, 4])}


def sample_thalnet(
    rng: random.Random,
    counts: Sequence[int] = (2, 3, 4, 6),
    connections: Sequence[str] = ("two", "bridge", "heads", "all"),
    designs: Sequence[str] = ("ff_gru", "ff_gru", "gru"),
) -> Flags:
    """Sample a ThalNet: reading, design, widths, number of modules, inputs and outputs."""
    count, connection = rng.choice(counts), rng.choice(connections)
    flags: Flags = {
        "model.reading": rng.choice(["weight_norm", "weight_norm_rows", "linear"]),
        "model.module": rng.choice(designs),
        "model.context": rng.choice([0, 0, 16]),
        "model.hidden": rng.choice([0, 0, 48]),
    }
    for k in range(count):
        first, last = k == 0, k == count - 1
        flags[f"modules.m{k}.input"] = str(first or connection == "all").lower()
        output = last or connection in ("heads", "all") or (first and connection == "bridge")
        flags[f"modules.m{k}.output"] = str(output).lower()
    return flags


def sample_small_thalnet(rng: random.Random) -> Flags:
    """Sample a ThalNet of two or three modules, mostly plain GRUs, several read by the head."""
    return sample_thalnet(rng, (2, 3), ("bridge", "heads", "all"), ("ff_gru", "gru", "gru"))


def sample_deep_gru(rng: random.Random) -> Flags:
    """Sample a GRU of three or four layers."""
    return {"model.layers": rng.choice([3, 4])}


Shape = Callable[[random.Random], Flags]
SHAPES: dict[str, Shape] = {"thalnet": sample_thalnet, "gru": sample_gru}
LATER_SHAPES = {  # rounds on CIFAR-10 after the first; the deepest GRUs had been the best
    "thalnet": [sample_small_thalnet] * 12,
    "gru": [sample_gru] * 8 + [sample_deep_gru] * 4,
}


def command(task: str, body: str, trial: Flags, seed: int, flags: Sequence[str]) -> list[str]:
    """Return the arguments of ``thalnet train`` for a trial, or for its setting with a new seed."""
    common: Flags = {
        "task.name": "cifar10_rows" if task == "cifar10" else task,
        "model.body": body,
        "train.seed": seed,
    }
    return [config_path(FOLDER / "recipe.yaml"), *arguments(common | trial), *flags]


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
