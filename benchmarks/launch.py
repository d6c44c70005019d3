"""Launches training runs, several at a time, and records the result of each."""

import json
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from benchmarks.records import is_finished, write_record
from thalnet_mtl.cli.parser import split_flags
from thalnet_mtl.config.load import dump_config, load_configs
from thalnet_mtl.errors import UserError
from thalnet_mtl.files import write_text
from thalnet_mtl.signals import stop_signals
from thalnet_mtl.sweep.workers import LOG, LocalWorkers

STOP_SIGNALS = signal.SIGINT, signal.SIGTERM, signal.SIGHUP

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
    workers, waiting = LocalWorkers(count), list(jobs)
    signals = [s for s in STOP_SIGNALS if signal.getsignal(s) is not signal.SIG_IGN]
    with stop_signals(announce_stop, signals, abort=False) as stop:
        passed_on = 0
        try:
            while workers.going or (waiting and not stop.requested()):
                while waiting and workers.going < count and not stop.requested():
                    name = waiting.pop(0)
                    try:
                        write_config(runs / name, jobs[name])
                    except UserError as error:
                        write_record(name, jobs[name], runs / name, results, str(error))
                    else:
                        workers.submit(name, (runs / name).resolve())
                if passed_on < stop.count:
                    passed_on = stop.count
                    workers.stop()
                for process in workers.ended():
                    folder = runs / process.name
                    if process.status == 0 or not stop.requested():
                        command, error = jobs[process.name], last_line(folder)
                        write_record(process.name, command, folder, results, error)
        finally:
            workers.close()
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


def write_config(folder: Path, command: Sequence[str]) -> None:
    """Write the configuration of a run where its process reads it."""
    config = load_configs(*split_flags(command))[""]
    if not (folder / "config.yaml").exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "config.yaml", dump_config(config))


def last_line(folder: Path) -> str:
    """Return the last line that the process of a run wrote."""
    log = folder / LOG
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
