"""Launches training runs, several at a time, and records the result of each."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import torch

from benchmarks.records import is_finished, write_record
from thalnet_mtl.signals import stop_signals
from thalnet_mtl.sweep.jobs import TrainingJob
from thalnet_mtl.sweep.workers import LocalWorkers, run_jobs

Jobs = Mapping[str, Sequence[str]]  # arguments of ``thalnet train`` by the name of their run


def launch(jobs: Jobs, runs: Path, results: Path, count: int) -> None:
    """Train ``count`` runs at a time and write their records to ``results``.

    A finished run is not repeated; an interrupted one resumes. On a GPU, ``count`` processes share
    the runs, each of them ``gpu_streams.WIDTH`` at a time.

    Raises:
        SystemExit: on Ctrl+C, SIGTERM or SIGHUP, after the runs in progress were saved.
    """
    pending = {name: job for name, job in jobs.items() if not is_finished(results / f"{name}.json")}
    if torch.cuda.is_available():
        launch_on_gpu(pending, runs, results, count)
    elif pending:
        launch_on_cpu(pending, runs, results, count)


def launch_on_cpu(jobs: Jobs, runs: Path, results: Path, count: int) -> None:
    """Train every run in a process of its own."""
    commands = {
        name: TrainingJob(name, runs / name, arguments, log=runs / f"{name}.log")
        for name, arguments in jobs.items()
    }
    with (
        closing(LocalWorkers(count)) as workers,
        stop_signals(announce_stop, abort=False) as stop,
    ):
        for process in run_jobs(commands.values(), workers, stop):
            if process.status == 0 or not stop.requested():
                job = commands[process.name]
                write_record(job.name, job.arguments, job.folder, results, last_line(job.log_path))
        if stop.requested():
            raise SystemExit("stopped; the same command resumes")


def announce_stop(count: int) -> None:
    """Tell the user what a stop signal does."""
    hint = "" if count > 1 else "; press Ctrl+C again to stop them at once"
    print(f"stopping: the runs in progress are saved{hint}", flush=True)


def launch_on_gpu(jobs: Jobs, runs: Path, results: Path, count: int) -> None:
    """Train the runs in ``count`` processes, each of which trains several on CUDA streams."""
    command = [sys.executable, "-m", "benchmarks.gpu_streams", str(runs), str(results)]
    shares = [dict([*jobs.items()][k::count]) for k in range(count)]
    with ThreadPoolExecutor(count) as pool:
        processes = [
            pool.submit(subprocess.run, command, input=json.dumps(share), text=True)
            for share in shares
            if share
        ]
    for process in processes:
        process.result()


def last_line(log: Path) -> str:
    """Return the last line of a log."""
    lines = log.read_text().strip().splitlines() if log.exists() else []
    return lines[-1] if lines else ""


def config_path(path: Path) -> str:
    """Return a config file as a command names it: relative to the working directory."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def arguments(flags: Mapping[str, object]) -> list[str]:
    """Return flags as words of a command.

    >>> arguments({"train.seed": 3})
    ['--train.seed', '3']
    """
    return [word for key, value in flags.items() for word in (f"--{key}", str(value))]
