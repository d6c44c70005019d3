"""Runs of the attach benchmark: three arms for each first task, and single-task networks."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.launch import config_path

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results"
TASKS = ("permuted_mnist", "cifar10_rows", "mnist_rows")
STEPS = 1000  # of a task
ARMS = {
    "trained": "a center trained on the first task",
    "untrained": "an untrained center",
    "cut": "no center: the module reads only itself",
}


def orders() -> list[tuple[str, ...]]:
    """Return three orders of the tasks: each task is the first once."""
    return [TASKS[k:] + TASKS[:k] for k in range(len(TASKS))]


def jobs(seeds: Sequence[int]) -> dict[str, list[str]]:
    """Return the command of every run by its name."""
    commands = {}
    for seed in seeds:
        seed_flag = ["--train.seed", str(seed)]
        for first, *_ in orders():
            for arm in ARMS:
                names = ["recipe", f"{'drawn' if arm == 'untrained' else 'first'}_{first}"]
                names += ["cut"] * (arm == "cut")
                files = [config_path(FOLDER / f"{name}.yaml") for name in names]
                commands[f"{arm}_{first}-seed{seed}"] = [*files, *seed_flag]
        for task in TASKS:
            flags = ["--task.name", task, "--train.steps", str(STEPS), "--growth.when", "never"]
            run = [config_path(FOLDER / "recipe.yaml"), *flags, *seed_flag]
            commands[f"single_{task}-seed{seed}"] = run
    return commands
