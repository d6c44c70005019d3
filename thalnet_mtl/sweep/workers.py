"""Runs in processes of their own: on this machine, or as tasks of a Ray cluster.

Every process is ``thalnet train`` of the configuration that lies in its run directory. On a
cluster, that directory must be on a file system that all nodes share.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from thalnet_mtl.errors import UserError

LOG = "log.txt"  # what a process says, in its run directory
PAUSE = 0.1  # seconds between looks at who has ended


@dataclass(frozen=True)
class ProcessResult:
    """The end of a process: its exit status, or what became of it instead."""

    name: str
    status: int | None
    seconds: float
    lost: str = ""


def thread_environment(count: int) -> dict[str, str]:
    """The environment of one process of ``count`` at a time: its threads wait for no other's.

    Two that each take all cores of a machine go several times slower than one after the other.
    """
    return {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // count))} | os.environ


def start_training_process(folder: Path, count: int = 1) -> subprocess.Popen[bytes]:
    """Start ``thalnet train`` on a run directory that holds its ``config.yaml``.

    In a session of its own: Ctrl+C in the terminal reaches only who started it, which passes on
    one signal, so that the run is saved. (A second one ends a run at once.)
    """
    command = [sys.executable, "-m", "thalnet_mtl.cli", "train", str(folder / "config.yaml")]
    with (folder / LOG).open("ab") as log:
        return subprocess.Popen(
            [*command, "--out", str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env=thread_environment(count),
        )


class LocalWorkers:
    """On this machine."""

    def __init__(self, count: int):
        self.count = count  # of runs at a time
        self._going: dict[str, tuple[subprocess.Popen[bytes], float]] = {}

    @property
    def going(self) -> int:
        return len(self._going)

    def submit(self, name: str, folder: Path) -> None:
        self._going[name] = start_training_process(folder, self.count), time.monotonic()

    def ended(self) -> list[ProcessResult]:
        """Those that have ended since the last call, after a short wait."""
        time.sleep(PAUSE)
        ends = []
        for name, (process, begin) in list(self._going.items()):
            if (status := process.poll()) is not None:
                ends.append(ProcessResult(name, status, time.monotonic() - begin))
                del self._going[name]
        return ends

    def stop(self) -> None:
        """Ask all to save and end; asked again, they end at once."""
        for process, _ in self._going.values():
            process.terminate()

    def close(self) -> None:
        """Leave nothing behind that goes on, whatever happened."""
        self.stop()
        while self._going:
            self.ended()


class RayTasks:
    """On the Ray cluster that ``RAY_ADDRESS`` names, or one that is made here, on loopback.

    A run takes one CPU of the cluster and the one thread that Ray gives it, and no GPU.

    Raises:
        UserError: Ray is not installed, or no cluster answers.
    """

    def __init__(self, count: int | None):
        if find_spec("ray") is None:
            raise UserError("--on ray needs Ray: pip install 'thalnet-mtl[sweep]'.")
        address = os.environ.get("RAY_ADDRESS")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        if not address:  # as on macOS and Windows: nothing listens to other machines
            os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        import ray

        self._ray, self._going = ray, dict[Any, str]()
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        if address:
            try:
                _call(address)
                ray.init(address=address, **quiet)
            except OSError as error:
                raise UserError(f"no Ray cluster at RAY_ADDRESS {address}: {error}") from error
        else:
            ray.init(address="local", num_cpus=count, include_dashboard=False, **quiet)
        self.count = count or max(1, int(ray.cluster_resources().get("CPU", 1)))
        self._train = ray.remote(num_cpus=1, max_retries=0)(train_remotely)

    @property
    def going(self) -> int:
        return len(self._going)

    def submit(self, name: str, folder: Path) -> None:
        self._going[self._train.remote(str(folder))] = name

    def ended(self) -> list[ProcessResult]:
        """Those that have ended since the last call, after a short wait."""
        found, _ = self._ray.wait(list(self._going), num_returns=self.going, timeout=PAUSE)
        return [self._end(self._going.pop(task), task) for task in found]

    def _end(self, name: str, task: Any) -> ProcessResult:
        try:
            return ProcessResult(name, *self._ray.get(task))
        except self._ray.exceptions.RayError as error:  # the worker or its node is gone
            return ProcessResult(
                name, None, 0.0, f"{type(error).__name__}: {str(error).splitlines()[-1]}"
            )

    def stop(self) -> None:
        """Ask all to save and end; asked again, they end at once."""
        for task in self._going:
            self._ray.cancel(task)

    def close(self) -> None:
        """Leave nothing behind that goes on; a cluster that was made here ends."""
        self.stop()
        while self._going:
            self.ended()
        self._ray.shutdown()


def _call(address: str) -> None:
    """Raise if nobody answers at host:port: Ray itself would ask for many minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


def train_remotely(folder: str) -> tuple[int, float]:
    """What a Ray worker does: start a run, wait, return its exit status and seconds.

    Ray cancels a task by a KeyboardInterrupt, which comes through between two waits: also where
    SIGINT was ignored, as in what a shell runs in the background.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    begin, process = time.monotonic(), start_training_process(Path(folder))
    while True:
        try:
            return process.wait(timeout=1), time.monotonic() - begin
        except subprocess.TimeoutExpired:
            continue
        except KeyboardInterrupt:
            process.terminate()


def make_workers(on: str | None, jobs: int | None) -> LocalWorkers | RayTasks:
    """So many at a time; by default as many as there are cores."""
    if jobs is not None and jobs < 1:
        raise UserError(f"--jobs must be at least 1, got {jobs}.")
    return RayTasks(jobs) if on == "ray" else LocalWorkers(jobs or os.cpu_count() or 1)
