"""Trains three tasks of different shapes in sequence, in all six orders, with six methods.

    python -m benchmarks.sequence.run --tune --seeds 0 1 2 3 4 5 6 7 --jobs 2

Seed s takes the tasks in order s mod 6. Every run is one ``thalnet train``; a finished one is not
repeated, an interrupted one resumes. The tables of the README are made from the records in
``results/`` alone (without arguments, nothing else is done).
"""

import argparse
from pathlib import Path

from benchmarks.launch import launch
from benchmarks.markdown import with_table
from benchmarks.sequence.experiments import FOLDER, RESULTS, jobs, trial_jobs
from benchmarks.sequence.report import report

README = FOLDER / "README.md"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tune", action="store_true", help="run the trials first")
    parser.add_argument("--seeds", type=int, nargs="*", default=[], help="none: tables only")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time")
    parser.add_argument("--runs", type=Path, default=Path("runs/sequence"), help="run directories")
    options = parser.parse_args()
    if options.tune:
        for _ in range(2):  # learning rates first, then the strengths at the best learning rate
            launch(trial_jobs(), options.runs, RESULTS, options.jobs)
    if options.seeds:
        launch(jobs(options.seeds), options.runs, RESULTS, options.jobs)
    README.write_text(with_table(README.read_text(), report()))


if __name__ == "__main__":
    main()
