"""Training runs in processes of their own, several at a time, here or on a Ray cluster.

The one launcher of sweeps and benchmarks: every process runs a ``thalnet train`` command. On a
cluster, run directories must be on a file system that all nodes share::

    jobs = [TrainingJob(f"seed{n}", Path(f"runs/seed{n}"), ["digits", f"--train.seed={n}"])
            for n in range(4)]
    with closing(LocalWorkers(2)) as workers:
        for result in run_jobs(jobs, workers):
            print(result.name, result.status, result.seconds)
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from thalnet_mtl.errors import UserError
from thalnet_mtl.files import make_folder
from thalnet_mtl.signals import END_WITH_PARENT, StopRequest
from thalnet_mtl.sweep.forking import ForkedProcess, ForkServer

LOG = "log.txt"  # output of a process, in its run directory
POLL_SECONDS = 0.1  # between two checks of which processes have ended


@dataclass(frozen=True)
class TrainingJob:
    """A ``thalnet train`` command.

    Args:
        name: Name of the job in its ``ProcessResult``.
        folder: Run directory, the ``--out`` of the command.
        arguments: Configurations and flags; by default the ``config.yaml`` of the run directory.
        log: File to which the output is appended; by default ``log.txt`` in the run directory.
    """

    name: str
    folder: Path
    arguments: Sequence[str] = ()
    log: Path | None = None

    @property
    def log_path(self) -> Path:
        """Path of the file that gets the output."""
        return self.log or self.folder / LOG

    @property
    def command(self) -> list[str]:
        """Command line of the process."""
        arguments = self.arguments or [str(self.folder / "config.yaml")]
        train = [sys.executable, "-m", "thalnet_mtl.cli", "train"]
        return [*train, *arguments, "--out", str(self.folder)]


@dataclass(frozen=True)
class ProcessResult:
    """The end of a job."""

    name: str
    status: int | None  # exit status, −signal if it was killed, None if it was lost
    seconds: float
    lost: str = ""  # why there is no exit status: a Ray worker or its node is gone


def thread_environment(count: int) -> dict[str, str]:
    """Return the environment of one of ``count`` concurrent processes.

    It limits OpenMP threads so that the processes do not oversubscribe the cores: two processes
    that each use all cores are several times slower than one after the other.
    """
    return {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // count))} | os.environ


def start_training_process(job: TrainingJob, count: int = 1) -> subprocess.Popen[bytes]:
    """Start the process of a job, one of ``count`` at a time.

    It has a session of its own, so that Ctrl+C in the terminal reaches only the parent, which
    passes on one signal for the run to be saved. (A second one aborts a run.) When the parent has
    ended without that, killed or out of memory, the run is saved and ends as well.
    """
    make_folder(job.log_path.parent)
    with job.log_path.open("ab") as log:
        return subprocess.Popen(
            job.command,
            stdin=subprocess.PIPE,  # is closed when this process ends
            stdout=log,
            stderr=log,
            start_new_session=True,
            env=thread_environment(count) | {END_WITH_PARENT: "1"},
        )


@dataclass
class StartedProcess:
    """A process that was started with a pipe as its standard input."""

    process: subprocess.Popen[bytes]
    lost: str = ""  # it cannot be lost

    def poll(self) -> int | None:
        """Return the exit status, or −signal; None while it is running."""
        status = self.process.poll()
        if status is not None:
            self.process.communicate()  # closes its pipe
        return status

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.process.terminate()


class LocalWorkers:
    """Processes on this machine, at most ``count`` at a time.

    On Linux they are forked from one that has imported PyTorch, which spares each of them two
    seconds. Each run is a process of its own all the same.
    """

    def __init__(self, count: int):
        self.count = count
        self._processes: dict[str, tuple[ForkedProcess | StartedProcess, float]] = {}
        self._server: ForkServer | None = None

    @property
    def running(self) -> int:
        """Number of jobs that have been submitted and have not ended."""
        return len(self._processes)

    def submit(self, job: TrainingJob) -> None:
        """Start a job."""
        self._processes[job.name] = self._start(job), time.monotonic()

    def _start(self, job: TrainingJob) -> ForkedProcess | StartedProcess:
        if sys.platform != "linux" or job.command[:2] != [sys.executable, "-m"]:
            return StartedProcess(start_training_process(job, self.count))
        if self._server is None or self._server.lost:
            self._server = ForkServer(thread_environment(self.count))
        make_folder(job.log_path.parent)
        return self._server.start(job.name, job.command, job.log_path)

    def poll(self) -> list[ProcessResult]:
        """Wait a moment, then return the jobs that have ended since the last call."""
        time.sleep(POLL_SECONDS)
        results = []
        for name, (process, start) in list(self._processes.items()):
            if (status := process.poll()) is not None:
                seconds = time.monotonic() - start
                results.append(ProcessResult(name, status, seconds, process.lost))
                del self._processes[name]
        return results

    def stop(self) -> None:
        """Ask all runs to save and end; a second call aborts them."""
        for process, _ in self._processes.values():
            process.terminate()

    def close(self) -> None:
        """Stop all runs and wait for their ends."""
        self.stop()
        while self._processes:
            self.poll()
        if self._server is not None:
            self._server.close()
            self._server = None


class RayTasks:
    """Tasks on the Ray cluster that ``RAY_ADDRESS`` names, or on a new local one (on loopback).

    A run takes one CPU of the cluster, the one thread that Ray gives it, and no GPU.

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

        self._ray, self._names = ray, dict[Any, str]()
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        if address:
            try:
                _check_reachable(address)
                ray.init(address=address, **quiet)
            except OSError as error:
                raise UserError(f"no Ray cluster at RAY_ADDRESS {address}: {error}") from error
        else:
            ray.init(address="local", num_cpus=count, include_dashboard=False, **quiet)
        self.count = count or max(1, int(ray.cluster_resources().get("CPU", 1)))
        self._train = ray.remote(num_cpus=1, max_retries=0)(train_remotely)

    @property
    def running(self) -> int:
        """Number of jobs that have been submitted and have not ended."""
        return len(self._names)

    def submit(self, job: TrainingJob) -> None:
        """Submit a job to the cluster."""
        self._names[self._train.remote(job)] = job.name

    def poll(self) -> list[ProcessResult]:
        """Wait a moment, then return the jobs that have ended since the last call."""
        tasks, _ = self._ray.wait(list(self._names), num_returns=self.running, timeout=POLL_SECONDS)
        return [self._result(self._names.pop(task), task) for task in tasks]

    def _result(self, name: str, task: Any) -> ProcessResult:
        try:
            return ProcessResult(name, *self._ray.get(task))
        except self._ray.exceptions.RayError as error:  # the worker or its node is gone
            lost = f"{type(error).__name__}: {str(error).splitlines()[-1]}"
            return ProcessResult(name, None, 0.0, lost)

    def stop(self) -> None:
        """Ask all runs to save and end; a second call aborts them."""
        for task in self._names:
            self._ray.cancel(task)

    def close(self) -> None:
        """Stop all runs, wait for their ends, and shut down a cluster that was started here."""
        self.stop()
        while self._names:
            self.poll()
        self._ray.shutdown()


