"""The run directory and the screen: everything that a run writes down or shows."""

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich import console as rich_console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from thalnet_mtl.metrics.metric import Metric
from thalnet_mtl.tasks import datasets as data


class PatientConsole(rich_console.Console):
    """Goes silent when whoever read its output has left, instead of ending the run."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Console:
    """Progress for people: a bar on a terminal, plain lines elsewhere."""

    def __init__(self, console: rich_console.Console | None = None):
        self.console = console or PatientConsole(highlight=False, soft_wrap=True)
        self._bar: Progress | None = None
        self._job: Any = None

    @contextmanager
    def progress(self, title: str, done: int, total: int) -> Iterator[None]:
        """Show a bar for the while, if there is a terminal."""
        self._title, self._total, self._begin = title, total, (time.monotonic(), done)
        if not self.console.is_terminal:
            yield
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=16),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[status]}"),
        )
        with Progress(*columns, console=self.console, transient=True) as self._bar:
            self._job = self._bar.add_task(title, completed=done, total=total, status="")
            yield
        self._bar = None

    def advance(self, step: int) -> None:
        if self._bar is not None:
            self._bar.update(self._job, completed=step)

    def set_status(self, done: int, text: str) -> None:
        """How far it is, and a few words beside the bar, if there is one."""
        if self._bar is not None:
            self._bar.update(self._job, completed=done, status=text)

    def status(self, step: int, losses: Mapping[str, float]) -> None:
        """The current loss of every task, and the rate; a line where there is no bar."""
        seconds, done = time.monotonic() - self._begin[0], step - self._begin[1]
        rate = done / max(seconds, 1e-9)
        brief = " ".join(f"{loss:.3f}" for loss in losses.values())
        full = f"{next(iter(losses.values())):.4f}"
        if len(losses) > 1:
            full = " ".join(f"{name} {loss:.4f}" for name, loss in losses.items())
        if self._bar is not None:
            self._bar.update(self._job, completed=step, status=f"{rate:.3g}/s loss {brief}")
        else:
            left = (self._total - step) / max(rate, 1e-9)
            self.print(
                f"{self._title}  step {step:,}/{self._total:,}  loss {full}  "
                f"{rate:.3g} steps/s  {duration(left)} left"
            )

    def log_score(self, step: int, which: str, metric: Metric, value: float) -> None:
        """A score on validation; ``which`` names the task and a space, if there are several."""
        self.print(f"  step {step:,}  {which}validation {metric.name} {metric.format(value)}")

    def fetch(self, name: str) -> None:
        """Have a data set fetched if it is missing, and show the bytes."""
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=16),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(compact=True),
        )
        with Progress(*columns, console=self.console, disable=not self.console.is_terminal) as bar:
            jobs: dict[str, Any] = {}

            def report(description: str, done: int, total: int) -> None:
                if description not in jobs:
                    jobs[description] = bar.add_task(description, total=total)
                    if not self.console.is_terminal:
                        self.print(f"{description} …")
                bar.update(jobs[description], completed=done, total=total)

            data.fetch(name, report)

    def print(self, text: str) -> None:
        self.console.print(text, markup=False)


def duration(seconds: float) -> str:
    """For people: minutes and seconds, and hours if there are."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
