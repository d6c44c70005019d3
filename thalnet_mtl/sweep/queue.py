"""Runs of a plan, several at a time: what is trained, how it ended, and what is shown of it."""

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thalnet_mtl.config.load import dump_config
from thalnet_mtl.config.options import resolve_options
from thalnet_mtl.console import Console, duration
from thalnet_mtl.errors import RunError
from thalnet_mtl.files import wait_until_free, write_text
from thalnet_mtl.metrics.metric import format_scores
from thalnet_mtl.runs.differences import allowed_differences, lengths
from thalnet_mtl.runs.results import RunResult
from thalnet_mtl.signals import StopRequest, stop_signals
from thalnet_mtl.sweep.jobs import LOG, ProcessResult, TrainingJob
from thalnet_mtl.sweep.plan import PlannedRun
from thalnet_mtl.sweep.ray_tasks import RayTasks
from thalnet_mtl.sweep.scores import score_of
from thalnet_mtl.sweep.slurm import SCRIPT, SlurmArrays, has_sbatch, last_line
from thalnet_mtl.sweep.workers import LocalWorkers, run_jobs

WIDTH = 80  # columns of a line on a run that has ended; a longer one is broken
SECONDS_TO_END = 60.0  # for a run whose sweep was killed: it saves, and ends
SAVED = "saved at step"  # begins the last line of the log of a run that was stopped
STATUSES = ("waiting", "done", "failed", "stopped")


@dataclass
class SweepEntry:
    """A run in the record of a sweep; its status is one of ``STATUSES``."""

    run: str
    values: dict[str, Any]
    seed: int
    status: str = "waiting"
    exit_status: int | None = None
    error: str = ""
    seconds: float = 0.0  # of all its processes


