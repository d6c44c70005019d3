"""The network of a run as it grew: a stage for each new task, with the decisions of the search."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from thalnet_mtl.runs.topology_file import (
    DecisionEntry,
    EarlierModule,
    TaskEntry,
    TopologySnapshot,
)

Modules = Mapping[str, EarlierModule]
NAMES = 6  # of more modules, their number is written


@dataclass(frozen=True)
class Stage:
    """The network from a decision to the next one that opens a stage; see ``stages``.

    Args:
        tasks: that are new, or grow, by the name of their head.
        begin: modules before.
        end: modules after.
        removed: modules that were there for a while, and are gone after.
        decision: that opened the stage; None for the first one, which begins without modules.
        decisions: all of them until the next stage.
    """

    tasks: Mapping[str, TaskEntry]
    begin: Modules
    end: Modules
    removed: Modules
    decision: DecisionEntry | None
    decisions: Sequence[DecisionEntry]

    @property
    def name(self) -> str:
        """Names of the tasks; with the step of growth or pruning."""
        step = f", step {self.decision.step:,}" if self.decision and self.within else ""
        return ", ".join(self.tasks) + step

    @property
    def within(self) -> bool:
        """Whether a task that is not new grows, or is pruned."""
        return bool(self.decision and self.decision.about != "task")

    @property
    def all_modules(self) -> Modules:
        """Modules after, and behind them those that were removed."""
        return {**self.end, **self.removed}

    @property
    def new(self) -> list[str]:
        """Modules that this stage brought."""
        return [name for name in self.end if name not in self.begin]

    @property
    def reused(self) -> list[str]:
        """Modules of earlier stages that a task runs."""
        active = {name for task in self.tasks.values() for name in task.active}
        return [name for name in self.end if name in active and name in self.begin]

    def encodes(self, task: str) -> bool:
        """Return whether the inputs of a new task pass through a learned encoder."""
        entry = self.tasks[task]
        widths = {self.end[name].inputs for name in entry.input_modules if name in self.end}
        return entry.encode or widths != {entry.shape.get("inputs")}

    def edges(self) -> Iterator[tuple[str, str, bool]]:
        """Yield the source and the reader of each reading of a new task, and whether it is new.

        A reading is new if its reader is, or if its slot was opened in this stage. Readings of
        modules that no new task runs are left out, and those of a module of itself.
        """
        shown = {*self.new, *self.reused}
        for reader in self.end:
            before = self.begin[reader].reads if reader in self.begin else ()
            for source in self.end[reader].reads:
                if source != reader and {source, reader} <= shown:
                    yield source, reader, source not in before


def stages(topology: TopologySnapshot) -> list[Stage]:
    """Return the stages of a run in order; none for a run without decisions.

    A stage begins with a decision on a new task. In a run without such decisions it begins with one
    that changed the network.
    """
    if not topology.decisions:
        return []
    states, spans = states_of(topology), list[list[DecisionEntry]]([[]])
    on_tasks = any(decision.about == "task" for decision in topology.decisions)
    following = [*(d.changes for d in topology.decisions[1:]), len(topology.history)]
    for decision, changes in zip(topology.decisions, following, strict=True):
        if decision.about == "task" if on_tasks else changes > decision.changes:
            spans.append([])
        spans[-1].append(decision)
    starts = [0, *(span[0].changes for span in spans[1:]), len(topology.history)]
    added = [
        [c.about for c in topology.history[start:stop] if c.verb == "add_task"]
        for start, stop in pairwise(starts)
    ]
    later = {head for heads in added for head in heads}
    added[0] = [head for head in topology.tasks if head not in later] + added[0]
    for heads, span in zip(added[1:], spans[1:], strict=True):
        heads += [] if heads else [span[0].task]
    result = []
    for number, (start, stop) in enumerate(pairwise(starts)):
        seen = {
            name: module for state in states[start : stop + 1] for name, module in state.items()
        }
        begin, end = states[start] if number else {}, states[stop]
        removed = {name: module for name, module in seen.items() if name not in end}
        tasks = {head: topology.tasks[head] for head in added[number] if head in topology.tasks}
        opened_by = spans[number][0] if number else None
        result.append(Stage(tasks, begin, end, removed, opened_by, spans[number]))
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


def summary(stage: Stage, sizes: Mapping[str, int]) -> str:
    """Return in words which modules are new, reused and removed in a stage."""
    parts = [f"New: {_listed([f'{n} ({sizes[n]:,})' for n in stage.new])}."] if stage.new else []
    if stage.reused:
        frozen = [stage.begin[name].frozen for name in stage.reused]
        how = "frozen" if all(frozen) else "some of them frozen" if any(frozen) else "trained on"
        parts.append(f"Reused: {_listed(stage.reused)} ({how}).")
    if stage.removed:
        parts.append(f"Removed: {_listed(list(stage.removed))}.")
    return " ".join(parts)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= NAMES else f"{len(names)} modules"
