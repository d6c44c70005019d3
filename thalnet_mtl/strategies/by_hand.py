"""A continual-learning strategy in a training loop of the user, without a configuration."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from thalnet_mtl.config.options import check_options
from thalnet_mtl.errors import UserError, unknown
from thalnet_mtl.json_fields import require, typed
from thalnet_mtl.metrics.metric import list_names
from thalnet_mtl.models.change import TopologyChange
from thalnet_mtl.models.network import Network
from thalnet_mtl.registry import lookup
from thalnet_mtl.strategies.base import Strategy, add_penalty, trainable_parameters
from thalnet_mtl.tasks.base import Task
from thalnet_mtl.tasks.batch import Batch
from thalnet_mtl.tasks.sequences import SequenceTask
from thalnet_mtl.tasks.splits.items import Columns
from thalnet_mtl.tasks.splits.reading import read_split
from thalnet_mtl.tasks.stream import Experience
from thalnet_mtl.tasks.targets import target_of


class StrategyLoop:
    """A strategy and what it needs to know of a training loop of your own.

    >>> from torch.nn.functional import cross_entropy
    >>> from torch.utils.data import DataLoader, TensorDataset
    >>> from thalnet_mtl import Network, TaskSpec, ThalNet
    >>> data = {name: TensorDataset(torch.rand(40, 5, 3), torch.arange(40) % 2) for name in "ab"}
    >>> network = Network(ThalNet(inputs=3, modules=2, features=4))
    >>> for name in data:
    ...     change = network.add_task(name, TaskSpec(inputs=3, outputs=2))
    >>> optimizer = torch.optim.Adam(network.parameters())
    >>> loop = StrategyLoop("ewc", network, data, batch=20, strength=100.0)
    >>> for name in data:
    ...     loop.begin(name)
    ...     for xs, ys in DataLoader(data[name], batch_size=20, shuffle=True):
    ...         optimizer.zero_grad()
    ...         loop.backward(cross_entropy(network(name, xs)[0], ys), {name: (xs, ys)})
    ...         optimizer.step()
    ...         loop.after_step()
    ...     loop.end()

    ``backward`` computes the gradients of the loss, and lets the strategy add its penalty or change
    them; clip them after it. The strategy is the one that ``train`` uses, as ``loop.strategy``.
    It stores, and learns again, sequences as ``data`` has them: give the inputs that the network
    gets, without random changes. It reads them with the names of their tasks, which are those of
    the heads. If the topology of the network changes, call ``after_topology_change``.

    Args:
        strategy: its name, or a class.
        network: the network that is trained; its tasks may be added later.
        data: of all tasks by name, for training: a pair of tensors, a data set of PyTorch, or a
            ``Task``, which may have another loss than cross-entropy.
        batch: sequences in a batch of the strategy.
        seed: of its random choices.
        chunk: of a text, tokens in a sequence.
        options: of the strategy; see 'thalnet list strategies'.

    Raises:
        UserError: there is no such strategy or option, the data is not that of a task, or several
            processes train the network: ``train`` can share a run among them.
    """

    announced = True

    def __init__(
        self,
        strategy: str | type[Strategy],
        network: Network,
        data: Mapping[str, Any],
        *,
        batch: int = 50,
        seed: int = 0,
        chunk: int = 200,
        **options: Any,
    ):
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            raise UserError(
                f"StrategyLoop: this is one of {dist.get_world_size()} processes, whose gradients "
                f"and batches a strategy would need together; use train(), which shares a run."
            )
        self.network, self.seed, self.chunk, self.batch = network, seed, chunk, batch
        self.device = next(network.parameters()).device
        self.tasks = {name: self._as_task(name, each) for name, each in data.items()}
        self.step, self.experience = 0, Experience(0, (), 0, 0)
        self._batches: dict[str, Batch] = {}
        self._trainable: set[str] | None = None
        if isinstance(strategy, str):
            options = check_options("strategy", strategy, options, "StrategyLoop")
            strategy = lookup("strategy", strategy)
        strategy_class: Any = strategy
        if getattr(strategy_class, "fit", None) is not Strategy.fit:
            raise UserError(
                "StrategyLoop: a strategy of another library takes the steps itself; use train()."
            )
        self.strategy: Strategy = strategy_class(self, **options)

    def __repr__(self) -> str:
        name, tasks = type(self.strategy).__name__, list_names(list(self.tasks))
        number = self.experience.number
        return f"StrategyLoop({name} on {tasks}; step {self.step:,}, experience {number})"

    def _as_task(self, name: str, data: Any) -> Task:
        """Return the training data of a task as a task, on the device of the network."""
        if isinstance(data, Task):
            return data.named(name).load(self.device)
        where = f"task '{name}'"
        train = read_split(data, target_of("class"), Columns(), where)
        first = train.select(torch.zeros(1, dtype=torch.long))  # nothing is validated here
        splits = {"train": train, "validation": first, "test": first}
        known = name in self.network.adapters
        spec = self.network.adapter(name).task if known else None
        return SequenceTask(name, splits, spec).load(self.device)

    def begin(self, *tasks: str) -> None:
        """Begin an experience with some tasks; call it before its first step."""
        for name in tasks:
            if name not in self.tasks:
                raise unknown("task", name, self.tasks)
            self.network.adapter(name)  # raises if it has no head yet
        if not tasks:
            raise UserError("begin: name the tasks of the experience.")
        self._trainable = None
        self.experience = Experience(self.experience.number + 1, tasks, self.step, self.step)

    def backward(self, loss: Tensor, batches: Mapping[str, Sequence[Tensor]]) -> None:
        """Compute the gradients of a step; call it in place of ``loss.backward()``.

        As in ``train``, parameters that no task of the step uses, and none that the strategy
        rehearses, have no gradient afterwards: the optimizer leaves them and their moments alone.

        Args:
            loss: of the tasks of the step, a scalar.
            batches: by task inputs and targets, or inputs, targets and lengths.
        """
        if not self.experience.number:
            raise UserError("backward: call begin with the tasks of the first experience before.")
        self._batches = {}
        for name, (xs, ys, *lengths) in batches.items():
            if name not in self.tasks:
                raise unknown("task", name, self.tasks)
            self._batches[name] = Batch(xs, ys, True, *lengths)
        strategy, parameters = self.strategy, [*trainable_parameters(self.network).values()]
        tasks = [*self._batches, *strategy.rehearsed_tasks(self._batches)]
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        loss.backward()
        strategy.after_backward()
        add_penalty(strategy, self._batches)
        strategy.before_update()
        used = {id(p) for name in tasks for p in self.network.task_parameters(name).values()}
        for parameter in parameters:
            if id(parameter) not in used:
                parameter.grad = None

    def after_step(self) -> None:
        """Count a step; call it after that of the optimizer."""
        self.strategy.after_update(self._batches)
        self.step += 1

    def end(self) -> None:
        """End the experience; call it after its last step."""
        self.experience = replace(self.experience, stop=self.step)
        self.strategy.after_experience(self.experience)

    def after_topology_change(self, change: TopologyChange) -> None:
        """Let the strategy follow a change of the network, as ``network.attach`` returns it."""
        self._trainable = None
        self.strategy.after_topology_change(change)

    def state_dict(self) -> dict[str, Any]:
        """Return tensors and plain values, enough to go on from here."""
        experience = {"number": self.experience.number, "tasks": list(self.experience.tasks)}
        experience |= {"start": self.experience.start, "stop": self.experience.stop}
        return {
            "step": self.step,
            "experience": experience,
            "strategy": self.strategy.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore ``state_dict``; the network is restored by its own."""
        require(state, ("step", "experience", "strategy"), "state of the strategy")
        self.step, saved = typed(state["step"], int, "step"), state["experience"]
        tasks = tuple(saved["tasks"])
        self.experience = Experience(saved["number"], tasks, saved["start"], saved["stop"])
        self._trainable = None
        self.strategy.load_state_dict(state["strategy"])

    # What a strategy asks of a run: see ``TrainingContext``

    @property
    def trainable_tasks(self) -> set[str]:
        """The tasks that depend on at least one parameter that is not frozen."""
        if self._trainable is None:
            self._trainable = self.network.trainable_tasks() & self.tasks.keys()
        return self._trainable

    def batch_size(self, task: str | None = None) -> int:
        """Return the sequences in a batch of the strategy."""
        return self.batch

    def loss_weight(self, task: str) -> float:
        """Return 1: weights of losses are those of your own loss."""
        return 1.0

    def configure_network(self, network: Network) -> None:
        """Give a network the dropout rate and the backend of the one that is trained."""
        network.dropout, network.body.ops = self.network.dropout, self.network.body.ops
