"""Several seeds of one small net, trained together: every step is one step of all of them.

Each seed is a run of its own, with its folder, its log and its checkpoints, as if it were alone,
and goes through the same ``loop``. Only the steps that the loops ask for are taken together, by
``Replicas``, and differ by rounding alone; how fast that grows depends on the learning rate, as
between two levels of ``ops``. On a GPU the steps are those of each run alone, captured as CUDA
graphs, and side by side because every run has a stream: small nets leave most of it idle.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from thalnet_mtl.config.schema import Config
from thalnet_mtl.console import Console
from thalnet_mtl.errors import RunError, UserError
from thalnet_mtl.metrics.metric import Metric
from thalnet_mtl.runs.directory import RunDirectory, check_same
from thalnet_mtl.signals import stop_signals
from thalnet_mtl.training.results import finish
from thalnet_mtl.training.setup import choose_device, fetch_with, set_up
from thalnet_mtl.training.stacked_step import Request, StackedStep
from thalnet_mtl.training.state import Run
from thalnet_mtl.training.step import can_capture, train_step
from thalnet_mtl.training.trainer import Interrupted, Steps, announce_stop, loop, resume_or_start


def train_stacked(configs: Mapping[Path, Config], screen: Console) -> None:
    """Train configurations that differ in their seed alone, in their run directories.

    Raises:
        UserError: something about them cannot be stacked.
        RunError: of the runs that failed; the others are finished.
        Interrupted: as ``train``, all are saved.
    """
    check(next(iter(configs.values())))
    open_ones = {}
    for folder, config in configs.items():
        if (folder / "result.json").exists():
            check_same(folder, config)
        else:
            open_ones[folder] = config
    if not open_ones:
        return
    with ExitStack() as closing:
        seats, chorus = [], SharedConsole(screen)
        for folder, config in open_ones.items():
            run, directory = set_up(config, fetch_with(screen)), RunDirectory(folder, config)
            closing.callback(directory.close)
            seats.append(
                StackedRun(folder.name, run, directory, PrefixedConsole(chorus, folder.name))
            )
            resume_or_start(run, directory, seats[-1].voice)
        begun, total = min(seat.run.step for seat in seats), seats[0].run.total
        with (
            screen.progress(f"{len(seats)} seeds", begun, total),
            stop_signals(announce_stop(screen)) as stop,
        ):
            for seat in seats:
                seat.steps = loop(seat.run, seat.directory, seat.voice, stop.requested)
            advance(seats, chorus)
        for seat in seats:
            if isinstance(seat.end, Interrupted):
                raise seat.end
        for seat in (seat for seat in seats if seat.end is None):
            seat.voice.print(f"scoring the weights of step {seat.run.best_step:,} …")
            finish(seat.run, seat.directory)
    ends = [f"{seat.name}: {seat.end}" for seat in seats if seat.end]
    if ends:
        others = ", the others are done" if len(ends) < len(seats) else ""
        raise RunError(f"{len(ends)} of {len(seats)} seeds failed{others}. {' '.join(ends)}")


def check(config: Config) -> None:
    """Raise unless runs of this configuration can take their steps together."""
    options = config.train
    if can_capture(config, choose_device(options.device)):
        return
    patient = options.patience and len(config.named_tasks) > 1  # tasks would stop at other steps
    for what, used in {
        f"model.body {config.model.body}": config.model.body != "thalnet",
        f"train.combine {options.combine}": options.combine not in ("fixed", "uncertainty"),
        f"train.draw {options.draw}": bool(options.draw),
        f"train.dropout {options.dropout}": bool(options.dropout),
        "reset": any(task.reset for task in config.named_tasks.values()),
        f"train.patience {options.patience} of several tasks": bool(patient),
        "changes": bool(config.changes),
        "stream": bool(config.stream),
        f"growth.when {config.growth.when}": config.growth.when != "never",
        f"train.strategy {options.strategy}": options.strategy != "naive",
        f"train.ops {options.ops}": options.ops not in ("auto", "cpp", "batched"),
    }.items():
        if used:
            raise UserError(f"--stacked: {what} cannot be stacked; leave --stacked away.")


@dataclass
class StackedRun:
    """One of the runs, and what its loop asks for."""

    name: str
    run: Run
    directory: RunDirectory
    voice: "PrefixedConsole"
    steps: Steps = field(init=False)
    request: Request = field(init=False)
    end: RunError | None = None  # what ended it early
    stream: AbstractContextManager[Any] = field(default_factory=nullcontext)

    def turn(self, take: Callable[[], Request]) -> bool:
        """Get the next request; whether there is one."""
        try:
            self.request = take()
        except StopIteration:
            return False
        except RunError as end:
            self.end = end
            if not isinstance(end, Interrupted):
                self.voice.print(str(end))
            return False
        return True

    def begin(self) -> bool:
        """Get the first request, alone; whether there is one."""
        with self.stream:
            return self.turn(lambda: next(self.steps))

    def go(self) -> bool:
        """Take a step alone; whether another is asked for."""
        with self.stream:
            return self.turn(lambda: self.steps.send(train_step(self.run, *self.request)))

    def first(self, step: int) -> Request:
        """The request for a step; a run that was saved a little earlier takes some alone."""
        if self.run.step < step:
            self.voice.print(f"catching up alone, to step {step:,}")
        request = next(self.steps)
        while self.run.step < step:
            request = self.steps.send(train_step(self.run, *request))
        return request


def advance(seats: Sequence[StackedRun], chorus: "SharedConsole") -> None:
    """Take the steps of all runs, together from where the last of them was saved.

    One that ends early leaves the others as they are.
    """
    if can_capture(seats[0].run.config, seats[0].run.device):
        side_by_side(seats, chorus)
        return
    latest = max(seat.run.step for seat in seats)
    going = [seat for seat in seats if seat.turn(partial(seat.first, latest))]
    chorus.tell()
    while going:
        replicas = StackedStep([seat.run for seat in going])
        chorus.screen.print(f"{len(going)} seeds side by side, computed by {replicas.level}")
        while len(going) == len(replicas.runs):
            losses = replicas.step([seat.request for seat in going])
            going = [
                seat
                for seat, own in zip(going, losses, strict=True)
                if seat.turn(partial(seat.steps.send, own))
            ]
            chorus.tell()


def side_by_side(seats: Sequence[StackedRun], chorus: "SharedConsole") -> None:
    """Let every run take its own steps, each on a stream: what one waits for the others do not."""
    chorus.screen.print(f"{len(seats)} runs side by side, each on a stream of the GPU")
    for seat, stream in zip(seats, streams(len(seats)), strict=True):
        seat.stream = stream
    torch.cuda.synchronize()
    going = [seat for seat in seats if seat.begin()]
    while going:
        going = [seat for seat in going if seat.go()]
        chorus.tell()
    torch.cuda.synchronize()


def streams(count: int) -> list[AbstractContextManager[Any]]:
    """So many of the GPU."""
    return [torch.cuda.stream(torch.cuda.Stream()) for _ in range(count)]


class SharedConsole:
    """One screen for several runs, which shows them together after every step."""

    def __init__(self, screen: Console):
        self.screen = screen
        self.losses: dict[int, list[Mapping[str, float]]] = {}  # by step
        self.scores: dict[tuple[int, str, Metric], list[float]] = {}

    def tell(self) -> None:
        """The mean of their losses; the mean and range of their scores."""
        for step, known in self.losses.items():
            means = {task: sum(of[task] for of in known) / len(known) for task in known[0]}
            self.screen.log_losses(step, means)
        for (step, which, metric), values in self.scores.items():
            shown = map(metric.format, (sum(values) / len(values), min(values), max(values)))
            mean, least, most = shown
            of = f"{least} to {most} of {len(values)} seeds"
            self.screen.print(f"  step {step:,}  {which}validation {metric.name} {mean} ({of})")
        self.losses.clear()
        self.scores.clear()


class PrefixedConsole(Console):
    """The screen of one of them: lines by name, numbers together with those of the others."""

    def __init__(self, chorus: SharedConsole, name: str):
        super().__init__(chorus.screen.console)
        self.chorus, self.name = chorus, name

    def print(self, text: str) -> None:
        self.chorus.screen.print(f"{self.name}  {text.strip()}")

    def advance(self, step: int) -> None:
        self.chorus.screen.advance(step)

    def log_losses(self, step: int, losses: Mapping[str, float]) -> None:
        self.chorus.losses.setdefault(step, []).append(losses)

    def log_score(self, step: int, which: str, metric: Metric, value: float) -> None:
        self.chorus.scores.setdefault((step, which, metric), []).append(value)
