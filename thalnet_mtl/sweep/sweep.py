"""A sweep: all its runs, several at a time, and the record of their outcomes in ``sweep.json``.

The same command resumes a sweep; a longer plan over the same keys adds runs to it. The record
keeps every run that was ever planned for the folder.
"""

import json
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from thalnet_mtl.config.load import dump_config
from thalnet_mtl.config.options import resolve_options
from thalnet_mtl.config.schema import Config
from thalnet_mtl.console import Console, duration
from thalnet_mtl.errors import RunError, UserError
from thalnet_mtl.files import FolderLock, read_fields, write_text
from thalnet_mtl.json_fields import from_fields
from thalnet_mtl.metrics.metric import format_scores
from thalnet_mtl.runs.differences import check_same
from thalnet_mtl.runs.results import RunResult
from thalnet_mtl.signals import StopRequest, stop_signals
from thalnet_mtl.sweep.plan import PlannedRun, configure
from thalnet_mtl.sweep.workers import (
    LOG,
    LocalWorkers,
    ProcessResult,
    RayTasks,
    TrainingJob,
    run_jobs,
)

STATUSES = ("waiting", "done", "failed", "stopped")


@dataclass
class SweepEntry:
    """A run in ``sweep.json``; its status is one of ``STATUSES``."""

    run: str
    values: dict[str, Any]
    seed: int
    status: str = "waiting"
    exit_status: int | None = None
    error: str = ""
    seconds: float = 0.0  # of all its processes


@dataclass
class SweepRecord:
    """The content of ``sweep.json``: the keys of the grid, and every run by name."""

    keys: list[str]
    runs: dict[str, SweepEntry]