class RunQueue:
    """Planned runs in a folder, and the record of how each of them ended.

    Args:
        out: The folder; every run gets a directory in it.
        plan: The runs.
        entries: The record by name of the run; runs are added to it.
        save: Writes the record to the disk; called before the first run, and whenever one ends.
    """

    def __init__(
        self,
        out: Path,
        plan: Sequence[PlannedRun],
        entries: dict[str, SweepEntry],
        save: Callable[[], None],
    ):
        self.out, self.entries, self.save = out, entries, save
        self.plan: list[PlannedRun] = []
        self.add(plan)
        self.total = len(plan)

    def add(self, plan: Sequence[PlannedRun]) -> None:
        """Add runs to the plan, with the status 'done' if they have a result."""
        for planned in plan:
            self._update(planned)
        self.plan += plan

    def _update(self, planned: PlannedRun) -> None:
        """Set the status of a run to 'done' if it has a result, otherwise to 'waiting'."""
        folder = self.out / planned.name
        longer = lengths(allowed_differences(folder, planned.config), planned.config)
        new_entry = SweepEntry(planned.run, planned.values, planned.seed)
        entry = self.entries.setdefault(planned.name, new_entry)
        if longer or not (folder / "result.json").exists():
            if not self.is_final(entry):
                entry.status, entry.exit_status, entry.error = "waiting", None, ""
        elif entry.status != "done":  # the sweep was killed before it could record the end
            entry.status, entry.exit_status, entry.error = "done", None, ""
            entry.seconds = entry.seconds or RunResult.load(folder).seconds

    def is_final(self, entry: SweepEntry) -> bool:
        """Return whether a run that has no result is not to be trained again."""
        return False

    def batches(self) -> Iterator[Sequence[PlannedRun]]:
        """Yield runs to train; those of a batch have ended before the next batch is asked for."""
        yield self.plan

    @property
    def status(self) -> dict[str, str]:
        """Status of every planned run, by its name."""
        return {planned.name: self.entries[planned.name].status for planned in self.plan}

    @property
    def failures(self) -> list[str]:
        """Errors of the runs that the same command tries again, and the paths of their logs."""
        return [
            f"{name} failed: {self.entries[name].error}\n  full log: {self.out / name / LOG}"
            for name, status in self.status.items()
            if status == "failed" and not self.is_final(self.entries[name])
        ]

    def run(self, workers: LocalWorkers | RayTasks, noun: str = "runs") -> None:
        """Train all runs that are not done yet.

        Args:
            workers: processes to train them in.
            noun: what the runs are, for the lines that are shown.

        Raises:
            RunError: on Ctrl+C, SIGTERM or SIGHUP, after the running processes have ended.
        """
        start = time.monotonic()
        done_before = self.count("done", "failed")  # what will be tried again is waiting
        console = Console()
        if done_before:
            console.print(f"{done_before} of {self.total} {noun} are done already")
        self.save()
        if done_before >= self.total:
            return
        console.print(str(workers.slots))
        log_sizes: dict[str, int] = {}  # of each run when it was started
        with (
            console.progress(noun, done_before, self.total) as progress,
            _stop_signals(console) as stop,
        ):
            running = min(workers.count, self.total - done_before)
            progress.update(done_before, f"{running} running")
            for batch in self.batches():
                for result in run_jobs(self._jobs(batch, log_sizes), workers, stop):
                    self._record(result, log_sizes[result.name], stop.requested())
                    self.save()
                    ended = self.count("done", "failed")
                    left = self.total - done_before - len(log_sizes)  # runs that were not started
                    seconds = (time.monotonic() - start) / max(1, ended - done_before) * left
                    going = left > 0 and not stop.requested()
                    estimate = f"  {duration(seconds)} left" if going else ""
                    title, outcome = self.outcome(result.name)
                    lines = [f"{ended}/{self.total}  {title}", f"{outcome}{estimate}"]
                    narrow = len("  ".join(lines)) <= WIDTH
                    console.print(("  " if narrow else "\n    ").join(lines))
                    if details := self.details(result.name):
                        console.print(f"    {details}")
                    failed = f", {self.count('failed')} failed" * bool(self.count("failed"))
                    progress.update(ended, f"{workers.running} running{failed}")
                if stop.requested():
                    break
        if stop.requested() and self.count("done", "failed") < self.total:
            raise RunError(f"stopped, {self.count('done')} of {self.total} {noun} are done")

    def submit(self, arrays: SlurmArrays, noun: str = "runs") -> Iterator[str]:
        """Submit the runs that are not done, waiting or running already; yield lines on them.

        Args:
            arrays: job arrays of the folder.
            noun: what the runs are, for the lines.

        Raises:
            RunError: SLURM refuses it. What it has accepted before is recorded.
        """
        can_submit = has_sbatch()
        queued = arrays.queued() if can_submit else set()
        left = []
        for planned in [planned for batch in self.batches() for planned in batch]:
            entry, name = self.entries[planned.name], planned.name
            if entry.status == "done" or name in queued:
                continue
            folder = self.out / name
            ended = name in arrays.names and (folder / LOG).exists()
            if ended and not (folder / "result.json").exists():
                entry.error = last_line(folder / LOG)
                entry.status = "stopped" if entry.error.startswith(SAVED) else "failed"
            left += [] if self.is_final(entry) else [planned]
        self.save()
        going = f"{len(queued)} queued or running"
        yield f"{self.count('done')} of {self.total} {noun} are done, {going}"
        if stopped := self.count("stopped"):
            yield f"{stopped} stopped before the end, and saved; they go on"
        if not left:
            return
        jobs = list(self._jobs(left, {}))
        parts = arrays.write_script(jobs)
        yield f"script: {arrays.out / SCRIPT}"
        if not can_submit:
            yield "no sbatch on this machine: submit it as its first lines say, or call this there"
            return
        submitted = 0
        for part in parts:
            try:
                line = arrays.submit(part)
            except RunError as error:
                done = f"{submitted} of {len(jobs)} {noun} were submitted"
                raise RunError(f"{error}; {done}") from None
            submitted += len(part.runs)
            yield f"{line}: {len(part.runs)} {noun}"

    @property
    def has_ended(self) -> bool:
        """Whether every run is done, or has failed and is not to be trained again."""
        entries = [self.entries[planned.name] for planned in self.plan]
        return all(entry.status == "done" or self.is_final(entry) for entry in entries)

    def count(self, *status: str) -> int:
        """Return the number of planned runs with one of these statuses."""
        return sum(run_status in status for run_status in self.status.values())

    def _jobs(self, plan: Sequence[PlannedRun], log_sizes: dict[str, int]) -> Iterator[TrainingJob]:
        """Yield the runs that are not done, and note how long the log of each is already."""
        for planned in plan:
            entry = self.entries[planned.name]
            if entry.status == "done" or self.is_final(entry):
                continue
            folder = self.out.resolve() / planned.name
            wait_until_free(folder, SECONDS_TO_END)
            different = allowed_differences(folder, planned.config)
            flags = [f"--{field}={now}" for field, (now, _) in different.items()]
            job = TrainingJob(planned.name, folder, [str(folder / "config.yaml"), *flags])
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

    def outcome(self, name: str) -> tuple[str, str]:
        """Return the title of a run that has ended, and its scores or its error."""
        entry = self.entries[name]
        if entry.status != "done":
            return name, f"{entry.status}, {entry.error}"
        result = RunResult.load(self.out / name)
        if len(result.tasks) == 1:
            (task,) = result.tasks.values()
            scores = format_scores(task.metrics, task.scores["validation"].values)
        else:
            score, metric = score_of(result, list(result.tasks))
            title = metric.name.replace("_", " ")
            scores = f"{title} {metric.format(score)}, mean of {len(result.tasks)} tasks"
        return name, f"done in {duration(entry.seconds)}, validation {scores}"

    def details(self, name: str) -> str:
        """Return a second line on a run that has ended, '' for none."""
        return ""


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
