"""Searches the best ThalNet and the best GRU of equal size, with equally many trials.

    python -m benchmarks.best.run search --jobs 2
    python -m benchmarks.best.run finalists --jobs 2
    python -m benchmarks.best.run confirm --seeds 20 21 22 23 24 25 26 27 --jobs 2

Every run is one ``thalnet train``; a finished one is not repeated, an interrupted one resumes.
Every record is written to ``results/`` when its run ends. The tables are made from these files
alone (without a part, nothing else is done).
"""

import argparse
from itertools import product
from pathlib import Path

from benchmarks import readme_table
from benchmarks.best.experiments import (
    BODIES,
    FOLDER,
    RESULTS,
    SEARCHES,
    confirm,
    finalists,
    trials,
)
from benchmarks.best.report import report
from benchmarks.launch import launch
from benchmarks.markdown import with_table

README = FOLDER / "README.md"
PARTS = ("search", "finalists", "confirm")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("part", nargs="?", choices=PARTS, help="none: tables only")
    parser.add_argument("--tasks", nargs="+", choices=SEARCHES, default=[*SEARCHES])
    parser.add_argument("--bodies", nargs="+", choices=BODIES, default=[*BODIES])
    parser.add_argument("--seeds", type=int, nargs="+", default=[], help="of the part 'confirm'")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--runs", type=Path, default=Path("runs/best"), help="run directories")
    options = parser.parse_args()
    if options.part == "confirm" and not options.seeds:
        parser.error("confirm: give the new seeds with --seeds.")
    for task, body in product(options.tasks, options.bodies):
        if body not in SEARCHES[task].bodies:
            continue
        match options.part:
            case "search":
                jobs = trials(task, body)
            case "finalists":
                jobs = finalists(task, body)
            case "confirm":
                jobs = confirm(task, body, options.seeds)
            case _:
                continue
        launch(jobs, options.runs, RESULTS / options.part, options.jobs)
    README.write_text(with_table(README.read_text(), report()))
    readme_table.write()


if __name__ == "__main__":
    main()
