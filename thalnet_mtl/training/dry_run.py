"""Rehearsals on a copy of the network: can it change and grow as configured while it trains?

The copy changes, and trains on random inputs, in the order of the run. A rehearsal is optimistic in
one way: it assumes that every task of an experience is drawn, and that nothing stops early.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from itertools import chain, groupby, pairwise

import torch
from torch import Tensor

from thalnet_mtl.config.schema import ChangeConfig, Config
from thalnet_mtl.errors import UserError
from thalnet_mtl.models.build import selected_backend
from thalnet_mtl.models.change import TopologyChange
from thalnet_mtl.models.export import Program
from thalnet_mtl.models.network import Network
from thalnet_mtl.models.size import count_parameters
from thalnet_mtl.tasks.stream import Experience
from thalnet_mtl.topology.spec import TaskSpec
from thalnet_mtl.training.growth import (
    add_new_tasks,
    attach_configured_modules,
    check_trainable,
    freeze_tasks,
)
from thalnet_mtl.training.optimizers import optimizer_entry
from thalnet_mtl.training.search.candidates import apply as apply_candidate
from thalnet_mtl.training.search.candidates import candidates, reusable
from thalnet_mtl.training.topology_changes import apply

BATCH = 8  # random sequences in a step of a rehearsal
NONZERO = 0.01  # what the zeros of a parameter become once it has learned


class Rehearsal:
    """A copy of the network of a run before its first step, with an optimizer.

    ``heads`` are those of the tasks by name.
    """

    def __init__(self, config: Config, network: Network):
        self.config, self.network = config, deepcopy(network)
        self.network.dropout = 0.0
        self.heads = {name: task.head or name for name, task in config.named_tasks.items()}
        trainable = [p for p in self.network.parameters() if p.requires_grad]
        entry = optimizer_entry(config.train.optimizer)
        self.optimizer = entry.build([{"params": trainable}], lr=0.0)
        self.untrained = 0  # changes since the last training

    def train(self, experience: Experience, steps: int) -> None:
        """Take steps on the tasks of an experience; zeros that get a gradient become nonzero.

        Each step takes gradients past one more reading of zeros, and a change opens one at most.
        """
        tasks = [task for task in experience.tasks if self.config.named_tasks[task].weight]
        for _ in range(min(steps, 1 + self.untrained)):
            self.optimizer.zero_grad()
            for head in dict.fromkeys(self.heads[task] for task in tasks):
                outputs = self.outputs(head)
                if outputs.requires_grad:
                    (outputs * torch.rand(outputs.shape).to(outputs)).sum().backward()
            self.optimizer.step()
            with torch.no_grad():
                for parameter in self.network.parameters():
                    if parameter.grad is not None:
                        new = (parameter == 0) & (parameter.grad != 0)
                        parameter.masked_fill_(new, NONZERO)

    @torch.no_grad()
    def run(self, heads: Iterable[str]) -> None:
        """Compute outputs of some heads, to see that what is new can run."""
        for head in heads:
            self.outputs(head, 2)

    def outputs(self, head: str, longest: int | None = None) -> Tensor:
        """Return outputs for random inputs, which in a ThalNet are as long as paths through it."""
        steps = self.network.adapter(head).task.steps or self.config.train.chunk
        modules = self.network.body.graph
        steps = min(steps, longest or len(modules) + 2) if modules else steps
        return self.network(head, Program(self.network, head).draw(BATCH, steps))[0]

    def follow(
        self, changes: Iterable[TopologyChange], heads: Iterable[str], where: str, advice: str
    ) -> None:
        """Let the optimizer follow changes, and check what the next step of some heads needs.

        Raises:
            UserError: the optimizer or the backend cannot go on, or the network is too large.
        """
        try:
            for change in changes:
                self.untrained += 1
                change.update_optimizer(self.optimizer)
            for head in heads:
                selected_backend(self.config, self.network, head)
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
        check_budget(self.network, self.config, where, advice)


def dry_run_changes(config: Config, network: Network, stream: Sequence[Experience]) -> None:
    """Raise if one of the configured changes cannot be made when its time comes.

    Raises:
        UserError: with the change, its step and the reason.
    """
    if not config.changes:
        return
    total, done = stream[-1].stop, 0
    steps = sorted({change.step for change in config.changes})
    next_step = dict(pairwise([*steps, total]))
    advice = "Give model.features to leave room, or raise the budget"
    with rehearsal(config, network) as copy:
        for step, changes in groupby(sorted(config.changes, key=step_of), key=step_of):
            for experience in stream:
                copy.train(experience, min(experience.stop, step) - max(experience.start, done))
            copy.untrained, done = 0, step
            for change in changes:
                where = f"changes: {change.verb} {change.name} after step {step}"
                if step >= total:
                    raise UserError(f"{where}: there are only {total} steps.")
                try:
                    record = apply(copy.network, change, config)
                except UserError as error:
                    raise UserError(f"{where}: {error}") from None
                copy.follow([record], copy.network.adapters, where, advice)
            for experience in stream:
                heads = [copy.heads[task] for task in experience.tasks]
                used = [copy.network.task_parameters(head).values() for head in heads]
                trainable = any(p.requires_grad for p in chain(*used))
                overlaps = experience.stop > step and experience.start < next_step[step]
                if overlaps and not trainable:
                    names = ", ".join(experience.tasks)
                    raise UserError(f"{where}: nothing that {names} use can be trained after it.")
        copy.run(copy.network.adapters)


def dry_run_growth(
    config: Config, network: Network, shapes: Mapping[str, TaskSpec], stream: Sequence[Experience]
) -> None:
    """Raise if the network cannot grow as configured.

    A network that grows on a plateau may do so in every experience, or in a single one: both are
    rehearsed.

    Raises:
        UserError: with the experience and the reason; also if it would outgrow its budget.
    """
    with rehearsal(config, network) as copy:
        copy.train(stream[0], 1)
        if config.growth.when != "on_plateau":
            for experience in stream:
                begin(copy, shapes, experience)
            return
        never = deepcopy(copy)
        for experience in stream:
            begin(copy, shapes, experience)
            grow_on_plateau(copy, shapes, experience)
            begin(never, shapes, experience)
            grow_on_plateau(deepcopy(never), shapes, experience)


def begin(copy: Rehearsal, shapes: Mapping[str, TaskSpec], experience: Experience) -> None:
    """Rehearse the growth at the beginning of an experience."""
    heads = heads_of(copy, experience)
    searches = copy.config.growth.when == "search" and len(copy.network.adapters)
    act = rehearse_search if searches else add_new_tasks
    grow(copy, experience, heads, lambda: act(copy.network, copy.config, shapes, heads))


def grow_on_plateau(
    copy: Rehearsal, shapes: Mapping[str, TaskSpec], experience: Experience
) -> None:
    """Rehearse growth within an experience."""
    heads, suffix = heads_of(copy, experience), str(experience.number)
    arguments = copy.network, copy.config, shapes, heads, suffix
    grow(copy, experience, heads, lambda: attach_configured_modules(*arguments))


def grow(
    copy: Rehearsal,
    experience: Experience,
    heads: Sequence[str],
    act: Callable[[], list[TopologyChange]],
) -> None:
    """Rehearse growth, and the outputs of the tasks that it is for."""
    where = f"growth: experience {experience.number}"
    try:
        changes = act()
        check_trainable(copy.network, copy.config.growth, heads)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    copy.follow(changes, heads, where, "Lower features, or raise the budget")
    copy.run(heads)


def heads_of(copy: Rehearsal, experience: Experience) -> list[str]:
    """Return the heads of the tasks of an experience, each once."""
    return list(dict.fromkeys(copy.heads[task] for task in experience.tasks))


def rehearse_search(
    network: Network, config: Config, shapes: Mapping[str, TaskSpec], heads: Sequence[str]
) -> list[TopologyChange]:
    """Give a new task the most that the search may give it. Returns the changes.

    Args:
        network: with the tasks before it, changed in place.
        config: of the run.
        shapes: of all tasks, by head.
        heads: of the tasks of an experience.

    Raises:
        UserError: a candidate cannot be built, or two tasks are new.
    """
    new = [head for head in heads if head not in network.adapters]
    if not new:
        return []
    if len(new) > 1:
        raise UserError(
            f"'{new[0]}' and '{new[1]}' are both new; growth.when 'search' decides for a single "
            f"new task in an experience."
        )
    (head,), earlier = new, list(network.adapters)
    changes = freeze_tasks(network, earlier)
    source = next(reversed(reusable(network, shapes[head])), "")
    for candidate in candidates(config, shapes[head], source):
        copied = network if candidate.kind == "all" else deepcopy(network)
        applied = apply_candidate(candidate, copied, config, shapes, head)
    return changes + applied  # those of the last candidate, which is the largest


@contextmanager
def rehearsal(config: Config, network: Network) -> Iterator[Rehearsal]:
    """Yield a rehearsal, and leave the random state as it was."""
    devices = {p.device for p in network.parameters() if p.device.type == "cuda"}
    with torch.random.fork_rng(devices):
        yield Rehearsal(config, network)


def check_budget(network: Network, config: Config, where: str, advice: str) -> None:
    """Raise if a network has more parameters than ``model.budget`` allows."""
    size, budget = count_parameters(network), config.model.budget
    if budget and size > budget:
        raise UserError(
            f"{where} makes {size:,} parameters, over model.budget {budget:,}. {advice}."
        )


def step_of(change: ChangeConfig) -> int:
    """Return the step after which a change is made."""
    return change.step
