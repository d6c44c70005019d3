"""Ten permutations of MNIST one after another, with every method of the table.

    python -m benchmarks.continual.run --tune --jobs 2      # choose the knobs, on validation
    python -m benchmarks.continual.run --seeds 0 1 2 3 4 5 --jobs 2

Every run is one process of ``thalnet train``; a finished one is not repeated, an interrupted one
goes on where it stopped. Results go to ``results/`` as they come, one JSON file a run, and the
table of the README is made from those files alone (``--seeds`` without a number does only that).
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks.continual.methods import METHODS, RESULTS, STREAMS, Knobs, Method, chosen
from benchmarks.continual.tables import report
from benchmarks.shared import as_named, train_all, with_table

HERE = Path(__file__).parent
README = HERE / "README.md"
TRIALS = 100  # the seed of the trials, which is in no table
ORDERS = 3
TASKS = 10
BESIDES = ("gru", "gru_replay", "frozen_backbone")  # come last: the table stands without them
FIRST = 100  # the seed of the first permutation


def command(method: Method, seed: int, knobs: Knobs, *files: str) -> list[str]:
    """Of ``thalnet train``."""
    flags = {"train.seed": str(seed)} | method.flags | knobs
    named = [
        f"{as_named(HERE)}/{name}.yaml" for name in ("recipe", *files, f"methods/{method.body}")
    ]
    return [*named, *(part for key, value in flags.items() for part in (f"--{key}", value))]


def trials() -> dict[str, list[str]]:
    """As many for each method, on the first tasks of an order."""
    return {
        f"trial_{name}-{number}": command(METHODS[name], TRIALS, knobs, "trial")
        for name in STREAMS
        for number, knobs in enumerate(METHODS[name].trials)
    }


def jobs(seeds: Sequence[int]) -> dict[str, list[str]]:
    """All runs of the table by their name: every method in the same order of tasks for a seed.

    Joint and single-task runs have the knobs of the naive one.
    """
    found = {}
    for seed in seeds:
        for name in STREAMS:
            files = "tasks", f"order{seed % ORDERS}"
            found[f"{name}-seed{seed}"] = command(METHODS[name], seed, chosen(name), *files)
        found[f"joint-seed{seed}"] = command(METHODS["joint"], seed, chosen("joint"), "tasks")
        for task in range(TASKS):
            own = chosen("independent") | {"task.permutation": str(FIRST + task)}
            run = command(METHODS["independent"], seed, own)
            found[f"independent_p{task}-seed{seed}"] = run
    last = tuple(f"{name}-seed" for name in BESIDES)
    return dict(sorted(found.items(), key=lambda job: job[0].startswith(last)))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="*", default=[])
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--runs", type=Path, default=Path("runs/continual"))
    options = parser.parse_args()
    if options.tune:
        train_all(trials(), options.runs, RESULTS, options.jobs)
    if options.seeds:
        train_all(jobs(options.seeds), options.runs, RESULTS, options.jobs)
    README.write_text(with_table(README.read_text(), report()))


if __name__ == "__main__":
    main()
