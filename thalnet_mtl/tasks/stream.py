"""A stream of experiences: the tasks that a run learns one after another."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from thalnet_mtl.config.schema import Config
from thalnet_mtl.errors import UserError, unknown


@dataclass(frozen=True)
class Experience:
    """Tasks that are learned together, in the steps from ``start`` up to, not including, ``stop``.

    ``number`` counts from 1.
    """

    number: int
    tasks: tuple[str, ...]
    start: int
    stop: int


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
    stream: list[Experience] = []
    for entry in config.stream:
        _check_tasks(entry.tasks, config)
        steps = entry.steps or options.steps or options.epochs * steps_per_epoch(entry.tasks)
        start = stream[-1].stop if stream else 0
        stream.append(Experience(len(stream) + 1, entry.tasks, start, start + steps))
    missing = set(config.trained_tasks) - {task for entry in config.stream for task in entry.tasks}
    if missing:
        raise UserError(f"stream: no experience has task '{min(missing)}'.")
    return stream


def _check_tasks(tasks: Sequence[str], config: Config) -> None:
    """Check that an experience names tasks of the run, each of them once."""
    for task in tasks:
        if task not in config.named_tasks:
            raise UserError(f"stream: {unknown('task', task, config.named_tasks)}")
        if config.named_tasks[task].only_scored:
            raise UserError(f"stream: task '{task}' is only scored, so no experience trains it.")
        if tasks.count(task) > 1:
            raise UserError(f"stream: an experience names task '{task}' twice.")
