"""Options of what a configuration names: the keyword arguments of a registered function or class.

A task, a body, a strategy, a rule of growth, a loss, a metric or a tracker declares its options by
the arguments of its function or constructor, with types and defaults::

    @register("task", "permuted_mnist")
    def permuted_mnist(permutation: int = 0) -> SequenceTask: ...

and a configuration gives them beside the name: ``task: {name: permuted_mnist, permutation: 3}``.
"""

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from typing import Any, TypeVar

import yaml

from thalnet_mtl.config.declarations import (
    declaration,
    declarations,
    fact,
    is_declared,
)
from thalnet_mtl.config.overlay import OPTIONS, as_plain
from thalnet_mtl.config.plugins import without_unused
from thalnet_mtl.config.schema import Config, EntryConfig, TaskConfig
from thalnet_mtl.config.values import check_type
from thalnet_mtl.errors import UserError, unknown

SomeTask = TypeVar("SomeTask", bound=TaskConfig)


def check_options(
    kind: str,
    name: str,
    options: Mapping[str, Any],
    where: str,
    allowed_fields: Iterable[str] = (),
) -> dict[str, Any]:
    """Return the options of an entry of the registry in the types of their parameters.

    Args:
        kind, name: of the entry.
        options: as a file, a flag or Python gives them.
        where: the section that they come from, for error messages.
        allowed_fields: fields of that section, for error messages.

    Raises:
        UserError: there is no such entry; an option does not exist, has a wrong type or is missing.
    """
    parameters = declaration(kind, name).options
    declared = {n: p for n, p in parameters.items() if p.kind is not p.VAR_KEYWORD}
    clash = [n for n in declared if n in allowed_fields]
    if clash:
        raise UserError(
            f"{kind} '{name}': its argument '{clash[0]}' is also a field of {where}; rename it."
        )
    for option in options:
        if option not in declared and declared == parameters:
            allowed = [*allowed_fields, *declared]
            raise UserError(f"{where}: {_unknown_option(kind, name, option, allowed)}")
    for option, parameter in declared.items():
        if parameter.default is parameter.empty and option not in options:
            raise UserError(
                f"{where}: {kind} '{name}' needs '{option}'. Its options: {', '.join(declared)}."
            )
    return {
        option: _checked(value, declared[option], f"{where}.{option}")
        if option in declared
        else value
        for option, value in options.items()
    }


def task_options(
    of: str | dict[str, Any], where: str, more: Mapping[str, Any] | None = None
) -> tuple[str, dict[str, Any]]:
    """Return the name of a task that another one or a stream is made of, and its checked options.

    Args:
        of: its name, or a mapping of its ``name`` and options.
        where: what is made of it, for error messages.
        more: further options of it.
    """
    options: dict[str, Any] = dict(of) if isinstance(of, dict) else {"name": of}
    name = options.pop("name", "")
    if not isinstance(name, str) or not name:
        raise UserError(f"{where}: of needs the name of a task, as in of: {{name: mnist_rows}}.")
    return name, check_options("task", name, {**options, **(more or {})}, f"{where}: of", ("name",))


def resolve_options(
    config: Config, where: str = "", complete: bool = False, strategy: bool = True
) -> Config:
    """Return the configuration with all options checked, in the types of their parameters.

    Args:
        config: the configuration.
        where: the run that it is of, for error messages.
        complete: whether to add the defaults of the options that are not given, but for those
            that an entry lists as ``left_out``, and to drop the plugins that are not used.
            Otherwise what has no options is left alone, and so is a name that is not registered, or
            not yet.
        strategy: whether to check the options of the strategy.
    """
    resolve = partial(_resolve, complete=complete)
    start = f"{where}: " if where else ""
    if config.tasks:
        tasks = {n: _task(task, f"{start}tasks.{n}", complete) for n, task in config.tasks.items()}
        config = replace(config, tasks=tasks)
    else:
        config = replace(config, task=_task(config.task, f"{start}task", complete))
    model = resolve("body", config.model.body, config.model, f"{start}model")
    growth = resolve("growth", config.growth.when, config.growth, f"{start}growth")
    trackers = [resolve("tracker", t.name, t, f"{start}trackers") for t in config.trackers]
    config = replace(config, model=model, growth=growth, trackers=tuple(trackers))
    if not strategy:
        return config
    section = resolve("strategy", config.train.strategy, config.strategy, f"{start}strategy")
    config = replace(config, strategy=section)
    return without_unused(config) if complete else config


