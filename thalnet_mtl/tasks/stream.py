"""A stream: experiences one after another, each a span of the steps of a run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from thalnet_mtl.config.schema import Config
from thalnet_mtl.errors import UserError, unknown


@dataclass(frozen=True)
class Experience:
    """Tasks that are learned together, from step ``start`` until step ``stop``; the first is 1."""

    number: int
    tasks: tuple[str, ...]
    start: int
    stop: int


def make_stream(config: Config, epoch: Callable[[Sequence[str]], int]) -> list[Experience]:
    """The experiences of a run; a single one of all tasks where the configuration names none.

    ``epoch`` are the steps of a pass over some tasks.

    Raises:
        UserError: a task is unknown, in no experience, or twice in one.
    """
    named, options = config.named_tasks, config.train
    found: list[Experience] = []
    for entry in config.stream:
        for task in entry.tasks:
            if task not in named:
                raise UserError(f"stream: {unknown('task', task, named)}")
            if entry.tasks.count(task) > 1:
                raise UserError(f"stream: an experience names task '{task}' twice.")
        steps = entry.steps or options.steps or options.epochs * epoch(entry.tasks)
        start = found[-1].stop if found else 0
        found.append(Experience(len(found) + 1, entry.tasks, start, start + steps))
    missing = set(named) - {task for one in found for task in one.tasks}
    if found and missing:
        raise UserError(f"stream: no experience has task '{min(missing)}'.")
    if not found:
        names = tuple(named)
        found = [Experience(1, names, 0, options.steps or options.epochs * epoch(names))]
    return found
