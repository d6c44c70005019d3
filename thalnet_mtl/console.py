"""Output for people: lines, and progress bars on a terminal."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich import console as rich_console
from rich import progress as rich_progress

from thalnet_mtl.errors import one_line, printable
from thalnet_mtl.metrics.metric import Metric, format_scores
from thalnet_mtl.streams import PatientStream

ReportBytes = Callable[[str, int, int], None]  # file, bytes so far, bytes in all


class Progress:
    """The progress of a job of ``total`` steps: a bar on a terminal, lines elsewhere."""

    def __init__(self, console: rich_console.Console, title: str, done: int, total: int):
        self.console, self.title, self.total = console, one_line(title), total
        self.first_step, self.start = done, time.monotonic()
        columns = (
            rich_progress.TextColumn("{task.description}", markup=False),
            rich_progress.BarColumn(bar_width=16),
            rich_progress.MofNCompleteColumn(),
            rich_progress.TimeRemainingColumn(compact=True),
            rich_progress.TextColumn("{task.fields[status]}", markup=False),
        )
        self.has_bar = console.is_terminal and not console.is_dumb_terminal
        self.bar = rich_progress.Progress(
            *columns, console=console, transient=True, disable=not self.has_bar
        )
        self.job = self.bar.add_task(self.title, completed=done, total=total, status="")

    def advance(self, step: int) -> None:
        """Move the bar to a step."""
        if self.has_bar:
            self.bar.update(self.job, completed=step)

    def update(self, step: int, status: str) -> None:
        """Move the bar to a step, and write a few words beside it."""
        if self.has_bar:
            self.bar.update(self.job, completed=step, status=status)

    def log_losses(self, step: int, losses: Mapping[str, float]) -> None:
        """Show the current loss of every task, and the rate; as a line where there is no bar."""
        rate = (step - self.first_step) / max(time.monotonic() - self.start, 1e-9)
        if self.has_bar:
            values = " ".join(f"{loss:.3f}" for loss in losses.values())
            self.update(step, f"{rate:.3g}/s loss {values}")
            return
        left = duration((self.total - step) / max(rate, 1e-9))
        values = " ".join(f"{name} {loss:.4f}" for name, loss in losses.items())
        if len(losses) == 1:
            values = f"{next(iter(losses.values())):.4f}"
        self.console.print(
            printable(
                f"{self.title}  step {step:,}/{self.total:,}  loss {values}  {rate:.3g} steps/s  "
                f"{left} left"
            ),
            markup=False,
        )


class Console:
    """The output of a command, with at most one progress bar at a time.

    Args:
        console: by default on standard output. Only a terminal gets bars: ``FORCE_COLOR``, which
            continuous integration sets, makes no terminal of a log.
    """

    def __init__(self, console: rich_console.Console | None = None):
        output: Any = sys.stdout
        if not isinstance(output, PatientStream):
            output = PatientStream(output)  # outside of the command line
        self.console = console or rich_console.Console(
            file=output, highlight=False, soft_wrap=True, force_terminal=output.isatty()
        )
        self._progress: Progress | None = None

    def print(self, text: str) -> None:
        """Print a line; control characters, which names may hold, are written out."""
        self.console.print(printable(text), markup=False)

    @contextmanager
    def progress(self, title: str, done: int, total: int) -> Iterator[Progress]:
        """Show the progress of a job as long as the context lasts."""
        progress = Progress(self.console, title, done, total)
        with progress.bar:
            self._progress = progress
            try:
                yield progress
            finally:
                self._progress = None

    def advance(self, step: int) -> None:
        """Move the progress bar, if there is one, to a step."""
        if self._progress:
            self._progress.advance(step)

    def log_losses(self, step: int, losses: Mapping[str, float]) -> None:
        """Show the current loss of every task on the progress bar, if there is one."""
        if self._progress:
            self._progress.log_losses(step, losses)

    def log_scores(
        self, step: int, prefix: str, metrics: Sequence[Metric], values: Mapping[str, float]
    ) -> None:
        """Print validation scores; ``prefix`` names the task if there are several."""
        self.print(f"  step {step:,}  {prefix}validation {format_scores(metrics, values)}")

    @contextmanager
    def downloads(self) -> Iterator[ReportBytes]:
        """Show downloads: a bar for each file on a terminal, a line for each file elsewhere.

        The context gives a callback, to be called with the name of a file, the bytes that have
        arrived, and the bytes in all.
        """
        columns = (
            rich_progress.TextColumn("{task.description}", markup=False),
            rich_progress.BarColumn(bar_width=16),
            rich_progress.DownloadColumn(),
            rich_progress.TransferSpeedColumn(),
            rich_progress.TimeRemainingColumn(compact=True),
        )
        terminal = self.console.is_terminal and not self.console.is_dumb_terminal
        with rich_progress.Progress(*columns, console=self.console, disable=not terminal) as bars:
            jobs: dict[str, Any] = {}

            def report(file: str, done: int, total: int) -> None:
                if file not in jobs:
                    jobs[file] = bars.add_task(file, total=total)
                    if not terminal:
                        self.print(f"{file} …")
                bars.update(jobs[file], completed=done, total=total)

            yield report


def duration(seconds: float) -> str:
    """Format seconds as minutes and seconds, '2:05', or with hours, '1:02:05'."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
