"""What is trained: every network in every way, its trials, and what they choose."""

from collections.abc import Sequence
from functools import partial
from itertools import product
from pathlib import Path

from benchmarks import trials
from benchmarks.shared import as_named
from benchmarks.trials import Flags, chosen

HERE = Path(__file__).parent
RESULTS = HERE / "results"
TASKS = {
    "permuted_mnist": "permuted MNIST, %",
    "cifar10_rows": "CIFAR-10 by rows, %",
    "text8": "text8, first 74 MB, bits",
}
BODIES = {"thalnet": "ThalNet", "gru": "GRU"}
JOINT = {"thalnet": "joint/three_tasks", "gru": "joint/three_tasks_gru"}

# How a network is trained, each way with four trials: weights and aggregators at the better rate.
WAYS = {
    "alone": "one each, a third",
    "weighted": "jointly, fixed weights",
    "aggregated": "jointly, an aggregator",
    "wide": "one each, as wide as jointly",
}
OWN = {  # of one task alone; 34 features have the modules of the joint ThalNet
    "alone": {"model.budget": "50000"},
    "wide": {"model.budget": "80000", "model.features": "34"},
}
NETWORKS = [pair for pair in product(BODIES, WAYS) if pair != ("gru", "wide")]
RATES = [{"train.learning_rate": rate} for rate in ("0.0015", "0.003", "0.006", "0.012")]
JOINT_RATES = RATES[1:3]
WEIGHTS = [{f"tasks.{task}.weight": "3"} for task in ("cifar10_rows", "text8")]
AGGREGATORS = [{"train.combine": name} for name in ("upgrad", "pcgrad", "mgda", "aligned_mtl")]

SEEDS = range(8)  # later ones are for one joint ThalNet against single ones, confirmed or not


def names(body: str, way: str) -> dict[str, str]:
    """By task, what its run is called; one run has all tasks where they are trained jointly."""
    return {t: f"{way}_{t}_{body}" if way in OWN else f"{way}_{body}" for t in TASKS}


def command(body: str, way: str, task: str, seed: int, flags: Flags) -> list[str]:
    """Of ``thalnet train``; jointly the task does not matter."""
    recipe, last = f"{as_named(HERE)}/recipe.yaml", {"train.seed": str(seed)} | dict(flags)
    if way not in OWN:
        return [JOINT[body], recipe, *trials.words(last)]
    own = {"task.name": task} | OWN[way]
    return [recipe, f"{as_named(HERE)}/{body}.yaml", *trials.words(own | last)]


def settings(body: str, way: str) -> list[Flags]:
    """What is tried; what depends on a rate only once the trials of joint rates are there."""
    if way in OWN:
        return RATES
    rate = trials.decided(RESULTS, f"weighted_{body}", JOINT_RATES)
    if way == "weighted":
        return [*JOINT_RATES, *(one | more for one in rate for more in WEIGHTS)]
    return [one | more for one in rate for more in AGGREGATORS]


def tried() -> dict[str, list[str]]:
    """Trials of every network in every way, as far as they are known."""
    found = {}
    for body, way in NETWORKS:
        for task, name in names(body, way).items():
            found |= trials.trials(name, settings(body, way), partial(command, body, way, task))
    return found


def jobs(seeds: Sequence[int]) -> dict[str, list[str]]:
    """All commands by the name of their run, as its trials chose."""
    every = [(*pair, *item) for pair in NETWORKS for item in names(*pair).items()]
    best = {name: chosen(RESULTS, name, settings(body, way)) for body, way, _, name in every}
    return {
        f"{name}-seed{seed}": command(body, way, task, seed, best[name])
        for seed in seeds
        for body, way, task, name in every
        if seed in SEEDS or (body == "thalnet" and way != "aggregated")
    }
