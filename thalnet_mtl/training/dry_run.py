"""Rehearsals on a copy of the network: can it change and grow as configured while it trains?

The copy changes, and trains on random inputs, in the order of the run. A rehearsal is optimistic in
one way: it assumes that every task of an experience is drawn, and that nothing stops early.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy, deepcopy
from itertools import chain, groupby, pairwise

import torch
from torch import Tensor

from thalnet_mtl.config.schema import ChangeConfig, Config
from thalnet_mtl.errors import UserError
from thalnet_mtl.models.build import selected_backend
from thalnet_mtl.models.change import TopologyChange
from thalnet_mtl.models.followers import check_told
from thalnet_mtl.models.network import Network
from thalnet_mtl.models.programs import Program
from thalnet_mtl.models.size import count_parameters
from thalnet_mtl.tasks.stream import Experience
from thalnet_mtl.training.context import RunContext
from thalnet_mtl.training.growth.base import listed, make_rule
from thalnet_mtl.training.growth.modules import check_trainable
from thalnet_mtl.training.optimizers import make_optimizer
from thalnet_mtl.training.state import TrainState
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
        groups = [{"params": trainable}]
        self.optimizer = make_optimizer(config.train.optimizer, groups, lr=0.0)
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
    def run_heads(self, heads: Iterable[str]) -> None:
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
    with rehearsal(network):
        rehearsed = Rehearsal(config, network)
        for step, changes in groupby(sorted(config.changes, key=step_of), key=step_of):
            for experience in stream:
                rehearsed.train(
                    experience, min(experience.stop, step) - max(experience.start, done)
                )
            rehearsed.untrained, done = 0, step
            for change in changes:
                where = f"changes: {change.verb} {change.name} after step {step}"
                if step >= total:
                    raise UserError(f"{where}: there are only {total} steps.")
                try:
                    record = apply(rehearsed.network, change, config)
                except UserError as error:
                    raise UserError(f"{where}: {error}") from None
                rehearsed.follow([record], rehearsed.network.adapters, where, advice)
            for experience in stream:
                heads = [rehearsed.heads[task] for task in experience.tasks]
                used = [rehearsed.network.task_parameters(head).values() for head in heads]
                trainable = any(p.requires_grad for p in chain(*used))
                overlaps = experience.stop > step and experience.start < next_step[step]
                if overlaps and not trainable:
                    names = ", ".join(experience.tasks)
                    raise UserError(f"{where}: nothing that {names} use can be trained after it.")
        rehearsed.run_heads(rehearsed.network.adapters)


class GrowthRehearsal(Rehearsal):
    """A rehearsal with a rule of growth of its own, which acts on the copy."""

    def __init__(self, run: RunContext):
        super().__init__(run.config, run.network)
        self._act_on_copy(run)
        self.run.state.rule = make_rule(self.run)

    def duplicate(self) -> "GrowthRehearsal":
        """Return a copy, which goes on independently."""
        other, run = copy(self), self.run
        other.network, other.optimizer = deepcopy((self.network, self.optimizer))
        other._act_on_copy(run)
        other.run.state.rule = deepcopy(run.state.rule, run.shared(other.run))
        return other

    def _act_on_copy(self, run: RunContext) -> None:
        state = TrainState(self.network, run.state.weighting, self.optimizer, run.state.loss_log)
        state.strategy, state.step = run.state.strategy, run.state.step
        self.run = run.with_state(state)

    def begin(self, experience: Experience) -> None:
        """Rehearse the growth at the beginning of an experience."""
        self.run.state.step = experience.start
        self.grow(self.run.state.rule.rehearse_begin)

    def check_heads(self, heads: Iterable[str]) -> None:
        """Raise ``UserError`` if the rule has not added a task of the experience."""
        for head in heads:
            if head not in self.network.adapters:
                raise UserError(
                    f"growth.when '{self.config.growth.when}' has not added task '{head}'. Its "
                    f"begin_experience has to return the changes of self.add_tasks(), and its own."
                )

    def grow(self, act: Callable[[], list[TopologyChange]]) -> None:
        """Rehearse growth, and the outputs of the tasks that it is for."""
        experience = self.run.experience
        where = f"growth: experience {experience.number}"
        heads = list(dict.fromkeys(self.heads[task] for task in experience.tasks))
        try:
            changes = listed(act())
            self.check_heads(heads)
            check_trainable(self.network, self.config.growth, heads)
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
        self.follow(changes, heads, where, "Lower features, or raise the budget")
        try:
            check_told(self.optimizer)
        except UserError:
            raise UserError(
                f"{where}: growth.when '{self.config.growth.when}' has changed the network and not "
                f"returned the change; return the list of all of them."
            ) from None
        self.run_heads(heads)


def dry_run_growth(run: RunContext) -> None:
    """Raise if the network of a run cannot grow as configured.

    A network that grows within experiences may do so in every one, or in a single one: both are
    rehearsed.

    Raises:
        UserError: with the experience and the reason; also if it would outgrow its budget.
    """
    with rehearsal(run.network):
        always = GrowthRehearsal(run)
        always.train(run.stream[0], 1)
        never = always.duplicate()
        for experience in run.stream:
            always.begin(experience)
            if run.state.rule.acts_within:
                always.grow(always.run.state.rule.rehearse_within)
                never.begin(experience)
                single = never.duplicate()
                single.grow(single.run.state.rule.rehearse_within)


@contextmanager
def rehearsal(network: Network) -> Iterator[None]:
    """Leave the random state as it was, after a rehearsal with a copy of a network."""
    devices = {p.device for p in network.parameters() if p.device.type == "cuda"}
    with torch.random.fork_rng(devices):
        yield


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
