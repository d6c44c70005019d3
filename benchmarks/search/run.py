"""Trains streams with known right decisions with every arm of the search benchmark.

    python -m benchmarks.search.run --seeds 11 12 13 14 15 16 17 18 --jobs 2
    python -m benchmarks.search.run --seeds 11 12 --streams s_minus s_in --arms search random
    python -m benchmarks.search.run                       # only the tables, from the records

A finished run is not repeated, an interrupted one resumes: stop with Ctrl+C, and give the same
command again. A record holds the fingerprint of its configuration, so that a run is repeated when
``configs/search/recipe.yaml``, its stream or its arm has changed. (After a change of the code of
the search, remove the folders of ``results/``.) The arms that matter most are trained first, on all
streams and seeds: see ``FIRST`` in ``experiments.py``. Each of the ``--jobs`` processes trains runs
on one thread and prints a line for each: ``tail -f runs/search/worker*.log``.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import readme_table
from benchmarks.launch import announce_stop, last_line
from benchmarks.markdown import with_table
from benchmarks.records import is_finished
from benchmarks.search.experiments import ARMS, FOLDER, RESULTS, STREAMS, fingerprint, jobs
from benchmarks.search.report import report
from thalnet_mtl.signals import stop_signals
from thalnet_mtl.sweep.jobs import TrainingJob
from thalnet_mtl.sweep.workers import LocalWorkers, run_jobs

README = FOLDER / "README.md"


@dataclass(frozen=True)
class Worker(TrainingJob):
    """A process that trains several runs.

    Args:
        words: its command line.
    """

    words: Sequence[str] = field(default=())

    @property
    def command(self) -> list[str]:
        """Command line of the process."""
        return [sys.executable, "-m", "benchmarks.search.worker", *self.words]


def pending(commands: Mapping[str, list[str]], results: Path) -> dict[str, list[str]]:
    """Return the runs without a result of their present configuration."""
    return {
        name: words
        for name, words in commands.items()
        if not is_finished(path := results / f"{name}.json")
        or json.loads(path.read_text())["fingerprint"] != fingerprint(words)
    }


def launch(commands: Mapping[str, list[str]], runs: Path, results: Path, count: int) -> None:
    """Train what is pending in ``count`` processes.

    Raises:
        SystemExit: after a stop signal, when the runs in progress were saved; or with the last
            line of a process that failed.
    """
    missing, workers = [*pending(commands, results).items()], []
    print(f"{len(missing)} of {len(commands)} runs are to be trained", flush=True)
    runs.mkdir(exist_ok=True, parents=True)
    for k in range(min(count, len(missing))):
        share = runs / f"jobs{k}.json"
        share.write_text(json.dumps(dict(missing[k::count])))
        words = [str(share), str(runs), str(results)]
        workers.append(Worker(f"worker{k}", runs, log=runs / f"worker{k}.log", words=words))
    failed = []
    with closing(LocalWorkers(count)) as processes, stop_signals(announce_stop, False) as stop:
        for process in run_jobs(workers, processes, stop):
            failed += [process.name] if process.status else []
        if stop.requested():
            raise SystemExit("stopped; the same command resumes")
    if failed:
        log = runs / f"{failed[0]}.log"
        raise SystemExit(f"{failed[0]} ended early: {last_line(log)} (see {log})")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="*", default=[], help="none: tables only")
    parser.add_argument("--streams", nargs="+", default=[*STREAMS], help="default: all")
    parser.add_argument("--arms", nargs="+", default=[*ARMS], choices=ARMS, help="default: all")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time")
    parser.add_argument("--runs", type=Path, default=Path("runs/search"), help="run directories")
    options = parser.parse_args()
    if options.seeds:
        commands = jobs(options.streams, options.arms, options.seeds)
        launch(commands, options.runs, RESULTS, options.jobs)
    README.write_text(with_table(README.read_text(), report()))
    readme_table.write()


if __name__ == "__main__":
    main()
