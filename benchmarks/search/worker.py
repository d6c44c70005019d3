"""Trains several runs one after another in a process, which spares the start of all but one.

    python -m benchmarks.search.worker JOBS RUNS RESULTS

JOBS is a file that holds the arguments of ``benchmarks.search.train`` by the name of their run, as
JSON. When a run has its record in RESULTS, its directory is removed, but for those of seed 0.
"""

import json
import shutil
import sys
from pathlib import Path

from rich.console import Console as RichConsole

from benchmarks.search import choosers  # noqa: F401  (registers them)
from benchmarks.search.experiments import fingerprint, load
from benchmarks.search.scoring import write_compact_record
from thalnet_mtl.console import Console
from thalnet_mtl.errors import Interrupted, RunError, UserError
from thalnet_mtl.signals import end_with_parent
from thalnet_mtl.training.trainer import train


def main() -> None:
    jobs_file, runs, results = map(Path, sys.argv[1:])
    end_with_parent()
    for name, words in json.loads(jobs_file.read_text()).items():
        try:
            print(name, train_and_record(name, words, runs, results), flush=True)
        except Interrupted as stop:
            raise SystemExit(f"{name}: {stop}") from None


def train_and_record(name: str, words: list[str], runs: Path, results: Path) -> str:
    """Train a run to its end and write its record. Returns how it ended.

    Raises:
        Interrupted: a signal stopped the run; the same call resumes it.
    """
    number, error = fingerprint(words), ""
    folder = runs / f"{name}-{number}"  # of this configuration alone
    try:
        train(load(words), folder, Console(RichConsole(quiet=True)))
    except Interrupted:
        raise
    except (RunError, UserError) as failure:
        error = str(failure)
    command = ["python -m benchmarks.search.train", *words]
    write_compact_record(command, folder, results / f"{name}.json", number, error)
    if not error and not name.endswith("-seed0"):
        shutil.rmtree(folder)
    return error or "done"


if __name__ == "__main__":
    main()
