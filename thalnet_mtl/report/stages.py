"""The network of a run at each moment: where it changed, and where it was scored."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from thalnet_mtl.runs.topology_file import (
    ChangeEntry,
    DecisionEntry,
    EarlierModule,
    TopologySnapshot,
)

Modules = Mapping[str, EarlierModule]
NAMES = 6  # of more modules, their number is written


@dataclass
class Stage:
    """The network after changes of one step, after a decision, or where it was scored.

    Args:
        step: optimizer steps until then.
        before: modules before its changes; none at the start of a run.
        after: modules after them.
        tasks: heads that are there after them.
        changes: of the topology.
        decisions: of the search; the last one made the changes.
    """

    step: int
    before: Modules
    after: Modules
    tasks: Sequence[str]
    changes: list[ChangeEntry] = field(default_factory=list)
    decisions: list[DecisionEntry] = field(default_factory=list)

    @property
    def new(self) -> list[str]:
        """Modules that this stage brought."""
        return [name for name in self.after if name not in self.before]

    @property
    def removed(self) -> list[str]:
        """Modules that are gone after it."""
        return [name for name in self.before if name not in self.after]

    @property
    def new_tasks(self) -> list[str]:
        """Heads that this stage brought."""
        return [change.about for change in self.changes if change.verb == "add_task"]


def stages(topology: TopologySnapshot, scored: Sequence[int] = ()) -> list[Stage]:
    """Return the stages of a run in order; the first one is the network as it began.

    Changes, decisions and scores of the same step are one stage. A second decision on a new task
    opens another one.

    Args:
        topology: of the run.
        scored: steps after which the network was scored.
    """
    states, added = states_of(topology), {c.about for c in topology.history if c.verb == "add_task"}
    result = [Stage(0, {}, states[0], [head for head in topology.tasks if head not in added])]

    def stage(step: int, is_other: bool = False) -> Stage:
        last = result[-1]
        if last.step < step or is_other:
            result.append(Stage(step, last.after, last.after, last.tasks))
        return result[-1]

    waiting = sorted(scored, reverse=True)
    decisions = list(topology.decisions)
    for place in range(len(topology.history) + 1):
        while decisions and decisions[0].changes <= place:
            decision = decisions.pop(0)
            while waiting and waiting[-1] < decision.step:
                stage(waiting.pop())
            is_other = decision.about == "task" and bool(result[-1].decisions)
            stage(decision.step, is_other).decisions.append(decision)
        if place < len(topology.history):
            change = topology.history[place]
            while waiting and waiting[-1] < change.step:
                stage(waiting.pop())
            now = stage(change.step)
            now.changes.append(change)
            now.after = states[place + 1]
            if change.verb == "add_task":
                now.tasks = [*now.tasks, change.about]
            elif change.verb == "remove_task":
                now.tasks = [head for head in now.tasks if head != change.about]
    while waiting:
        stage(waiting.pop())
    return result


def states_of(topology: TopologySnapshot) -> list[Modules]:
    """Return the modules before the first change and after each, from the last one backwards."""
    last = {m.name: EarlierModule(m.reads, m.inputs, m.output, m.frozen) for m in topology.modules}
    states: list[Modules] = [last]
    for change in reversed(topology.history):
        state = {**states[-1]}
        for name, module in change.before.items():
            if module is None:
                state.pop(name, None)
            else:
                state[name] = module
        states.append(state)
    return states[::-1]


def sizes(topology: TopologySnapshot) -> dict[str, int]:
    """Return the parameters of each module, with those that were removed.

    Of a removed module, it is what the network lost: closed columns of its readers are counted.
    """
    total, removed = 0, dict[str, int]()
    for change in topology.history:
        if change.verb == "detach":
            removed[change.about] = total - change.parameters
        total = change.parameters
    return removed | {module.name: module.parameters for module in topology.modules}


def summary(stage: Stage, topology: TopologySnapshot) -> str:
    """Return in words which modules are new, reused by a new task, frozen and removed."""
    known = sizes(topology)
    entries = [topology.tasks[head] for head in stage.new_tasks if head in topology.tasks]
    used = {name for task in entries for name in task.active}
    reused = [name for name in stage.before if name in used and name in stage.after]
    frozen = [
        name
        for name, module in stage.after.items()
        if module.frozen and not (name in stage.before and stage.before[name].frozen)
    ]
    new = [f"{name} ({known.get(name, 0):,})" for name in stage.new]
    parts = [("New", new), ("Frozen", frozen), ("Reused", reused), ("Removed", stage.removed)]
    return " ".join(f"{verb}: {_listed(names)}." for verb, names in parts if names)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= NAMES else f"{len(names)} modules"
