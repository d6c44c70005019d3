"""The contract of a rule of growth, and the rule by which nothing but tasks is added."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from typing import Any, ClassVar

from torch import nn

from thalnet_mtl.config.options import check_options, field_names
from thalnet_mtl.config.schema import Config
from thalnet_mtl.errors import UserError
from thalnet_mtl.models.change import TopologyChange
from thalnet_mtl.models.network import Network
from thalnet_mtl.registry import lookup, register
from thalnet_mtl.runs.topology_file import DecisionEntry
from thalnet_mtl.strategies.base import check_subclass
from thalnet_mtl.tasks.stream import Experience
from thalnet_mtl.topology.spec import TaskSpec
from thalnet_mtl.training.context import RunContext
from thalnet_mtl.training.growth.modules import add_tasks, attach_modules, freeze_tasks
from thalnet_mtl.training.topology_changes import on_topology_change


class GrowthRule:
    """A rule of growth: what is attached, opened and removed along a stream.

    A run calls ``begin_experience`` before the first step of each experience, ``before_step``
    before each of its other steps, and ``end_experience`` after its last step, before its scores.
    Each changes the network and returns the changes, in order; optimizer, carried states, strategy
    and log of the run then follow them. By default a new task gets encoders and a head. Register a
    rule with ``@register("growth", NAME)``. The further arguments of its ``__init__`` are its
    options in a configuration: ``growth: {when: every_few, every: 3}`` or ``--growth.every 3``.

    >>> class EveryFew(GrowthRule):
    ...     def __init__(self, run, every: int = 2):
    ...         super().__init__(run)
    ...         self.every = every
    ...     def begin_experience(self):
    ...         return self.add_tasks(attach=self.experience.number % self.every == 0)

    A rule is built once, before the first step. It is then rehearsed on a copy of the network, so
    that what cannot be built, or is over the budget, is known at once: ``rehearse_begin`` is called
    for each experience, and ``rehearse_within`` for all of them, and for each one alone.

    ``grows`` says whether a task gets its head only when its first experience begins; otherwise
    all have theirs from the start. ``decides`` says that it records what a new task gets, to be
    compared with the answers in ``stream: [{expect: …}]``. ``separate_rng`` says that the run draws
    the new parameters from a random stream of their own; a rule that trains candidates takes care
    of that itself. ``needs_new_tasks`` says that it does nothing where all experiences share a
    head; a run says so then. ``needs_boundaries`` says why it does not work with hidden boundaries,
    '' if it does: ``begin_experience`` is then called once, before the first step, and
    ``end_experience`` never.

    Where several processes train a run (``torchrun``), each decides for itself. Scores, losses and
    weights are the same in all of them to the bit, so that a rule must only do the same with them,
    and draw random numbers from torch. Processes whose networks differ end with an error.

    Args:
        run: the run that the rule is part of. The network changes and may be replaced, so read it
            from the run each time.

    Raises:
        UserError: when a subclass is defined whose ``__init__`` does not take the run first, or
            with a public method that would never be called, because its name is nearly that of one
            of these. A rule may raise it for what it cannot do.
    """

    grows: ClassVar[bool] = True
    decides: ClassVar[bool] = False
    separate_rng: ClassVar[bool] = True
    needs_new_tasks: ClassVar[bool] = False
    needs_boundaries: ClassVar[str] = "it acts when an experience begins or ends"

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        check_subclass(cls, GrowthRule, "rule of growth", "run")

    def __init__(self, run: RunContext):
        self.run = run

    @classmethod
    def check_config(cls, config: Config) -> None:
        """Raise ``UserError`` if the rule cannot follow a configuration, before data is loaded."""

    def begin_experience(self) -> list[TopologyChange]:
        """Change the network before the first step of an experience, and return the changes.

        The tasks that are new must get their heads here: see ``add_tasks``. If a signal stops the
        run here (``StopRequested``), the experience begins again when the run resumes.
        """
        return self.add_tasks()

    def before_step(self) -> list[TopologyChange]:
        """Change the network before a step within an experience, and return the changes.

        It is called before every step but the first, if a rule overrides it; so be quick.
        """
        return []

    def end_experience(self) -> list[TopologyChange]:
        """Change the network after the last step of an experience, and return the changes.

        The strategy, the validation and the tests after the experience see the network as it is
        then. If a signal stops the run here, this is called again when it resumes: leave the
        network as it was, or change it only at the end.
        """
        return []

    def after_step(self, loss: float) -> None:
        """Called after each step of a stream with hidden boundaries, with its loss."""

    def scored_network(self) -> nn.Module:
        """Return what is scored in place of the network, and is called as it is."""
        return self.network

    def rehearse_begin(self) -> list[TopologyChange]:
        """Make the largest change that ``begin_experience`` may make, without any training."""
        return self.begin_experience()

    def rehearse_within(self) -> list[TopologyChange]:
        """Make the largest changes that the steps of an experience may make, without training."""
        return []

    def state_dict(self) -> dict[str, Any]:
        """Return tensors and plain values, enough to resume from a checkpoint."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore ``state_dict``, whose tensors are on the CPU, to the device of the run."""

    @property
    def acts_within(self) -> bool:
        """Whether ``before_step`` does anything."""
        return type(self).before_step is not GrowthRule.before_step

    @property
    def network(self) -> Network:
        """The network that grows."""
        return self.run.network

    @property
    def experience(self) -> Experience:
        """The experience that begins, goes on or ends."""
        ends = "growth" in self.run.state.due
        return self.run.last_experience if ends else self.run.experience

    @property
    def heads(self) -> list[str]:
        """The heads of the tasks of the experience, each once; tasks may share one."""
        names = (self.run.tasks[task].head_name for task in self.experience.tasks)
        return list(dict.fromkeys(names))

    @property
    def new_heads(self) -> list[str]:
        """Those heads of the experience that the network does not have yet."""
        return [head for head in self.heads if head not in self.network.adapters]

    @property
    def shapes(self) -> dict[str, TaskSpec]:
        """The shapes of all tasks of the run, by head."""
        return {task.head_name: task.spec for task in self.run.tasks.values()}

    def add_tasks(self, attach: bool = False) -> list[TopologyChange]:
        """Add the new tasks of the experience; with ``attach`` also ``growth.modules`` for each."""
        return add_tasks(self.network, self.run.config, self.shapes, self.heads, attach)

    def attach_modules(self, suffix: str = "") -> list[TopologyChange]:
        """Attach ``growth.modules`` for the tasks of the experience, as ``growth.policy`` says.

        Args:
            suffix: of the names of the modules, where the tasks have modules of an earlier time.
        """
        return attach_modules(self.network, self.run.config, self.shapes, self.heads, suffix)

    def freeze_earlier_tasks(self) -> list[TopologyChange]:
        """Freeze the tasks that no experience trains any more: all that are not of this one."""
        heads = self.heads
        return freeze_tasks(self.network, [h for h in self.network.adapters if h not in heads])

    def record(self, decision: DecisionEntry) -> None:
        """Keep a decision: it is saved with the run, shown, and written to ``topology.json``."""
        self.run.state.growth.decisions.append(asdict(decision))


