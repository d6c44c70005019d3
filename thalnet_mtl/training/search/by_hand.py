"""The search for a training loop of one's own: what should a new task get?"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from thalnet_mtl.config.load import load_config
from thalnet_mtl.config.overlay import as_plain
from thalnet_mtl.config.schema import Config
from thalnet_mtl.config.training import TrainConfig
from thalnet_mtl.errors import UserError, unknown
from thalnet_mtl.models.change import TopologyChange
from thalnet_mtl.models.followers import bound_to, unwrapped
from thalnet_mtl.models.network import Network
from thalnet_mtl.runs.topology_file import CandidateEntry, DecisionEntry
from thalnet_mtl.strategies.base import Naive
from thalnet_mtl.tasks.base import Task
from thalnet_mtl.tasks.sequences import SequenceTask
from thalnet_mtl.topology.spec import TaskSpec
from thalnet_mtl.training.context import RunContext
from thalnet_mtl.training.growth.base import make_rule
from thalnet_mtl.training.growth.modules import freeze_tasks
from thalnet_mtl.training.optimizers import optimizer_for
from thalnet_mtl.training.search.candidates import apply
from thalnet_mtl.training.search.rule import RaceOutcome, Search
from thalnet_mtl.training.state import NOT_TRAINED, TrainState
from thalnet_mtl.training.topology_changes import on_topology_change
from thalnet_mtl.training.weighting import make_weighting

# The fields of ``train`` that a race reads. Dropout and backend are those of the network.
TRAIN = (
    *("batch", "accumulate", "chunk", "optimizer", "learning_rate", "weight_decay", "schedule"),
    *("warmup", "clip", "precision", "seed"),
)
MODULES = {"input": {"input": True}, "output": {"output": True}}  # of a task with its own


@dataclass(frozen=True, eq=False, repr=False)
class Decision:
    """What a new task should get, and why; ``apply`` gives it that.

    Args:
        record: the candidates, with the scores of every round, and the reason.
        budget: the steps for which the winner will be trained.
    """

    record: DecisionEntry
    budget: int
    _outcome: RaceOutcome
    _run: RunContext
    _before: dict[str, Any]  # the network that was searched

    def __repr__(self) -> str:
        return f"Decision({self.record.line()})"

    @property
    def candidates(self) -> Sequence[CandidateEntry]:
        """All candidates: new parameters, steps in the race, scores after each round, price."""
        return self.record.candidates

    @property
    def chosen(self) -> CandidateEntry:
        """The best candidate."""
        return self.record.chosen

    @property
    def reason(self) -> str:
        """A sentence with the numbers that decided."""
        return self.record.reason

    @property
    def cost(self) -> float:
        """The steps of all candidates and of the winner, as a multiple of the budget."""
        return (self.budget + self.record.extra_steps) / self.budget

    def __str__(self) -> str:
        return self.record.line()

    def apply(self, network: Network, trained: bool = True) -> list[TopologyChange]:
        """Freeze the earlier tasks and add the new one, as decided. Returns the changes.

        Optimizers that are bound to the network follow; others by ``change.update_optimizer``, in
        the order of the changes.

        Args:
            network: as it was searched, in its modules and tasks; changed in place.
            trained: whether new parameters have the values after the steps that the winner took in
                the race, or those before them.

        Raises:
            UserError: the network has other modules or tasks.
        """
        run, entrant = self._run, self._outcome.winner if trained else self._outcome.untrained
        if network.describe() != self._before:
            raise UserError(
                "apply: the network does not have the modules and tasks with which it was searched."
            )
        task = run.tasks[self.record.task]
        with torch.random.fork_rng(_gpus(network)):
            changes = freeze_tasks(network, network.adapters)
            shapes = {task.head_name: task.spec}
            changes += apply(entrant.candidate, network, run.config, shapes, task.head_name)
        source = entrant.state.network.state_dict()
        frozen = {name for name, p in network.named_parameters() if not p.requires_grad}
        copies = [unwrapped(copy) for copy in bound_to(network) if isinstance(copy, nn.Module)]
        with torch.no_grad():
            for each in (network, *copies):
                for name, value in each.state_dict().items():
                    if name not in frozen:
                        value.copy_(source[name])
        return changes


def search(
    network: Network,
    task: str | Task,
    data: Sequence[Any] | None = None,
    *,
    budget: int,
    spec: TaskSpec | None = None,
    train: Mapping[str, Any] | None = None,
    growth: Mapping[str, Any] | None = None,
    model: Mapping[str, Any] | None = None,
) -> Decision:
    """Return what a new task of a network should get: modules that are there, or new ones.

    Candidates race as in a run with ``growth: {when: search}``; see ``Search``. The network and
    the global random state are left as they were, and the same seed gives the same decision.

    >>> from thalnet_mtl import Network, TaskSpec, ThalNet
    >>> _ = torch.manual_seed(0)
    >>> network = Network(ThalNet(inputs=3, modules=3, features=8))
    >>> _ = network.add_task("first", TaskSpec(inputs=3, outputs=2))
    >>> xs = torch.rand(120, 5, 3)
    >>> ys = (xs[:, -1, 0] > 0.5).long()
    >>> data = (xs[:80], ys[:80]), (xs[80:], ys[80:])
    >>> decision = search(network, "second", data, budget=64, train={"batch": 20})
    >>> [entry.candidate for entry in decision.candidates]
    ['probe of first', 'bottom of first', 'top of first', 'finetune of first', 'alone', 'all']
    >>> optimizer = torch.optim.Adam(network.parameters())
    >>> for change in decision.apply(network):  # the earlier task stays as it is, to the bit
    ...     change.update_optimizer(optimizer)
    >>> network("second", xs)[0].shape
    torch.Size([120, 2])

    Args:
        network: with a ThalNet as body; the tasks in it are earlier tasks, which are reused.
        task: name of the new task; or a task, with data, target and loss of its own.
        data: the training part and the validation part, each ``(xs, ys)`` with one class for each
            sequence, or a data set or ``DataLoader`` of such pairs; see ``SequenceTask``.
        budget: steps for which the winner will be trained. A race takes about a quarter as many.
        spec: shape of the new task; by default that of the data.
        train: fields of the section ``train`` of a configuration, with which the candidates train:
            ``batch``, ``optimizer``, ``learning_rate``, ``seed`` and a few more.
        growth: fields of the section ``growth``: ``modules`` of a task with modules of its own (by
            default an input and an output module), ``price``, or ``when`` for another rule.
        model: fields of the section ``model`` for new modules; by default sizes, design and reading
            are those of the last module, and steps those of the last task.

    Raises:
        UserError: the body is no ThalNet; the task is there already; the data, a field or the
            budget is not allowed.
    """
    graph = network.body.graph
    if not graph:
        raise UserError("search: only a ThalNet has modules to reuse or to add.")
    if budget < 1:
        raise UserError(f"search: the budget must be at least 1 step, got {budget}.")
    for name in train or ():
        if name not in TRAIN:
            raise UserError(f"search: train: {unknown('field', name, TRAIN)}")
    if isinstance(task, str) == (data is None):
        raise UserError("search: give the name of a task and its data, or a task that has data.")
    if not isinstance(task, Task):
        if not isinstance(data, tuple | list) or len(data) != 2:
            raise UserError("search: data must be a pair, the training and the validation part.")
        splits = {"train": data[0], "validation": data[1], "test": data[1]}
        task = SequenceTask(task, splits, spec)
    if task.name in network.adapters:
        raise UserError(f"search: the network has a task '{task.name}' already.")
    last, adapters = graph[list(graph)[-1]], list(network.adapters)
    design = {name: getattr(last, name) for name in ("features", "context", "hidden", "module")}
    design["reading"] = last.reading
    if adapters:
        steps = network.adapter(adapters[-1]).spec
        design |= {"sub_steps": steps.sub_steps, "extra_steps": steps.extra_steps}
    batch = dict(train or {}).get("batch", TrainConfig().batch)
    config = load_config(
        task={"name": task.name},
        model={**design, **as_plain(model or {})},
        growth={"when": "search", "modules": MODULES, **as_plain(growth or {})},
        train={**(train or {}), "steps": budget},
        evaluate={"batch": batch} if task.carries_state else {},  # a text is cut into so many
    )
    with torch.random.fork_rng(_gpus(network)):
        torch.manual_seed(config.train.seed)
        run = _run_of(config, network, task)
        rule = run.state.rule
        if not isinstance(rule, Search):
            raise UserError(f"search: growth.when '{config.growth.when}' decides nothing.")
        for change in freeze_tasks(run.network, run.network.adapters):
            on_topology_change(run, change)
        outcome = rule.decide(task.name)
    return Decision(outcome.record, budget, outcome, run, network.describe())


def _run_of(config: Config, network: Network, task: Task) -> RunContext:
    """Return a run of a single task, before its first step, on a copy of a network."""
    device = next(network.parameters()).device
    task = task.named(task.name).load(device)
    task.check_batch_sizes(config.train.batch, config.evaluate.batch, config.train.chunk)
    copied = deepcopy(network).train()
    weighting = make_weighting("fixed", {task.name: 1.0}, {task.name: task.target.name}).to(device)
    optimizer = optimizer_for(config, copied, weighting)
    losses = torch.full((config.evaluate.log_every, 1), NOT_TRAINED, device=device)
    state = TrainState(copied, weighting, optimizer, losses, batches_seen={task.name: 0})
    run = RunContext(config, device, {task.name: task}, state)
    state.strategy = Naive(run)
    state.rule = make_rule(run)
    return run


def _gpus(network: Network) -> set[torch.device]:
    """Return the GPUs whose random state has to be kept."""
    return {p.device for p in network.parameters() if p.device.type == "cuda"}
