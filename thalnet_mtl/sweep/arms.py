"""The arms of a search for settings, and the configurations of their trials.

An arm is a point of the grid, such as a strategy. All arms get the same number of trials, and a
sampled field that an arm does not have is left out of its trials.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from inspect import Parameter
from itertools import product
from typing import Any

from thalnet_mtl.config.declarations import declaration, declarations, is_declared
from thalnet_mtl.config.load import check_seeds, flatten, key_names_something, names_first
from thalnet_mtl.config.options import field_names
from thalnet_mtl.config.schema import Config
from thalnet_mtl.errors import UserError
from thalnet_mtl.sweep.plan import (
    PlannedRun,
    configure,
    format_value,
    point_name,
)
from thalnet_mtl.sweep.space import (
    Distribution,
    Sample,
    check_keys,
    distribution_of,
    samples_for,
)

TUNED_ON = 2  # experiences of a stream that trials train by default

WithoutEffect = Callable[[Config, str], str]  # of a configuration and a field: why; '' if it has


@dataclass(frozen=True)
class Arm:
    """A point of the grid, with the fields that its trials sample."""

    name: str  # 'strategy=ewc'; '' if it is the only one
    run: str  # name in the ``runs`` of the configuration; '' if there are none
    point: Mapping[str, Any]  # values of the grid
    base: Config
    experiences: int  # of its whole stream; 0 without one
    space: Mapping[str, Distribution]
    left_out: Mapping[str, str]  # sampled fields that no trial of it has, and why
    without_effect: WithoutEffect
    _kept: dict[str, dict[str, str]] = field(default_factory=dict)

    def configure(self, values: Mapping[str, Any], seed: int) -> Config:
        """Return the configuration of a whole run with sampled values."""
        return configure(self.base, {**self.point, **values}, seed, "--sample")

    def trial_values(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return sampled values without those that a trial with these values does not have."""
        names = {key: value for key, value in values.items() if key_names_something(key)}
        if repr(names) not in self._kept:
            reasons: dict[str, str] = {}
            for key, value in values.items():
                if key not in names:
                    reason = lacks(self.configure(names, 0), key)
                    with_key = names if reason else names | {key: value}
                    reason = reason or self.without_effect(self.configure(with_key, 0), key)
                    reasons |= {key: reason} if reason else {}
            self._kept[repr(names)] = reasons
        return {key: value for key, value in values.items() if key not in self._kept[repr(names)]}


def make_arms(
    bases: Mapping[str, Config],
    planned: Sequence[PlannedRun],
    samples: Sequence[Sample],
    flags: Mapping[str, str],
    without_effect: WithoutEffect,
) -> list[Arm]:
    """Return the arms of a tuning, in the order of the grid.

    Args:
        bases: the configurations that the grid is applied to, by name.
        planned: a run for every point of the grid.
        samples, flags: of the command.
        without_effect: see ``Arm``.

    Raises:
        UserError: a key or a distribution is not allowed, or no arm has a sampled field.
    """
    fixed = {key: f"--{key}" for key in flags}
    fixed |= {key: f"--grid {key}" for key in planned[0].values}
    names = [name for arm in planned for name in _names(arm)]
    check_keys(samples, fixed, list(dict.fromkeys(names)))
    arms = [_arm(p, bases[p.run], samples, without_effect) for p in planned]
    for sample in samples:
        reasons = [arm.left_out.get(sample.key, "") for arm in arms]
        if all(reasons):
            raise UserError(f"{sample.where} has no effect: {reasons[0]}. Leave it out.")
    return arms


def _names(planned: PlannedRun) -> list[str]:
    """Return what a sample can name an arm by: its values in the grid, and its run."""
    values = [format_value(value) for value in planned.values.values()]
    return [*values, *([planned.run] if planned.run else [])]


def _arm(
    planned: PlannedRun, base: Config, samples: Sequence[Sample], without_effect: WithoutEffect
) -> Arm:
    mine = samples_for(samples, _names(planned))
    space: dict[str, Distribution] = {}
    left_out: dict[str, str] = {}
    choices: dict[str, Sequence[Any]] = {}  # of the sampled fields that name something
    point = planned.values
    for key, sample in names_first(mine):
        reason = ""
        for combination in product(*choices.values()):
            named = {**point, **dict(zip(choices, combination, strict=True))}
            config = configure(base, named, 0)
            if reason := lacks(config, key):
                continue

            def typed(value: Any, named: Mapping[str, Any] = named, sample: Sample = sample) -> Any:
                values = {**named, sample.key: value}
                return flatten(configure(base, values, 0, "--sample"))[sample.key]

            distribution = distribution_of(sample, typed)
            config = configure(base, named | {key: distribution.values[0]}, 0)
            if reason := without_effect(config, key):
                continue
            space[key] = distribution
            break
        if key not in space:
            left_out[key] = reason
        elif key_names_something(key):
            choices[key] = space[key].values
    in_order = {key: space[key] for key in mine if key in space}
    name = point_name(planned.run, point)
    length = len(planned.config.stream)
    return Arm(name, planned.run, point, base, length, in_order, left_out, without_effect)


