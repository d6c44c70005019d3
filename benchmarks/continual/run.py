"""Trains ten permutations of MNIST in sequence with every method of the table.

    python -m benchmarks.continual.run --tune --jobs 2      # select the settings, on validation
    python -m benchmarks.continual.run --seeds 0 1 2 3 4 5 --jobs 2

Every run is one process of ``thalnet train``; a finished one is not repeated, an interrupted one
resumes. Every record is written to ``results/`` when its run ends. The tables of the README are
made from these files alone (``--seeds`` without a number does only that).
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks.continual.methods import METHODS, RESULTS, STREAMS, Method, Setting, best_setting
from benchmarks.continual.report import report
from benchmarks.launch import arguments, config_path, launch
from benchmarks.markdown import with_table

FOLDER = Path(__file__).parent
README = FOLDER / "README.md"
TRIAL_SEED = 100  # used for trials only, in no table of results
ORDERS = 3
TASKS = 10
LAST = ("gru", "gru_replay", "frozen_backbone")  # trained last: the table stands without them
FIRST_PERMUTATION = 100


def command(method: Method, seed: int, setting: Setting, *files: str) -> list[str]:
    """Return the arguments of ``thalnet train``."""
    names = ("recipe", *files, f"methods/{method.body}")
    flags = {"train.seed": str(seed)} | method.flags | setting
    return [*(config_path(FOLDER / f"{name}.yaml") for name in names), *arguments(flags)]


def trial_jobs() -> dict[str, list[str]]:
    """Return the trials of all methods, on the first five tasks of order 0."""
    return {
        f"trial_{name}-{number}": command(METHODS[name], TRIAL_SEED, setting, "trial")
        for name in STREAMS
        for number, setting in enumerate(METHODS[name].settings)
    }


def jobs(seeds: Sequence[int]) -> dict[str, list[str]]:
    """Return the command of every run by its name; a seed fixes the order of the tasks.

    Joint and single-task runs use the setting of the naive method.
    """
    commands = {}
    for seed in seeds:
        for name in STREAMS:
            files = "tasks", f"order{seed % ORDERS}"
            run = command(METHODS[name], seed, best_setting(name), *files)
            commands[f"{name}-seed{seed}"] = run
        run = command(METHODS["joint"], seed, best_setting("joint"), "tasks")
        commands[f"joint-seed{seed}"] = run
        for task in range(TASKS):
            setting = best_setting("independent")
            setting |= {"task.permutation": str(FIRST_PERMUTATION + task)}
            run = command(METHODS["independent"], seed, setting)
            commands[f"independent_p{task}-seed{seed}"] = run
    last = tuple(f"{name}-seed" for name in LAST)
    return dict(sorted(commands.items(), key=lambda job: job[0].startswith(last)))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="*", default=[], help="none: tables only")
    parser.add_argument("--tune", action="store_true", help="run the trials first")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--runs", type=Path, default=Path("runs/continual"), help="run directories")
    options = parser.parse_args()
    if options.tune:
        launch(trial_jobs(), options.runs, RESULTS, options.jobs)
    if options.seeds:
        launch(jobs(options.seeds), options.runs, RESULTS, options.jobs)
    README.write_text(with_table(README.read_text(), report()))


if __name__ == "__main__":
    main()