@register("growth", "never")
class Never(GrowthRule):
    """No growth: every task has its encoders and its head from the start."""

    grows: ClassVar[bool] = False
    needs_boundaries = ""


def rule_class(config: Config) -> type[GrowthRule]:
    """Return the class of the configured rule of growth."""
    entry: type[GrowthRule] = lookup("growth", config.growth.when)
    return entry


def check_rule(config: Config) -> dict[str, Any]:
    """Return the options of the configured rule; raise if it or an option cannot be used."""
    section = config.growth
    options = check_options("growth", section.when, section.options, "growth", field_names(section))
    rule_class(config).check_config(config)
    return options


def make_rule(run: RunContext) -> GrowthRule:
    """Return the configured rule of growth of a run."""
    options = check_rule(run.config)
    return rule_class(run.config)(run, **options)


def grow_if_due(run: RunContext) -> list[TopologyChange]:
    """Let the rule of a run act before the next step. Returns the changes that the run followed."""
    experience, rule = run.experience, run.state.rule
    if run.step > (experience.start if run.announced else 0):
        return _grow(run, rule.before_step) if rule.acts_within else []
    for name in experience.tasks:  # validations of an earlier experience do not count
        run.state.scores.reset_patience(name)
    return _grow(run, rule.begin_experience)


def end_growth(run: RunContext) -> list[TopologyChange]:
    """Let the rule of a run act after an experience. Returns the changes that the run followed."""
    return _grow(run, run.state.rule.end_experience) if run.announced else []


def idle_rule(run: RunContext) -> str:
    """Return a note if the rule of a run has ended without changing a module; '' otherwise."""
    rule, verbs = run.state.rule, {entry["verb"] for entry in run.state.topology_log}
    if not rule.grows or run.state.growth.decisions or verbs - {"add_task", "freeze"}:
        return ""
    return f"note: growth.when {run.config.growth.when} has attached, opened and removed nothing"


def _grow(run: RunContext, act: Callable[[], list[TopologyChange]]) -> list[TopologyChange]:
    """Let a rule act, and the run follow the changes that it returns."""
    with run.separate_rng() if run.state.rule.separate_rng else nullcontext():
        changes = listed(act())
        for change in changes:
            on_topology_change(run, change)
    return changes


def listed(changes: Any) -> list[TopologyChange]:
    """Return what a rule has returned, or raise ``UserError`` if that is no list of changes."""
    if not isinstance(changes, list) or not all(isinstance(c, TopologyChange) for c in changes):
        raise UserError(f"a rule of growth returns the list of its changes, got {changes!r}.")
    return changes
