"""Training of several seeds of one small network together: each step is a step of all of them.

Each seed is a run with its own folder, log and checkpoints, and its ``Trainer`` prepares and
records its steps. Only the steps are taken together, by ``StackedStep``. They differ from those of
a run that is trained alone by rounding; how fast that grows depends on the learning rate, as
between two backends of ``ops``. On a GPU each run takes its own steps, captured as CUDA graphs,
side by side on streams: small networks leave most of a GPU idle.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from thalnet_mtl.config.options import resolve_options
from thalnet_mtl.config.schema import Config
from thalnet_mtl.console import Console
from thalnet_mtl.errors import Interrupted, RunError
from thalnet_mtl.metrics.metric import Metric
from thalnet_mtl.runs.directory import RunDirectory
from thalnet_mtl.training.finished import is_finished
from thalnet_mtl.training.loop import Trainer
from thalnet_mtl.training.session import session
from thalnet_mtl.training.setup import fetch_with, set_up
from thalnet_mtl.training.stackable import check_stackable
from thalnet_mtl.training.stacked_step import StackedStep
from thalnet_mtl.training.step import StepInputs, can_capture
from thalnet_mtl.training.tracking.callbacks import make_callbacks


def train_stacked(configs: Mapping[Path, Config], console: Console, group: str = "") -> None:
    """Train configurations that differ only in their seed, in their run directories.

    Args:
        configs: by run directory.
        console: for progress and scores.
        group: name of all of them, for trackers.

    Raises:
        UserError: they cannot be stacked.
        RunError: some of the runs failed; the others are finished.
        Interrupted: on Ctrl+C, SIGTERM or SIGHUP, after saving all runs.
    """
    configs = {folder: resolve_options(c, complete=True) for folder, c in configs.items()}
    check_stackable(next(iter(configs.values())))
    unfinished = {}
    for folder, config in configs.items():
        if not is_finished(folder, config, console):
            unfinished[folder] = config
    if not unfinished:
        return
    with ExitStack() as stack:
        runs, shared = list[StackedRun](), SharedConsole(console)
        for folder, config in unfinished.items():
            named = make_callbacks(config)
            context = set_up(config, fetch_with(console), folder)
            directory = stack.enter_context(closing(RunDirectory(folder, config)))
            own_console = PrefixedConsole(shared, folder.name)
            trainer = Trainer(context, directory, own_console, None, named, group)
            runs.append(StackedRun(folder.name, trainer))
            trainer.resume_or_start()
        with session([run.trainer for run in runs], console, f"{len(runs)} seeds"):
            take_steps(runs, shared)
        for run in runs:
            if isinstance(run.error, Interrupted):
                raise run.error
        for run in runs:
            if run.error is None:
                run.trainer.finish()
    errors = [f"{run.name}: {run.error}" for run in runs if run.error]
    if errors:
        ending = ", the others are done" if len(errors) < len(runs) else ""
        raise RunError(f"{len(errors)} of {len(runs)} seeds failed{ending}. {' '.join(errors)}")


@dataclass
class StackedRun:
    """A run that is trained together with others, and the inputs of its next step."""

    name: str
    trainer: Trainer
    inputs: StepInputs | None = None
    error: RunError | None = None  # that ended it early
    stream: AbstractContextManager[Any] = field(default_factory=nullcontext)  # of the GPU

    def prepare_step(self) -> bool:
        """Get the inputs of the next step. Returns whether there is one."""
        with self.stream:
            return self._continue(None)

    def record_step(self, losses: Tensor) -> bool:
        """Count a step, and prepare the next one. Returns whether there is one."""
        with self.stream:
            return self._continue(losses)

    def take_step(self) -> bool:
        """Take a step alone, and prepare the next one. Returns whether there is one."""
        assert self.inputs is not None
        with self.stream:
            return self._continue(self.trainer.train_step(self.inputs))

    def _continue(self, losses: Tensor | None) -> bool:
        try:
            if losses is not None:
                self.trainer.after_step(losses)
            self.inputs = self.trainer.before_step()
        except RunError as error:
            self.error, self.inputs = error, None
            if not isinstance(error, Interrupted):
                self.trainer.console.print(str(error))
        return self.inputs is not None


def take_steps(runs: Sequence[StackedRun], shared: "SharedConsole") -> None:
    """Take the steps of all runs, together from the latest step that one of them was saved at.

    A run that was saved earlier catches up by steps in which a copy of it stands in for each of the
    others: a stack of another size, or in another order, may round in another way. A run that ends
    early leaves the others as they are.
    """
    first = runs[0].trainer.run
    if can_capture(first.config, first.device):
        take_steps_side_by_side(runs, shared)
        return
    going = [run for run in runs if run.prepare_step()]
    while going:
        # Runs that were killed between two saves are at different steps: the first ones catch up.
        steps = sorted({run.trainer.run.step for run in going})
        together = [run for run in going if run.trainer.run.step == steps[0]]
        stop = steps[1] if len(steps) > 1 else first.total_steps
        behind = {id(run) for run in together}
        step = StackedStep(
            [
                run.trainer.run if id(run) in behind else together[0].trainer.run.copy()
                for run in going
            ]
        )
        seeds = f"{len(together)} seed{'s' * (len(together) > 1)}"
        title = "side by side" if len(steps) == 1 else f"to step {stop:,}, to catch up"
        shared.console.print(f"{seeds} {title}, computed by {step.backend}")
        while together[0].trainer.run.step < stop and all(run.inputs for run in together):
            inputs = [run.inputs if id(run) in behind else together[0].inputs for run in going]
            losses = step.step([each for each in inputs if each])
            for run, own_losses in zip(going, losses, strict=True):
                if id(run) in behind:
                    run.record_step(own_losses)
            shared.show()
        going = [run for run in going if run.inputs]


def take_steps_side_by_side(runs: Sequence[StackedRun], shared: "SharedConsole") -> None:
    """Let every run take its own steps on a stream of the GPU, so that they overlap."""
    shared.console.print(f"{len(runs)} runs side by side, each on a stream of the GPU")
    for run, stream in zip(runs, streams(len(runs)), strict=True):
        run.stream = stream
    torch.cuda.synchronize()
    going = [run for run in runs if run.prepare_step()]
    while going:
        going = [run for run in going if run.take_step()]
        shared.show()
    torch.cuda.synchronize()


def streams(count: int) -> list[AbstractContextManager[Any]]:
    """Return contexts that select new streams of the GPU."""
    return [torch.cuda.stream(torch.cuda.Stream()) for _ in range(count)]


class SharedConsole:
    """A console for several runs, which shows them together after every step."""

    def __init__(self, console: Console):
        self.console = console
        self.losses: dict[int, list[Mapping[str, float]]] = {}  # by step
        self.scores: dict[tuple[int, str, Metric], list[float]] = {}

    def show(self) -> None:
        """Show the mean of their losses, and the mean and range of their scores."""
        for step, by_run in self.losses.items():
            means = {}
            for task in dict.fromkeys(task for losses in by_run for task in losses):
                with_targets = [losses[task] for losses in by_run if task in losses]
                means[task] = sum(with_targets) / len(with_targets)
            self.console.log_losses(step, means)
        for (step, prefix, metric), values in self.scores.items():
            numbers = sum(values) / len(values), min(values), max(values)
            mean, least, most = map(metric.format, numbers)
            of = f"{least} to {most} of {len(values)} seeds"
            self.console.print(f"  step {step:,}  {prefix}validation {metric.name} {mean} ({of})")
        self.losses.clear()
        self.scores.clear()


class PrefixedConsole(Console):
    """The console of one of them: lines begin with its name, numbers go to the shared console."""

    def __init__(self, shared: SharedConsole, name: str):
        super().__init__(shared.console.console)
        self.shared, self.name = shared, name

    def print(self, text: str) -> None:
        self.shared.console.print(f"{self.name}  {text.strip()}")

    def advance(self, step: int) -> None:
        self.shared.console.advance(step)

    def log_losses(self, step: int, losses: Mapping[str, float]) -> None:
        self.shared.losses.setdefault(step, []).append(losses)

    def log_scores(
        self, step: int, prefix: str, metrics: Sequence[Metric], values: Mapping[str, float]
    ) -> None:
        for metric in metrics:
            scores = self.shared.scores.setdefault((step, prefix, metric), [])
            scores.append(values[metric.name])
