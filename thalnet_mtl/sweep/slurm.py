"""Runs of a sweep as a SLURM job array: the script, what is submitted, and what became of it.

An element of the array trains a run by ``thalnet train``, in the run directory of the sweep, and
needs no other element. So the results on the disk say which runs are done, and ``squeue`` says
which are still waiting or running; only the rest is submitted.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from thalnet_mtl.errors import RunError, UserError
from thalnet_mtl.files import read_fields, write_text
from thalnet_mtl.runs.names import safe_name
from thalnet_mtl.sweep.jobs import LOG, TrainingJob

SCRIPT = "slurm.sh"
RECORD = "slurm.json"  # the runs of each array that was submitted, by its job name
DEFAULT_SIZE = 1001  # SLURM's default for MaxArraySize: indices are below it
SET_HERE = ("-a", "--array", "-J", "--job-name", "--wrap", "--test-only")  # not in --sbatch
TEXT = """#!/bin/bash
# Trains runs of a sweep, one in each element of a job array. Written by thalnet sweep:
{commands}
#SBATCH --output={output}
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@60
{options}
train() {{  # NAME [FLAG ...]; takes the place of this script, so that a signal makes the run save
    exec {python} -m thalnet_mtl.cli train {out}/"$1"/config.yaml "${{@:2}}" \\
        --out {out}/"$1" >> {out}/"$1"/{log} 2>&1
}}
cd {folder} || exit
case $((SLURM_ARRAY_TASK_ID + ${{1:-0}})) in
{cases}
esac
"""


@dataclass(frozen=True)
class Array:
    """A job array: the runs that its elements train, in the order of their indices."""

    name: str  # of the job
    first: int  # number of its first run in the script
    runs: Sequence[str]

    def command(self, script: Path, at_a_time: int | None) -> list[str]:
        """Return the command that submits it, with at most so many elements at a time."""
        limit = f"%{at_a_time}" if at_a_time else ""
        return [
            "sbatch", f"--job-name={self.name}", f"--array=0-{len(self.runs) - 1}{limit}",
            str(script), str(self.first),
        ]  # fmt: skip


class SlurmArrays:
    """The job arrays of a folder of runs.

    Args:
        out: The folder.
        options: Options of ``sbatch``, such as '--partition=gpu --time=4:00:00'.
        at_a_time: Highest number of elements that train at the same time; None for no limit.

    Raises:
        UserError: ``options`` holds what is set here, or is no line of options.
    """

    def __init__(self, out: Path, options: str = "", at_a_time: int | None = None):
        check_sbatch(options)
        self.out, self.options, self.at_a_time = out.resolve(), options, at_a_time
        path = self.out / RECORD
        fields = read_fields(path) if path.exists() else {}
        if not all(isinstance(runs, list) for runs in fields.values()):
            raise UserError(f"{path} is damaged: it should hold a list of runs for each job.")
        self.submitted: dict[str, list[str]] = fields

    @property
    def names(self) -> set[str]:
        """Names of all runs that were ever submitted."""
        return {name for runs in self.submitted.values() for name in runs}

    def queued(self) -> set[str]:
        """Return the names of the runs that wait for a node or are being trained.

        Raises:
            RunError: SLURM does not answer; then nothing must be submitted again.
        """
        if not self.submitted:
            return set()
        command = ["squeue", "--me", "--noheader", "--array", "--format=%K %j"]
        elements = re.findall(r"^\s*(\d+) (.*?)\s*$", _answer(command), re.MULTILINE)
        return {
            self.submitted[job][int(index)]
            for index, job in elements
            if job in self.submitted and int(index) < len(self.submitted[job])
        }

    def write_script(self, jobs: Sequence[TrainingJob]) -> list[Array]:
        """Write the script for some runs, and return the arrays by which it is submitted.

        They are recorded at once: of a sweep that is killed next, no run is submitted twice.
        """
        size, past = max_array_size(), len(self.submitted)
        path = zlib.crc32(str(self.out).encode())  # of sweeps with the same name in other folders
        stem = safe_name(f"{self.out.name}-{path:08x}")
        arrays = [
            Array(f"{stem}-{past + k}", first, [job.name for job in jobs[first : first + size]])
            for k, first in enumerate(range(0, len(jobs), size))
        ]
        cases = [
            f"{number}) train {shlex.join([job.name, *list(job.arguments)[1:]])} ;;"
            for number, job in enumerate(jobs)
        ]
        script = self.out / SCRIPT
        quoted = {
            "output": shlex.quote(str(self.out / "slurm.log").replace("%", "%%")),
            "python": shlex.quote(sys.executable),
            "out": shlex.quote(str(self.out)),
            "folder": shlex.quote(os.getcwd()),
        }
        commands = [f"#   {shlex.join(a.command(script, self.at_a_time))}" for a in arrays]
        options = f"#SBATCH {self.options}\n" if self.options.strip() else ""
        text = TEXT.format(
            commands="\n".join(commands), options=options, cases="\n".join(cases), log=LOG, **quoted
        )
        write_text(script, text)
        self.submitted |= {array.name: list(array.runs) for array in arrays}
        write_text(self.out / RECORD, json.dumps(self.submitted, indent=1) + "\n")
        return arrays

    def submit(self, array: Array) -> str:
        """Submit an array; return what ``sbatch`` says.

        Raises:
            RunError: SLURM refuses it.
        """
        return _answer(array.command(self.out / SCRIPT, self.at_a_time)).strip()


def check_sbatch(options: str) -> None:
    """Raise ``UserError`` unless a text is a line of options that a script may have."""
    try:
        words = shlex.split(options)
    except ValueError as error:
        raise UserError(f"--sbatch '{options}': {str(error).lower()}.") from None
    if "\n" in options or (words and not words[0].startswith("-")):
        raise UserError(f"--sbatch '{options}': expected options, as in '--time=4:00:00'.")
    for word in words:
        name = word.partition("=")[0]
        if name in SET_HERE or re.match(r"-[aJ]", word):
            hint = " (--jobs N limits its elements at a time)" if name[-1:] in "ay" else ""
            raise UserError(f"--sbatch {name}: the sweep itself sets it{hint}.")


def max_array_size() -> int:
    """Return the highest number of elements of an array; SLURM's default if it is not known."""
    if not shutil.which("scontrol"):
        return DEFAULT_SIZE
    match = re.search(r"MaxArraySize\s*=\s*(\d+)", _answer(["scontrol", "show", "config"]))
    size = int(match[1]) if match else DEFAULT_SIZE
    if size < 1:
        raise RunError(f"SLURM has no job arrays here: its MaxArraySize is {size}")
    return size


def has_sbatch() -> bool:
    """Return whether jobs can be submitted on this machine."""
    return shutil.which("sbatch") is not None


def _answer(command: Sequence[str]) -> str:
    """Return the output of a command of SLURM."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    except FileNotFoundError:
        raise RunError(f"there is no {command[0]} on this machine") from None
    if done.returncode:
        lines = " ".join((done.stderr or done.stdout).split())
        raise RunError(lines or f"{command[0]} failed with exit status {done.returncode}")
    return done.stdout


def last_line(log: Path) -> str:
    """Return the error in the last line of the log of a run, or where the run was killed."""
    text = log.read_text(encoding="utf-8", errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        return "ended without output"
    error = lines[-1].removeprefix("thalnet: ")
    return error if error != lines[-1] else f"ended early, after: {error}"