def run_jobs(
    jobs: Iterable[TrainingJob],
    workers: LocalWorkers | RayTasks,
    stop: StopRequest | None = None,
) -> Iterator[ProcessResult]:
    """Run jobs, ``workers.count`` at a time, and yield the result of each when it ends.

    A job is taken from ``jobs`` when it is started. After a stop request no job is started any
    more, and every signal is passed on to the running ones: the first saves, the second aborts.
    """
    queue, exhausted, signals_passed_on = iter(jobs), False, 0
    while True:
        stopping = stop is not None and stop.requested()
        while not exhausted and not stopping and workers.running < workers.count:
            job = next(queue, None)
            if job is None:
                exhausted = True
            else:
                workers.submit(job)
        if stop is not None and signals_passed_on < stop.count:
            signals_passed_on = stop.count
            workers.stop()
        if not workers.running:
            return
        yield from workers.poll()


def _check_reachable(address: str) -> None:
    """Raise ``OSError`` if nothing answers at host:port: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


def train_remotely(job: TrainingJob) -> tuple[int, float]:
    """Run a job in a Ray worker; return its exit status and its seconds.

    Ray cancels a task by a KeyboardInterrupt, which is raised between two waits, even where SIGINT
    is ignored as in background jobs of a shell.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    start, process = time.monotonic(), start_training_process(job)
    while True:
        try:
            status = process.wait(timeout=1)
            process.communicate()  # closes its pipe
            return status, time.monotonic() - start
        except subprocess.TimeoutExpired:
            continue
        except KeyboardInterrupt:
            process.terminate()


def make_workers(on: str | None, jobs: int | None) -> LocalWorkers | RayTasks:
    """Return workers for ``jobs`` runs at a time; by default as many as there are cores."""
    if jobs is not None and jobs < 1:
        raise UserError(f"--jobs must be at least 1, got {jobs}.")
    return RayTasks(jobs) if on == "ray" else LocalWorkers(jobs or os.cpu_count() or 1)
