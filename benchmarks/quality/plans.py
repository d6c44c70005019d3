"""What is trained: every part of the benchmark as commands of ``thalnet train`` by run."""

import random
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from statistics import mean

from benchmarks.shared import BySeed, Record, as_named, by_seed, load_records

HERE = Path(__file__).parent
RESULTS = HERE / "results"

Jobs = dict[str, list[str]]
Flags = dict[str, object]

TASKS = {"permuted_mnist": "permuted MNIST", "cifar10": "CIFAR-10 by rows"}
BODIES = {"thalnet": "ThalNet, 4 modules", "gru": "GRU, 4 layers"}
READINGS = ("weight_norm", "weight_norm_rows", "linear", "fast_gaussian", "fast_softmax")
DESIGNS = ("ff", "gru", "ff_gru", "gru_ff", "ff_gru_ff")
EPOCHS = 20  # of the poster's table
TRIALS = 16  # for each body on each task
TRIAL_SEED = 100  # in no table


def poster(seeds: Sequence[int], more: Sequence[str] = (), epochs: int = EPOCHS) -> Jobs:
    """As we recall the paper: both bodies on both image tasks."""
    return {
        f"{task}_{body}-{epochs}epochs-seed{seed}": [
            *(f"paper/{task}_{body}", "--train.epochs", str(epochs)),
            *("--train.seed", str(seed), "--evaluate.log_every", "550", *more),
        ]
        for task, body, seed in product(TASKS, BODIES, seeds)
    }


def mechanisms(seeds: Sequence[int], more: Sequence[str] = ()) -> Jobs:
    """Every reading with every design of modules, on permuted MNIST."""
    return {
        f"{reading}-{design}-seed{seed}": [
            *("paper/permuted_mnist_thalnet", "--model.reading", reading, "--model.module", design),
            *("--train.epochs", "4", "--train.seed", str(seed)),
            *("--evaluate.log_every", "550", *more),
        ]
        for seed, reading, design in product(seeds, READINGS, DESIGNS)
    }


def search(seeds: Sequence[int] = (), more: Sequence[str] = ()) -> Jobs:
    """As many trials for each body on each task, from what the published model leaves open.

    On CIFAR-10 chance gave ThalNet few high rates and the GRU little without dropout: there a
    second round draws for both from where the first was good.
    """
    found = {}
    for task, body in product(TASKS, BODIES):
        draw = random.Random(f"{task} {body}")
        trials = [training(draw) | SHAPES[body](draw) for _ in range(TRIALS)]
        if task == "cifar10":
            draw = random.Random(f"{task} {body} again")
            trials += [training(draw, -2.5, 0.1) | shape(draw) for shape in AGAIN[body]]
        for number, flags in enumerate(trials):
            found[f"{task}_{body}-trial{number:02}"] = command(task, body, flags, TRIAL_SEED, more)
    return found


def training(draw: random.Random, low: float = -3, dropout: float = 0.2) -> Flags:
    """What is open for both bodies alike; rates from 10^low, dropout up to ``dropout``."""
    return {
        "train.learning_rate": round(10 ** draw.uniform(low, -2), 5),
        "train.batch": draw.choice([50, 100]),
        "train.dropout": draw.choice([p for p in (0, 0.05, 0.1, 0.2) if p <= dropout]),
        "train.weight_decay": draw.choice([0, 0.01, 0.1]),
        "model.extra_steps": draw.choice([0, 0, 1, 3]),
    }


def gru(draw: random.Random) -> Flags:
    """How a stacked GRU uses the budget."""
    return {"model.layers": draw.choice([1, 2, 3, 4])}


def thalnet(
    draw: random.Random,
    counts: Sequence[int] = (2, 3, 4, 6),
    ways: Sequence[str] = ("two", "bridge", "heads", "all"),
    designs: Sequence[str] = ("ff_gru", "ff_gru", "gru"),
) -> Flags:
    """How a ThalNet uses it: how many modules, how wide inside, which are inputs and outputs."""
    count, ends = draw.choice(counts), draw.choice(ways)
    flags: Flags = {
        "model.reading": draw.choice(["weight_norm", "weight_norm_rows", "linear"]),
        "model.module": draw.choice(designs),
        "model.context": draw.choice([0, 0, 16]),
        "model.hidden": draw.choice([0, 0, 48]),
    }
    for k in range(count):
        first, last = k == 0, k == count - 1
        flags[f"modules.m{k}.input"] = str(first or ends == "all").lower()
        output = last or ends in ("heads", "all") or (first and ends == "bridge")
        flags[f"modules.m{k}.output"] = str(output).lower()
    return flags


