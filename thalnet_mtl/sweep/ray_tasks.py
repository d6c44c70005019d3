"""Training runs on a Ray cluster."""

import os
import signal
import socket
import subprocess
import time
from importlib.util import find_spec
from typing import Any

from thalnet_mtl.errors import UserError
from thalnet_mtl.sweep.devices import Slots, make_slots
from thalnet_mtl.sweep.jobs import (
    POLL_SECONDS,
    ProcessResult,
    TrainingJob,
    start_training_process,
)


class RayTasks:
    """Tasks on the Ray cluster that ``RAY_ADDRESS`` names, or on a new local one (on loopback).

    A run takes one CPU of the cluster, the one thread that Ray gives it, and, where the cluster has
    GPUs and the runs use them, a share of one.

    Args:
        jobs: Number of runs at a time; by default as many as the cluster has places.
        per_gpu: Runs at a time on each GPU, 1 by default.
        on_gpus: Whether the runs use GPUs.

    Raises:
        UserError: Ray is not installed, no cluster answers, or it has no GPU for ``per_gpu``.
    """

    def __init__(self, jobs: int | None, per_gpu: int | None = None, on_gpus: bool = False):
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
            ray.init(address="local", num_cpus=jobs, include_dashboard=False, **quiet)
        resources = ray.cluster_resources()
        gpus = tuple(map(str, range(int(resources.get("GPU", 0))))) if on_gpus else ()
        cores = max(1, int(resources.get("CPU", 1)))
        try:
            self.slots = make_slots(jobs, per_gpu, gpus, cores)
        except UserError:
            ray.shutdown()
            raise
        if jobs is None:
            self.slots = Slots(min(self.slots.count, cores), gpus)
        share = gpu_share(per_gpu or self.slots.per_gpu) if gpus else 0
        self._train = ray.remote(num_cpus=1, num_gpus=share, max_retries=0)(train_remotely)

    @property
    def count(self) -> int:
        """Number of jobs that run at a time."""
        return self.slots.count

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


def gpu_share(per_gpu: int) -> float:
    """Return the share of a GPU for one of ``per_gpu`` runs, in Ray's units of 1/10000.

    It is rounded down: Ray rounds 1/6 up to 0.1667, and 6 such shares are more than a GPU.

    >>> gpu_share(6)
    0.1666
    """
    return 10_000 // per_gpu / 10_000


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
