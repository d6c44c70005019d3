"""The session of runs that train in one process: their progress, and the signals that stop them."""

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Protocol

from thalnet_mtl.console import Console
from thalnet_mtl.signals import StopRequest, stop_signals
from thalnet_mtl.training.checks import without_effect
from thalnet_mtl.training.context import RunContext

AGREE_EVERY = 8  # steps, after which ranks look whether one of them is asked to stop


class Stoppable(Protocol):
    """A trainer, as a session sees it."""

    run: RunContext
    stop_requested: Callable[[], bool]


@contextmanager
def session(trainers: Sequence[Stoppable], console: Console, title: str) -> Iterator[None]:
    """Show the progress of runs that are trained together, and stop them on a signal."""

    def announce(count: int) -> None:
        console.print("stopping and saving; press Ctrl+C again to abort")

    ranks = trainers[0].run.ranks
    first = min(trainer.run.step for trainer in trainers)
    for line in without_effect(trainers[0].run.config):
        console.print(f"note: {line}")
    with (
        console.progress(title, first, trainers[0].run.total_steps),
        stop_signals(announce, interrupts=not ranks.several) as stop,
        garbage_of_training_only(),
    ):
        for trainer in trainers:
            trainer.stop_requested = partial(stop_agreed, trainer.run, stop)
        yield


@contextmanager
def garbage_of_training_only() -> Iterator[None]:
    """Let garbage collections leave out what is there already, most of all the imported modules.

    A full collection visits every object. In a long stream the libraries' own would cost more than
    all that the stream has made. None is made here: a program with many short runs would feel it.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def stop_agreed(run: RunContext, stop: StopRequest) -> bool:
    """Return whether the user asked to stop; several ranks agree on it at some steps only."""
    if run.ranks.several:
        return run.step % AGREE_EVERY == 0 and run.ranks.any(stop.requested())
    return stop.requested()
