"""A stream that a configuration names, written out as its experiences and their tasks.

A stream is a registered function. It returns the experiences in order, each as a mapping from the
names of its tasks to their entries in ``tasks``::

    @register("stream", "both_orders")
    def both_orders(first: str = "digits_rows", second: str = "digits_parity"):
        return [{first: {}}, {second: {}}, {first: {}}]

Its arguments are options: ``stream: {name: both_orders, second: solar}``.
"""

from collections.abc import Collection
from dataclasses import fields, replace
from importlib import import_module
from typing import Any

from thalnet_mtl.config.declarations import declaration
from thalnet_mtl.config.experience import ExperienceConfig
from thalnet_mtl.config.options import check_options, field_names
from thalnet_mtl.config.overlay import OPTIONS, overlay
from thalnet_mtl.config.schema import Config, NamedStream, NamedTaskConfig
from thalnet_mtl.errors import UserError
from thalnet_mtl.registry import registered_now

MOST_EXPERIENCES = 100_000  # more is a typing error


def write_out_stream(config: Config, where: str = "") -> Config:
    """Return a configuration whose stream is a list of experiences, with the tasks of them.

    The tasks stand before those of ``tasks``. An entry of ``tasks`` with the name of one of them is
    laid over it, and so is ``stream.each`` over all.

    Args:
        config: the configuration.
        where: the run that it is of, for error messages.

    Raises:
        UserError: there is no such stream, an option is wrong, or it does not return experiences.
    """
    stream: Any = config.stream
    if not isinstance(stream, NamedStream):
        return config
    where = f"{where}: stream" if where else "stream"
    options = check_options("stream", stream.name, stream.options, where, field_names(stream))
    if stream.name not in registered_now("stream"):  # imports nothing but the module of the stream
        import_module(declaration("stream", stream.name).module)
    experiences = registered_now("stream")[stream.name](**options)
    if not _are_experiences(experiences):
        raise UserError(
            f"{where}: stream '{stream.name}' returns no list of experiences, each a mapping from "
            f"the names of its tasks to their entries: [{{'digits_rows': {{}}}}, …]."
        )
    tasks: dict[str, NamedTaskConfig] = {}
    for name, entry in (pair for experience in experiences for pair in experience.items()):
        task = overlay(NamedTaskConfig(), {"name": name} | entry, f"{where} '{stream.name}'")
        tasks[name] = _lay_over(task, stream.each)
    for name, task in config.tasks.items():
        tasks[name] = _lay_over(tasks[name], task, ("", name)) if name in tasks else task
    listed = tuple(ExperienceConfig(tasks=tuple(experience)) for experience in experiences)
    return replace(config, stream=listed, tasks=tasks)


def _are_experiences(value: Any) -> bool:
    """Return whether a stream has returned at least one experience, each of at least one task."""
    return (
        isinstance(value, list)
        and 0 < len(value) <= MOST_EXPERIENCES
        and all(isinstance(experience, dict) and experience for experience in value)
        and all(isinstance(entry, dict) for experience in value for entry in experience.values())
    )


def _lay_over(
    task: NamedTaskConfig, over: NamedTaskConfig, unnamed: Collection[str] = ("",)
) -> NamedTaskConfig:
    """Return a task with those fields of another entry that are not at their defaults.

    An entry of another task replaces it.

    Args:
        task: of the stream.
        over: fields and options to be laid over it.
        unnamed: names by which that entry names no other task.
    """
    if over.name not in (*unnamed, task.name):
        return over
    default = NamedTaskConfig()
    changed = {
        leaf.name: getattr(over, leaf.name)
        for leaf in fields(over)
        if leaf.name not in ("name", OPTIONS)
        and getattr(over, leaf.name) != getattr(default, leaf.name)
    }
    return replace(task, **changed, options={**task.options, **over.options})
