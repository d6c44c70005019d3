"""A training run in a process of its own."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from thalnet_mtl.files import make_folder
from thalnet_mtl.signals import END_WITH_PARENT

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


def start_training_process(
    job: TrainingJob, count: int = 1, variables: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start the process of a job, one of ``count`` at a time.

    It has a session of its own, so that Ctrl+C in the terminal reaches only the parent, which
    passes on one signal for the run to be saved. (A second one aborts a run.) When the parent has
    ended without that, killed or out of memory, the run is saved and ends as well. Its environment
    is that of this process, with ``variables``.
    """
    make_folder(job.log_path.parent)
    with job.log_path.open("ab") as log:
        return subprocess.Popen(
            job.command,
            stdin=subprocess.PIPE,  # is closed when this process ends
            stdout=log,
            stderr=log,
            start_new_session=True,
            env=thread_environment(count) | {END_WITH_PARENT: "1"} | dict(variables or {}),
        )
