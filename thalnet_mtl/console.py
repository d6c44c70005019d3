"""Output for people: lines, and progress bars on a terminal or in a notebook."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

from rich import console as rich_console
from rich import progress as rich_progress

from thalnet_mtl.errors import one_line, printable
from thalnet_mtl.metrics.metric import Metric, format_scores
from thalnet_mtl.notebook import NotebookBar, in_notebook
from thalnet_mtl.streams import PatientStream

ReportBytes = Callable[[str, int, int], None]  # file, bytes so far, bytes in all


class TerminalBar:
    """A progress bar in the last line of a terminal."""

    def __init__(self, console: rich_console.Console, title: str, done: int, total: int):
        self.rich = rich_progress.Progress(
            rich_progress.TextColumn("{task.description}", markup=False),
            rich_progress.BarColumn(bar_width=16),
            rich_progress.MofNCompleteColumn(),
            rich_progress.TimeRemainingColumn(compact=True),
            rich_progress.TextColumn("{task.fields[status]}", markup=False),
            console=console,
            transient=True,
        )
        self.job = self.rich.add_task(title, completed=done, total=total, status="")

    def __enter__(self) -> None:
        self.rich.start()

    def __exit__(self, *error: object) -> None:
        self.rich.stop()

    def show(self, done: int, status: str | None = None) -> None:
        """Move the bar to a step, with another status if there is one."""
        fields: Any = {} if status is None else {"status": status}
        self.rich.update(self.job, completed=done, **fields)


class Progress:
    """The progress of a job of ``total`` steps: a bar on a terminal or in a notebook, or lines."""

    def __init__(
        self,
        console: rich_console.Console,
        title: str,
        done: int,
        total: int,
        notebook: bool = False,
    ):
        self.console, self.title, self.total = console, one_line(title), total
        self.first_step, self.start = done, time.monotonic()
        self.bar: TerminalBar | NotebookBar | None = None
        if notebook:
            self.bar = NotebookBar(self.title, total, self._about)
            self.bar.done = done
        elif console.is_terminal and not console.is_dumb_terminal:
            self.bar = TerminalBar(console, self.title, done, total)

    def advance(self, step: int) -> None:
        """Move the bar to a step."""
        if self.bar:
            self.bar.show(step)

    def update(self, step: int, status: str) -> None:
        """Move the bar to a step, and write a few words beside it."""
        if self.bar:
            self.bar.show(step, status)

    def log_losses(self, step: int, losses: Mapping[str, float]) -> None:
        """Show the current loss of every task, and the rate; as a line where there is no bar."""
        if self.bar:
            values = " ".join(f"{loss:.3f}" for loss in losses.values())
            self.bar.show(step, f"{self._rate(step):.3g}/s loss {values}")
            return
        values = " ".join(f"{name} {loss:.4f}" for name, loss in losses.items())
        if len(losses) == 1:
            values = f"{next(iter(losses.values())):.4f}"
        self.console.print(
            printable(
                f"{self.title}  step {step:,}/{self.total:,}  loss {values}  "
                f"{self._rate(step):.3g} steps/s  {self._left(step)} left"
            ),
            markup=False,
        )

    def _about(self, step: int) -> str:
        """Return the steps so far, the time that has passed and that is left."""
        parts = [f"{step:,}/{self.total:,}", duration(time.monotonic() - self.start)]
        parts += [f"{self._left(step)} left"] * (self.first_step < step < self.total)
        return "  ".join(parts)

    def _rate(self, step: int) -> float:
        return (step - self.first_step) / max(time.monotonic() - self.start, 1e-9)

    def _left(self, step: int) -> str:
        return duration((self.total - step) / max(self._rate(step), 1e-9))


class Console:
    """The output of a command, with at most one progress bar at a time.

    Args:
        console: by default on standard output. Only a terminal gets bars: ``FORCE_COLOR``, which
            continuous integration sets, makes no terminal of a log. So does a notebook; lines that
            are printed while its bar moves stand below it.
    """

    def __init__(self, console: rich_console.Console | None = None):
        output: Any = sys.stdout
        if not isinstance(output, PatientStream):
            output = PatientStream(output)  # outside of the command line
        self.notebook = console is None and in_notebook()
        self.console = console or rich_console.Console(
            file=output,
            highlight=False,
            soft_wrap=True,
            force_terminal=output.isatty(),
            force_jupyter=False,  # or each line were an output of its own
        )
        self._progress: Progress | None = None

    @classmethod
    def silent(cls) -> "Console":
        """Return a console that shows nothing."""
        return cls(rich_console.Console(quiet=True, force_terminal=False))

    def print(self, text: str) -> None:
        """Print a line; control characters, which names may hold, are written out."""
        if self._progress and isinstance(self._progress.bar, NotebookBar):
            self._progress.bar.print(printable(text))
        else:
            self.console.print(printable(text), markup=False)

    @contextmanager
    def progress(self, title: str, done: int, total: int) -> Iterator[Progress]:
        """Show the progress of a job as long as the context lasts."""
        progress = Progress(self.console, title, done, total, self.notebook)
        with progress.bar or nullcontext():
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
        if self.notebook:
            with ExitStack() as stack:
                yield _notebook_downloads(stack)
            return
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


def _notebook_downloads(stack: ExitStack) -> ReportBytes:
    """Return a callback that shows downloads in a notebook, a bar for each file."""
    bars = dict[str, NotebookBar]()

    def report(file: str, done: int, total: int) -> None:
        if file not in bars:
            megabytes = f" of {total / 1e6:,.1f} MB" if total else " MB"
            bar = NotebookBar(file, total, lambda done: f"{done / 1e6:,.1f}{megabytes}")
            bars[file] = stack.enter_context(bar)
        bars[file].show(done)

    return report


def duration(seconds: float) -> str:
    """Format seconds as minutes and seconds, '2:05', or with hours, '1:02:05'."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