def lacks(config: Config, key: str) -> str:
    """Return why a configuration has no field ``section.field``, '' if it has or none could have.

    >>> lacks(Config(), "strategy.strength")
    "strategy 'naive' has no option 'strength'"
    """
    section, _, name = key.partition(".")
    named = {
        "strategy": ("strategy", config.train.strategy),
        "growth": ("growth", config.growth.when),
        "model": ("body", config.model.body),
        "task": ("task", config.task.name),
    }
    if section not in named or name in field_names(getattr(config, section)):
        return ""
    kind, entry = named[section]
    if not is_declared(kind, entry):
        return ""
    parameters = declaration(kind, entry).options
    takes_all = any(p.kind is Parameter.VAR_KEYWORD for p in parameters.values())
    having = any(name in other.options for other in declarations(kind).values())
    if name in parameters or takes_all or not having:
        return ""
    return f"{kind} '{entry}' has no option '{name}'"


def describe_fields(arms: Sequence[Arm]) -> list[str]:
    """Return a line for every sampled field that arms leave out, or may understand differently."""
    lines = _shared_options(arms)
    for key in dict.fromkeys(key for arm in arms for key in arm.left_out):
        by_reason: dict[str, list[str]] = {}
        for arm in arms:
            if key in arm.left_out:
                by_reason.setdefault(arm.left_out[key], []).append(arm.name)
        for reason, names in by_reason.items():
            lines.append(f"{key} is not sampled for {', '.join(names)}: {reason}")
    for arm in arms:
        if not arm.space:
            lines.append(f"{arm.name} has none of the sampled fields: its trials are all the same "
                         f"run, which is trained once")  # fmt: skip
    return lines


def _shared_options(arms: Sequence[Arm]) -> list[str]:
    """Return a line for every option that several strategies or rules of growth have.

    They may mean different things by it, on different scales.
    """
    lines = []
    for section, naming in (("strategy", "train.strategy"), ("growth", "growth.when")):
        names: dict[tuple[str, Distribution], list[str]] = {}
        for arm in arms:
            config = arm.configure({}, 0)
            for key, distribution in arm.space.items():
                is_option = key.partition(".")[2] not in field_names(getattr(config, section))
                if key.startswith(f"{section}.") and is_option and naming in arm.point:
                    names.setdefault((key, distribution), []).append(arm.point[naming])
        for (key, _), having in names.items():
            if len(several := list(dict.fromkeys(having))) > 1:
                lines.append(
                    f"{key} is sampled alike for {', '.join(several)}; for another distribution "
                    f"in one of them, write --sample {several[-1]}:{key}=…"
                )
    return lines


def trial_seeds(arms: Sequence[Arm], seeds: Sequence[int], flags: Mapping[str, str]) -> list[int]:
    """Return the seeds of every trial: those that are given, or that of the configurations."""
    check_seeds(seeds, flags)
    configured = list(dict.fromkeys(arm.base.train.seed for arm in arms))
    if not seeds and len(configured) > 1:
        raise UserError("the runs have different seeds; give the seeds of all trials: --seeds N.")
    return list(seeds) or configured


def new_seeds(count: int, used: Sequence[int]) -> list[int]:
    """Return the smallest seeds that no trial has used.

    >>> new_seeds(3, [1])
    [0, 2, 3]
    """
    return [seed for seed in range(count + len(used)) if seed not in used][:count]


def experiences_to_tune_on(text: str | None, lengths: Mapping[str, int]) -> dict[str, int]:
    """Return the number of experiences that the trials of each arm train; 0 without a stream.

    Args:
        text: a number or 'all', from the command; None for the default.
        lengths: of the whole stream of each arm; 0 or 1 without one.
    """
    longest = max(lengths.values())
    if text is not None and longest < 2:
        raise UserError("--tune-on is for streams, and there is no stream of several experiences.")
    if text not in (None, "all") and not (text.isdecimal() and 1 <= int(text) <= longest):
        raise UserError(
            f"--tune-on {text}: expected a number of experiences from 1 to {longest}, or all."
        )
    count = longest if text == "all" else TUNED_ON if text is None else int(text)
    spare = 1 if text is None else 0  # by default a later experience is left
    return {arm: min(count, n - spare) if n > 1 else 0 for arm, n in lengths.items()}


def first_experiences(config: Config, count: int) -> Config:
    """Return a configuration of the first experiences of a stream, without all other tasks.

    The data of later tasks are not even loaded, nor are those of tasks that are only scored.
    """
    if not 0 < count < len(config.stream):
        return config
    stream = config.stream[:count]
    trained = {task for experience in stream for task in experience.tasks}
    tasks = {name: task for name, task in config.tasks.items() if name in trained}
    return replace(config, stream=stream, tasks=tasks)