def drop_options_of(config: Config, strategy: str) -> Config:
    """Return the configuration without the options of a strategy that it does not train with.

    Options that the configured strategy has as well are kept.
    """
    theirs, ours = (declared_options("strategy", s) for s in (strategy, config.train.strategy))
    kept = {n: value for n, value in config.strategy.options.items() if n not in theirs - ours}
    return replace(config, strategy=replace(config.strategy, options=kept))


def declared_options(kind: str, name: str) -> set[str]:
    """Return the options that an entry of the registry declares; none if there is no entry."""
    return set(declaration(kind, name).options) if is_declared(kind, name) else set()


def without_options(config: Config) -> Config:
    """Return the configuration without the options of what it names."""

    def bare(section: Any) -> Any:
        return replace(section, options={})

    def bare_task(task: SomeTask) -> SomeTask:
        metrics = tuple(map(bare, task.metrics))
        return replace(task, options={}, loss=bare(task.loss), metrics=metrics)

    return replace(
        config,
        task=bare_task(config.task),
        tasks={name: bare_task(task) for name, task in config.tasks.items()},
        model=bare(config.model),
        growth=bare(config.growth),
        strategy=bare(config.strategy),
        trackers=tuple(map(bare, config.trackers)),
    )


def field_names(section: Any) -> list[str]:
    """Return the names of the fields of a section that are not options."""
    return [leaf.name for leaf in fields(section) if leaf.name != OPTIONS]


def _unknown_option(kind: str, name: str, option: str, allowed: Sequence[str]) -> str:
    """Return an error line for an option that an entry does not have; names those that have it."""
    line = f"{kind} '{name}' has no option '{option}'."
    if allowed:
        line = str(unknown("field", option, allowed))
    having = [other for other, entry in declarations(kind).items() if option in entry.options]
    return f"{line} It is an option of {', '.join(having)}." if having else line


def as_yaml(value: Any) -> str:
    """Return a default as it is written in YAML: ``true``, ``null``, ``[x, y]``."""
    text = yaml.safe_dump(as_plain(value), default_flow_style=True, width=1000)
    return text.partition("\n")[0]


def _task(task: SomeTask, where: str, complete: bool) -> SomeTask:
    """Return a task with its options, and those of its loss and metrics, checked."""
    resolve = partial(_resolve, complete=complete)
    loss: EntryConfig = resolve("loss", task.loss.name, task.loss, f"{where}.loss")
    metrics: Sequence[EntryConfig] = [
        resolve("metric", metric.name, metric, f"{where}.metrics") for metric in task.metrics
    ]
    task = replace(task, loss=loss, metrics=tuple(metrics))
    resolved: SomeTask = resolve("task", task.name, task, where)
    return resolved


def _resolve(kind: str, name: str, section: Any, where: str, complete: bool) -> Any:
    """Return a section with the options of what it names checked; see ``resolve_options``."""
    if not name:
        if section.options:
            raise UserError(f"{where}: options without a name: {', '.join(section.options)}.")
        return section
    if not complete and (not section.options or not is_declared(kind, name)):
        return section
    options = check_options(kind, name, section.options, where, field_names(section))
    if complete:
        defaults = _defaults(declaration(kind, name).options)
        left_out = fact(kind, name, "left_out", ())
        options = {
            option: value
            for option, value in (defaults | options).items()
            if option not in left_out or value != defaults[option]
        }
    return replace(section, options=as_plain(options))


def _defaults(parameters: Mapping[str, inspect.Parameter]) -> dict[str, Any]:
    """Return the defaults that are plain data."""
    plain = (bool, int, float, str, list, tuple, dict)
    return {
        name: parameter.default
        for name, parameter in parameters.items()
        if isinstance(parameter.default, plain) or parameter.default is None
    }


def _checked(value: Any, parameter: inspect.Parameter, where: str) -> Any:
    kind, default = parameter.annotation, parameter.default
    if kind is parameter.empty or value is default:
        return value
    if isinstance(value, float) and value == default:  # infinite, read back from a run
        return value
    return check_type(value, kind, where)