def few(draw: random.Random) -> Flags:
    """A ThalNet of two or three modules, mostly plain GRUs, several of them read by the head."""
    return thalnet(draw, (2, 3), ("bridge", "heads", "all"), ("ff_gru", "gru", "gru"))


def deep(draw: random.Random) -> Flags:
    """A GRU of three or four layers."""
    return {"model.layers": draw.choice([3, 4])}


Shape = Callable[[random.Random], Flags]
SHAPES: dict[str, Shape] = {"thalnet": thalnet, "gru": gru}
AGAIN = {"thalnet": [few] * 12, "gru": [gru] * 8 + [deep] * 4}  # GRUs as deep as were best


def command(task: str, body: str, flags: Flags, seed: int, more: Sequence[str]) -> list[str]:
    """The recipe that trials and their winners share."""
    own: Flags = {
        "task.name": "cifar10_rows" if task == "cifar10" else task,
        "model.body": body,
        "train.seed": seed,
    }
    words = [word for key, value in (own | flags).items() for word in (f"--{key}", str(value))]
    return [f"{as_named(HERE)}/recipe.yaml", *words, *more]


def best(seeds: Sequence[int], more: Sequence[str] = ()) -> Jobs:
    """The trials that validated best, of each body on each task, with other seeds."""
    found = {}
    for seed, ((task, body), names) in product(seeds, winners().items()):
        for place, name in enumerate(names):
            run = name if place else f"{task}_{body}"
            found[f"{run}-seed{seed}"] = [*with_seed(name, seed), *more]
    return found


def confirm(seeds: Sequence[int], more: Sequence[str] = ()) -> Jobs:
    """Where seeds have chosen among several trials, what they chose: to be run with new seeds."""
    found = {}
    for seed, ((task, body), names) in product(seeds, winners().items()):
        if len(names) > 1:
            chosen = finalist(task, body)
            name = chosen if chosen in names else names[0]
            found[f"{task}_{body}-seed{seed}"] = [*with_seed(name, seed), *more]
    return found


def with_seed(trial: str, seed: int) -> list[str]:
    """The command of a trial with another seed."""
    words = search()[trial]
    at = words.index("--train.seed") + 1
    return [*words[:at], str(seed), *words[at + 1 :]]


def finalist(task: str, body: str) -> str:
    """Of the trials that went on the one whose seeds validate best, as its runs are named."""
    found = {
        name: mean(done)
        for name, runs in candidates(task, body).items()
        if (done := [scored(r, "validation") for r in runs.values() if "result" in r])
    }
    return max(found, key=found.__getitem__, default="")


def candidates(task: str, body: str) -> dict[str, BySeed]:
    """With other seeds, the trial that validated best; after it those of the next places."""
    found = by_seed(RESULTS / "best")
    return {name: found[name] for name in found if name.partition("-")[0] == f"{task}_{body}"}


def winners() -> dict[tuple[str, str], list[str]]:
    """By task and body the trials that go on, the best on validation first.

    One, or for both bodies as many as tie for the first place of either.
    """
    scores: dict[tuple[str, str], dict[str, float]] = {}
    for name, record in load_records(RESULTS / "search").items():
        task, _, body = name.partition("-")[0].rpartition("_")
        if "result" in record:
            scores.setdefault((task, body), {})[name] = scored(record, "validation")
    places: dict[str, int] = {}
    for (task, _), of in scores.items():
        ties = [*of.values()].count(max(of.values()))
        places[task] = max(ties, places.get(task, 1))
    ranked = {key: sorted(of, key=lambda n: (-of[n], n)) for key, of in scores.items()}
    return {key: names[: places[key[0]]] for key, names in ranked.items()}


def scored(record: Record, split: str) -> float:
    """The accuracy of the one task of a run; the first runs were recorded without its name."""
    (task,) = record["result"].get("tasks", {"": record["result"]}).values()
    return task[split]["accuracy"]


PARTS: dict[str, Callable[[Sequence[int], Sequence[str]], Jobs]] = {
    "poster": poster,
    "mechanisms": mechanisms,
    "search": search,
    "best": best,
    "confirm": confirm,
}