class Sweep:
    """The folder of a sweep, locked for one process.

    Args:
        out: The folder; every run gets a directory in it.
        bases: The configurations that the grid is applied to, by name.
        plan: The runs.
        check: Raises ``UserError`` if a configuration cannot be built. It is called for every
            point of the grid before the first run is trained.

    Raises:
        UserError: a run cannot be built, or the folder holds something else.
    """

    def __init__(
        self,
        out: Path,
        bases: Mapping[str, Config],
        plan: Sequence[PlannedRun],
        check: Callable[[Config], object],
    ):
        self.out, self.plan = out, plan
        for planned in {(run.run, repr(run.values)): run for run in plan}.values():
            check(planned.config)
        if (out / "config.yaml").exists():
            raise UserError(f"{out} is the directory of a run, not of a sweep. Give --out DIR.")
        self.lock = FolderLock(out)
        self.keys = list(plan[0].values)
        try:
            self.entries = self._read(bases)
            for planned in plan:
                self._update(planned)
        except UserError:
            self.close()
            raise

    def close(self) -> None:
        """Release the lock of the folder."""
        self.lock.release()

    def _update(self, planned: PlannedRun) -> None:
        """Set the status of a run to 'done' if it has a result, otherwise to 'waiting'."""
        folder = self.out / planned.name
        check_same(folder, planned.config)
        new_entry = SweepEntry(planned.run, planned.values, planned.seed)
        entry = self.entries.setdefault(planned.name, new_entry)
        if not (folder / "result.json").exists():
            entry.status, entry.exit_status, entry.error = "waiting", None, ""
        elif entry.status != "done":  # the sweep was killed before it could record the end
            entry.status, entry.exit_status, entry.error = "done", None, ""
            entry.seconds = entry.seconds or RunResult.load(folder).seconds

    def _read(self, bases: Mapping[str, Config]) -> dict[str, SweepEntry]:
        """Read ``sweep.json``, if there is one; raise if it belongs to another sweep."""
        path = self.out / "sweep.json"
        if not path.exists():
            return {}
        record = from_fields(SweepRecord, read_fields(path), str(path))
        if record.keys != self.keys:
            recorded, current = (
                ", ".join(keys) or "seeds alone" for keys in (record.keys, self.keys)
            )
            raise UserError(
                f"{self.out} holds a sweep over {recorded}, not {current}. Give --out DIR."
            )
        for name, entry in record.runs.items():
            if entry.run not in bases:
                raise UserError(f"{self.out} holds another sweep, with '{name}'. Give --out DIR.")
            if set(entry.values) != set(self.keys) or entry.status not in STATUSES:
                raise UserError(f"{path} is damaged: '{name}' is no run of this sweep.")
            try:
                config = configure(bases[entry.run], entry.values, entry.seed)
            except UserError as error:
                raise UserError(f"{path} is damaged: {name}: {error}") from error
            check_same(self.out / name, config)
        return record.runs

    def write(self) -> None:
        """Write ``sweep.json``."""
        runs = {name: asdict(entry) for name, entry in self.entries.items()}
        text = json.dumps({"keys": self.keys, "runs": runs}, indent=1, ensure_ascii=False)
        write_text(self.out / "sweep.json", text + "\n")

    @property
    def status(self) -> dict[str, str]:
        """Status of every planned run, by its name."""
        return {planned.name: self.entries[planned.name].status for planned in self.plan}

    @property
    def failures(self) -> list[str]:
        """Errors of the planned runs that failed, and the paths of their logs."""
        return [
            f"{name} failed: {self.entries[name].error}\n  full log: {self.out / name / LOG}"
            for name, status in self.status.items()
            if status == "failed"
        ]

    def run(self, workers: LocalWorkers | RayTasks) -> None:
        """Train all runs that are not done yet.

        Raises:
            RunError: on Ctrl+C, SIGTERM or SIGHUP, after the running processes have ended.
        """
        total, done_before, start = len(self.plan), self.count("done"), time.monotonic()
        console = Console()
        if done_before:
            console.print(f"{done_before} of {total} runs are done already")
        self.write()
        log_sizes: dict[str, int] = {}  # of each run when it was started
        with (
            console.progress("runs", done_before, total) as progress,
            _stop_signals(console) as stop,
        ):
            running = min(workers.count, total - done_before)
            progress.update(done_before, f"{running} running")
            for result in run_jobs(self._jobs(log_sizes), workers, stop):
                self._record(result, log_sizes[result.name], stop.requested())
                self.write()
                ended = self.count("done", "failed")
                left = total - done_before - len(log_sizes)  # runs that have not been started
                seconds = (time.monotonic() - start) / max(1, ended - done_before) * left
                estimate = f"  {duration(seconds)} left" if left and not stop.requested() else ""
                console.print(f"{ended}/{total}  {self._outcome(result.name)}{estimate}")
                failed = f", {self.count('failed')} failed" * bool(self.count("failed"))
                progress.update(ended, f"{workers.running} running{failed}")
        if stop.requested() and self.count("stopped", "waiting"):
            raise RunError(f"stopped, {self.count('done')} of {total} runs are done")

    def count(self, *status: str) -> int:
        """Return the number of planned runs with one of these statuses."""
        return sum(run_status in status for run_status in self.status.values())

    def _jobs(self, log_sizes: dict[str, int]) -> Iterator[TrainingJob]:
        """Yield the runs that are not done, and note how long the log of each is already."""
        for planned in [run for run in self.plan if self.status[run.name] != "done"]:
            job = TrainingJob(planned.name, self.out.resolve() / planned.name)
            if not (job.folder / "config.yaml").exists():
                config = resolve_options(planned.config, complete=True)  # as the run records it
                write_text(job.folder / "config.yaml", dump_config(config))
            log_sizes[planned.name] = job.log_path.stat().st_size if job.log_path.exists() else 0
            yield job

    def _record(self, result: ProcessResult, log_size: int, stopping: bool) -> None:
        """Record the end of a run; its error is in the log, after its first ``log_size`` bytes."""
        entry = self.entries[result.name]
        entry.exit_status = result.status
        entry.seconds = round(entry.seconds + result.seconds, 2)
        entry.status = "done" if result.status == 0 else "stopped" if stopping else "failed"
        log = self.out / result.name / LOG
        output = log.read_bytes()[log_size:] if log.exists() else b""
        entry.error = "" if result.status == 0 else result.lost or _error(result.status, output)

    def _outcome(self, name: str) -> str:
        """Return a line on how a run ended: its scores or its error."""
        entry = self.entries[name]
        if entry.status != "done":
            return f"{name}  {entry.status}, {entry.error}"
        tasks = RunResult.load(self.out / name).tasks
        scores = []
        for task, result in tasks.items():
            prefix = f"{task} " if len(tasks) > 1 else ""
            values = result.scores["validation"].values
            scores.append(f"{prefix}validation {format_scores(result.metrics, values)}")
        return f"{name}  done in {duration(entry.seconds)}, {', '.join(scores)}"


def _error(status: int | None, output: bytes) -> str:
    """Return the exit status or the signal, and the last line of the output."""
    if status is not None and status < 0:
        return f"ended by {signal.Signals(-status).name}"
    lines = output.decode(errors="replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "no output")
    return f"exit status {status}, {last.removeprefix('thalnet: ')}"


def _stop_signals(console: Console) -> AbstractContextManager[StopRequest]:
    """Count Ctrl+C, SIGTERM and SIGHUP.

    The runs have sessions of their own, so that the sweep has to pass the signals on to them.
    """

    def announce(count: int) -> None:
        hint = "; press Ctrl+C again to abort them" if count == 1 else ""
        console.print(f"stopping: the running processes save and end{hint}")

    return stop_signals(announce, abort=False)
