"""Tasks that are given from Python, beside those of the registry."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

from thalnet_mtl.config.schema import Config
from thalnet_mtl.errors import UserError, unknown
from thalnet_mtl.registry import entries, registered
from thalnet_mtl.tasks.base import Task

UnregisteredTasks = Mapping[str, Task] | Iterable[Task]  # by name, or under their own names


@contextmanager
def unregistered_tasks(tasks: UnregisteredTasks, config: Config) -> Iterator[Mapping[str, Task]]:
    """Let a configuration name some tasks, within a ``with`` block, as if they were registered.

    Yields:
        the tasks by the names that the configuration has for them.

    Raises:
        UserError: something is no task, has the name of a registered task, or is not named by the
            configuration.
    """
    named = {str(name): task for name, task in _named(tasks)}
    wanted = [task.name for task in config.named_tasks.values()]
    for name in named:
        if name not in wanted:
            raise UserError(
                f"tasks: {unknown('task', name, wanted)} The configuration must name it: "
                f"load_config(task={{'name': '{name}'}})."
            )
    with registered("task", {name: _maker(task) for name, task in named.items()}):
        yield named


def check_registered(config: Config, where: str) -> None:
    """Raise if a run needs a task that nobody has registered, as those given from Python."""
    registered_names = entries("task")
    for task in config.named_tasks.values():
        if task.name not in registered_names:
            raise UserError(
                f"{where} has a task '{task.name}' that is not registered. If it was given from "
                f"Python, give it again: load_run(folder, tasks=[task]). The command line knows "
                f"registered tasks alone, of a plug-in for example."
            )


def _maker(task: Task) -> Callable[[], Task]:
    """Return what the registry holds of a task: a function without options."""
    return lambda: task


def _named(tasks: UnregisteredTasks) -> Iterator[tuple[str, Task]]:
    if isinstance(tasks, Task):
        tasks = [tasks]
    seen = set[str]()
    for entry in tasks.items() if isinstance(tasks, Mapping) else tasks:
        name, task = entry if isinstance(entry, tuple) else (getattr(entry, "name", ""), entry)
        if not isinstance(task, Task):
            raise UserError(f"tasks: expected tasks, got {type(task).__name__}.")
        if name in seen:
            raise UserError(f"tasks: two of them have the name '{name}'.")
        seen.add(name)
        yield name, task
