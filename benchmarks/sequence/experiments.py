"""Runs of the sequence benchmark: every method in six orders, single-task networks, trials."""

from collections.abc import Iterable, Sequence
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
    "cifar10_rows": "CIFAR-10, %",
    "text8": "text8, bits",
}
ORDERS = 6
RATES = [{"train.learning_rate": rate} for rate in ("0.001", "0.003", "0.01", "0.03")]
STRENGTHS = [{"strategy.strength": x} for x in ("100", "1000", "10000", "100000")]
METHODS = {  # title and config file, each with four trials
    "never": ("fixed size, naive", "never"),
    "ewc": ("fixed size, EWC", "never"),
    "replay": ("fixed size, replay of 500", "never"),
    "frozen": ("growing, old modules frozen", "frozen"),
    "shared": ("growing, all modules train", "shared"),
    "through": ("growing, old modules frozen, fed by all tasks", "through"),
}
# An encoder of each task feeds a shared module; the number of features within the parameter budget
# depends on the width of the first task's input, so on the order.
FEATURES = {"through": {2: "31", 3: "31", 4: "30", 5: "30"}}


def settings(name: str) -> list[Setting]:
    """Return the settings to try: learning rates; for EWC strengths at the best learning rate."""
    flags = {"train.strategy": name} if name in ("ewc", "replay") else {}
    if name != "ewc":
        return [flags | rate for rate in RATES]
    rates = tuning.best_if_complete(RESULTS, "never", settings("never"))
    return [{**flags, **rate, **strength} for rate in rates for strength in STRENGTHS]


def command(files: Iterable[str], seed: int, setting: Setting) -> list[str]:
    """Return the arguments of ``thalnet train``."""
    paths = [config_path(FOLDER / f"{name}.yaml") for name in files]
    return [*paths, *arguments({"train.seed": str(seed)} | dict(setting))]


def single_task_command(task: str, seed: int, setting: Setting) -> list[str]:
    """Return the arguments of ``thalnet train`` for a single-task network."""
    return command(["recipe", "single"], seed, {"task.name": task} | dict(setting))


def trial_jobs() -> dict[str, list[str]]:
    """Return the trials of all methods in order 0 and of single-task networks, as far as known."""
    jobs: dict[str, list[str]] = {}
    for name, (_, file) in METHODS.items():
        train = partial(command, ["recipe", "orders/0", file])
        jobs |= tuning.trial_jobs(name, settings(name), train)
    for task in TASKS:
        jobs |= tuning.trial_jobs(f"single_{task}", RATES, partial(single_task_command, task))
    return jobs


def jobs(seeds: Sequence[int]) -> dict[str, list[str]]:
    """Return the command of every run by its name, with the settings that the trials selected."""
    selected = {name: best_setting(RESULTS, name, settings(name)) for name in METHODS}
    commands = {}
    for seed in seeds:
        order = seed % ORDERS
        for name, (_, file) in METHODS.items():
            features = FEATURES.get(name, {}).get(order)
            setting = {**selected[name]} | ({"model.features": features} if features else {})
            run = command(["recipe", f"orders/{order}", file], seed, setting)
            commands[f"{name}-seed{seed}"] = run
        for task, place in product(TASKS, range(2)):
            setting = {**ranked_rates(task)[place]}
            name = f"single_{task}_at_{setting['train.learning_rate']}"
            commands[f"{name}-seed{seed}"] = single_task_command(task, seed, setting)
    return commands


def ranked_rates(task: str) -> list[Setting]:
    """Return the learning rates of a single task, best in the trials first."""
    return [RATES[k] for k in tuning.ranked_trials(RESULTS, f"single_{task}", RATES)]
