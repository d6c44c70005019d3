"""A stream of experiences: the tasks that a run learns one after another."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

from thalnet_mtl.config.schema import Config, ExperienceConfig
from thalnet_mtl.errors import UserError, unknown


@dataclass(frozen=True)
class Experience:
    """Tasks that are learned together, in the steps from ``start`` up to, not including, ``stop``.

    ``number`` counts from 1. Where boundaries are hidden, ``shares`` are those of the tasks in a
    batch, with the sum 1, and in ``blur`` steps around ``start`` they rise from 0.
    """

    number: int
    tasks: tuple[str, ...]
    start: int
    stop: int
    shares: tuple[float, ...] = ()
    blur: int = 0


def make_stream(
    config: Config, steps_per_epoch: Callable[[Sequence[str]], int]
) -> list[Experience]:
    """Return the experiences of a run: those of the configuration, or a single one of all tasks.

    Args:
        config: the configuration of the run.
        steps_per_epoch: returns the steps of one epoch over some tasks.

    Raises:
        UserError: a task is unknown, only scored, in no experience, or twice in one.
    """
    options = config.train
    if not config.stream:
        names = tuple(config.trained_tasks)
        steps = options.steps or options.epochs * steps_per_epoch(names)
        return [Experience(1, names, 0, steps)]
    check_experiences(config)
    stream: list[Experience] = []
    for entry in config.stream:
        shares, steps = _shares(entry, config), entry.steps or options.steps
        if not steps and shares:  # one pass
            passes = zip(entry.tasks, shares, strict=True)
            steps = int(min(steps_per_epoch([task]) / share for task, share in passes))
        steps = steps or options.epochs * steps_per_epoch(entry.tasks)
        start = stream[-1].stop if stream else 0
        span = start, start + steps
        stream.append(Experience(len(stream) + 1, entry.tasks, *span, shares, entry.blur))
    _check_blur(stream)
    return stream


def check_experiences(config: Config) -> None:
    """Raise ``UserError`` if the stream of a configuration and its tasks do not belong together."""
    for entry in config.stream:
        _check_tasks(entry.tasks, config)
        _shares(entry, config)
    missing = set(config.trained_tasks) - {task for entry in config.stream for task in entry.tasks}
    if config.stream and missing:
        raise UserError(f"stream: no experience has task '{min(missing)}'.")


def with_ends(stream: Sequence[Experience], ends: Sequence[int]) -> list[Experience]:
    """Return a stream whose first experiences have ended at other steps; the others follow them.

    Args:
        stream: as it was planned.
        ends: the last steps of as many experiences as are over.
    """
    moved: list[Experience] = []
    for planned, end in zip_longest(stream, ends):
        start = moved[-1].stop if moved else 0
        stop = start + planned.stop - planned.start if end is None else end
        moved.append(replace(planned, start=start, stop=stop))
    return moved


def _shares(entry: ExperienceConfig, config: Config) -> tuple[float, ...]:
    """Return the shares of the tasks of an experience in a batch; () if each has its own batch."""
    if config.train.boundaries == "announced":
        if entry.shares or entry.blur:
            raise UserError(
                f"stream: {'shares' if entry.shares else 'blur'} mixes tasks within a batch; set "
                f"train.boundaries to hidden, or leave it out."
            )
        return ()
    shares, names = entry.shares or (1.0,) * len(entry.tasks), ", ".join(entry.tasks)
    if len(shares) != len(entry.tasks):
        raise UserError(f"stream: {len(shares)} shares for {names}; give one for each, or none.")
    if not all(0 < share < math.inf for share in shares):
        raise UserError(f"stream: shares of {names} must be above 0, got {list(shares)}.")
    return tuple(share / sum(shares) for share in shares)


def _check_blur(stream: Sequence[Experience]) -> None:
    """Check that an experience begins, and its share has risen, before it gives way to the next."""
    for experience, following in zip(stream, [*stream[1:], None], strict=True):
        before = experience.start - experience.blur // 2
        risen, falls = before + experience.blur, experience.stop
        falls -= following.blur // 2 if following else 0
        if before < 0 or (experience.number == 1 and experience.blur) or risen > falls:
            raise UserError(
                f"stream: experience {experience.number} has {falls - experience.start} steps "
                f"before the next one mixes in; a blur of {experience.blur} does not fit."
            )


def _check_tasks(tasks: Sequence[str], config: Config) -> None:
    """Check that an experience names tasks of the run, each of them once."""
    for task in tasks:
        if task not in config.named_tasks:
            raise UserError(f"stream: {unknown('task', task, config.named_tasks)}")
        if config.named_tasks[task].only_scored:
            raise UserError(f"stream: task '{task}' is only scored, so no experience trains it.")
        if tasks.count(task) > 1:
            raise UserError(f"stream: an experience names task '{task}' twice.")
