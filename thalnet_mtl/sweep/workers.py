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
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from thalnet_mtl.errors import UserError
from thalnet_mtl.files import make_folder
from thalnet_mtl.signals import StopRequest
from thalnet_mtl.sweep.devices import VISIBLE, Slots, check_numbers, make_slots
from thalnet_mtl.sweep.forking import ForkedProcess, ForkServer
from thalnet_mtl.sweep.jobs import (
    POLL_SECONDS,
    ProcessResult,
    TrainingJob,
    start_training_process,
    thread_environment,
)
from thalnet_mtl.sweep.ray_tasks import RayTasks


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

    Args:
        jobs: Number of processes at a time; by default one for each core, or those of ``per_gpu``.
        per_gpu: Processes at a time on each GPU, 1 by default.
        find_gpus: Returns the GPUs that the runs share, as ``CUDA_VISIBLE_DEVICES`` names them;
            each run sees a single one. By default the runs use none, or choose for themselves.
    """

    def __init__(
        self,
        jobs: int | None = None,
        per_gpu: int | None = None,
        find_gpus: Callable[[], tuple[str, ...]] = tuple,
    ):
        self._jobs, self._per_gpu, self._find_gpus = jobs, per_gpu, find_gpus
        self._processes: dict[str, tuple[ForkedProcess | StartedProcess, float]] = {}
        self._gpus: dict[str, str] = {}  # of the jobs that have not ended
        self._server: ForkServer | None = None

    @cached_property
    def slots(self) -> Slots:
        """Places of the runs. The GPUs are found only then: that imports PyTorch."""
        return make_slots(self._jobs, self._per_gpu, self._find_gpus(), os.cpu_count() or 1)

    @property
    def count(self) -> int:
        """Number of jobs that run at a time."""
        return self.slots.count

    @property
    def running(self) -> int:
        """Number of jobs that have been submitted and have not ended."""
        return len(self._processes)

    def submit(self, job: TrainingJob) -> None:
        """Start a job, on the GPU with the fewest jobs."""
        variables = {}
        if self.slots.gpus:
            self._gpus[job.name] = self.slots.free_gpu(self._gpus.values())
            variables[VISIBLE] = self._gpus[job.name]
        self._processes[job.name] = self._start(job, variables), time.monotonic()

    def _start(
        self, job: TrainingJob, variables: Mapping[str, str]
    ) -> ForkedProcess | StartedProcess:
        if sys.platform != "linux" or job.command[:2] != [sys.executable, "-m"]:
            return StartedProcess(start_training_process(job, self.count, variables))
        if self._server is None or self._server.lost:
            self._server = ForkServer(thread_environment(self.count))
        make_folder(job.log_path.parent)
        return self._server.start(job.name, job.command, job.log_path, variables)

    def poll(self) -> list[ProcessResult]:
        """Wait a moment, then return the jobs that have ended since the last call."""
        time.sleep(POLL_SECONDS)
        results = []
        for name, (process, start) in list(self._processes.items()):
            if (status := process.poll()) is not None:
                seconds = time.monotonic() - start
                results.append(ProcessResult(name, status, seconds, process.lost))
                del self._processes[name]
                self._gpus.pop(name, None)
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


def make_workers(
    on: str | None,
    jobs: int | None,
    per_gpu: int | None,
    find_gpus: Callable[[], tuple[str, ...]] | None,
) -> LocalWorkers | RayTasks:
    """Return the workers that the options of a command name.

    Args:
        on: 'ray' or None, this machine.
        jobs, per_gpu, find_gpus: See ``LocalWorkers``; None for ``find_gpus`` if no run uses a GPU.

    Raises:
        UserError: An option is wrong, or asks for what the machine or the cluster does not have.
    """
    check_numbers(jobs, per_gpu)
    if per_gpu is not None and find_gpus is None:
        raise UserError("--per-gpu has no effect: train.device is cpu.")
    if on == "ray":
        return RayTasks(jobs, per_gpu, on_gpus=find_gpus is not None)
    workers = LocalWorkers(jobs, per_gpu, find_gpus or tuple)
    if per_gpu is not None:
        workers.slots  # noqa: B018  (raises where there is no GPU, before anything is written)
    return workers
