"""Checks of the experiences of a run that is built, before its first step."""

from collections.abc import Sequence

from thalnet_mtl.config.schema import Config
from thalnet_mtl.errors import UserError
from thalnet_mtl.tasks.stream import Experience
from thalnet_mtl.training.context import RunContext


def check_early_stopping(run: RunContext) -> None:
    """Raise if the best weights of an experience may be those of another network."""
    config = run.config
    if run.keeps_best and config.changes:
        raise UserError(
            "train.patience and changes: when an experience may end early, nobody knows to which "
            "one the step of a change belongs; leave one of them out."
        )
    if run.keeps_best and run.state.rule.acts_within:
        raise UserError(
            f"train.patience: growth.when {config.growth.when} changes the network within an "
            f"experience, so that its best weights may not fit; leave one of them out."
        )


def check_stream(config: Config, stream: Sequence[Experience]) -> None:
    """Raise if options do not fit the experiences."""
    shortest = min(experience.stop - experience.start for experience in stream)
    if config.train.boundaries != "announced":  # one schedule for the whole stream
        shortest = stream[-1].stop
    if config.train.warmup >= shortest:
        raise UserError(
            f"train.warmup ({config.train.warmup}) must be smaller than the shortest experience "
            f"({shortest} steps)."
        )
