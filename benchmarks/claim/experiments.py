"""Runs of the claim: every network with every training method, their trials, the selection."""

from collections.abc import Sequence
from functools import partial
from itertools import product
from pathlib import Path

from benchmarks import tuning
from benchmarks.launch import arguments, config_path
from benchmarks.tuning import Setting, best_setting

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results"
TASKS = {
    "permuted_mnist": "permuted MNIST, %",
    "cifar10_rows": "CIFAR-10 by rows, %",
    "text8": "text8, first 74 MB, bits",
}
BODIES = {"thalnet": "ThalNet", "gru": "GRU"}
JOINT_CONFIGS = {"thalnet": "joint/three_tasks", "gru": "joint/three_tasks_gru"}

# Training methods, each with four trials: weights and aggregators at the better learning rate.
METHODS = {
    "alone": "single-task, a third of the size each",
    "weighted": "joint, fixed loss weights",
    "aggregated": "joint, gradient aggregator",
    "wide": "single-task, modules as wide as joint",
}
SINGLE_TASK_FLAGS = {  # the modules of the joint ThalNet have 34 features
    "alone": {"model.budget": "50000"},
    "wide": {"model.budget": "80000", "model.features": "34"},
}
NETWORKS = [pair for pair in product(BODIES, METHODS) if pair != ("gru", "wide")]
RATES = [{"train.learning_rate": rate} for rate in ("0.0015", "0.003", "0.006", "0.012")]
JOINT_RATES = RATES[1:3]
WEIGHTS = [{f"tasks.{task}.weight": "3"} for task in ("cifar10_rows", "text8")]
AGGREGATORS = [{"train.combine": name} for name in ("upgrad", "pcgrad", "mgda", "aligned_mtl")]

SEEDS = range(8)  # later seeds confirm the comparisons of joint with single-task ThalNets


def run_names(body: str, method: str) -> dict[str, str]:
    """Return the name of the run of each task; in joint training all tasks share one run."""
    return {
        task: f"{method}_{task}_{body}" if method in SINGLE_TASK_FLAGS else f"{method}_{body}"
        for task in TASKS
    }


def command(body: str, method: str, task: str, seed: int, setting: Setting) -> list[str]:
    """Return the arguments of ``thalnet train``; joint training ignores the task."""
    recipe = config_path(FOLDER / "recipe.yaml")
    flags = {"train.seed": str(seed)} | dict(setting)
    if method not in SINGLE_TASK_FLAGS:
        return [JOINT_CONFIGS[body], recipe, *arguments(flags)]
    flags = {"task.name": task} | SINGLE_TASK_FLAGS[method] | flags
    return [recipe, config_path(FOLDER / f"{body}.yaml"), *arguments(flags)]


def settings(body: str, method: str) -> list[Setting]:
    """Return the settings to try; some depend on the trials of joint learning rates."""
    if method in SINGLE_TASK_FLAGS:
        return [*RATES]
    rates = tuning.best_if_complete(RESULTS, f"weighted_{body}", JOINT_RATES)
    if method == "weighted":
        return [*JOINT_RATES, *({**rate, **weight} for rate in rates for weight in WEIGHTS)]
    return [{**rate, **aggregator} for rate in rates for aggregator in AGGREGATORS]


def trial_jobs() -> dict[str, list[str]]:
    """Return the trials of every network and method whose settings are known already."""
    trials: dict[str, list[str]] = {}
    for body, method in NETWORKS:
        for task, name in run_names(body, method).items():
            train = partial(command, body, method, task)
            trials |= tuning.trial_jobs(name, settings(body, method), train)
    return trials


def jobs(seeds: Sequence[int]) -> dict[str, list[str]]:
    """Return the command of every run by its name, with the settings that the trials selected."""
    runs = [(*pair, *run) for pair in NETWORKS for run in run_names(*pair).items()]
    selected = {
        name: best_setting(RESULTS, name, settings(body, method)) for body, method, _, name in runs
    }
    return {
        f"{name}-seed{seed}": command(body, method, task, seed, selected[name])
        for seed in seeds
        for body, method, task, name in runs
        if seed in SEEDS or (body == "thalnet" and method != "aggregated")
    }
