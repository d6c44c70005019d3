"""Measures whether a task is learned faster with a center that another task has trained.

    python -m benchmarks.attach.run --seeds 0 1 2 3 4 5 --jobs 2

A first task trains a ThalNet, which is then frozen. Two other tasks follow, each with a module of
its own that reads the frozen center. In one arm that center was trained, in the second it is
untrained, with as many new parameters that read the same slots. In the third the new module reads
only itself. The measure is the number of steps to nine tenths of the validation score of a
single-task network; a task that never reaches it counts as all of its steps.

A finished run is not repeated, an interrupted one resumes. The tables of the README are made from
the records in ``results/`` alone (without seeds, nothing else is done).
"""

import argparse
from pathlib import Path

from benchmarks.attach.experiments import FOLDER, RESULTS, jobs
from benchmarks.attach.report import report
from benchmarks.launch import launch
from benchmarks.markdown import with_table

README = FOLDER / "README.md"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="*", default=[], help="none: tables only")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--runs", type=Path, default=Path("runs/attach"), help="run directories")
    options = parser.parse_args()
    launch(jobs(options.seeds), options.runs, RESULTS, options.jobs)
    README.write_text(with_table(README.read_text(), report()))


if __name__ == "__main__":
    main()
