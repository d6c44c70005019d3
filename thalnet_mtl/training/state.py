"""The state of a training run: exactly what a checkpoint holds."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Protocol, get_type_hints

import torch
from torch import Tensor, nn

from thalnet_mtl.errors import UserError
from thalnet_mtl.json_fields import typed
from thalnet_mtl.models.change import TopologyChange
from thalnet_mtl.models.network import Network
from thalnet_mtl.models.path_choice import PathChooser
from thalnet_mtl.strategies.base import Strategy
from thalnet_mtl.training.optimizers import load_optimizer_state, optimizer_state
from thalnet_mtl.training.scores import EarlyStopping, PlainPart, Scores
from thalnet_mtl.training.weighting import LossWeighting

# What may follow a step, in this order; with early stopping in a stream, validation comes first.
DUE = ("log", "growth", "validate", "after_experience", "end_experience")
KEEPING_BEST = ("log", "validate", "restore_best", "growth", "after_experience", "end_experience")
OPTIONAL = ("stopping",)  # parts that a checkpoint holds only if they are not at their defaults
NOT_TRAINED = -math.inf  # in the loss log, for a task that was not part of a step


@dataclass
class GrowthState(PlainPart):
    """What rules of growth have decided, and the random state from which they draw."""

    decisions: list[dict[str, Any]] = field(default_factory=list)  # see ``DecisionEntry``
    rng: Tensor | None = None

    @contextmanager
    def separate_rng(self) -> Iterator[None]:
        """Draw new parameters from a random stream of their own.

        The main stream, which dropout uses, goes on as if the network had not grown.
        """
        main = torch.get_rng_state()
        torch.set_rng_state(main if self.rng is None else self.rng)
        try:
            yield
        finally:
            self.rng = torch.get_rng_state()
            torch.set_rng_state(main)


class Rule(Protocol):
    """The view that a run has of its rule of growth; see ``training.growth.base.GrowthRule``."""

    grows: ClassVar[bool]
    separate_rng: ClassVar[bool]

    @property
    def acts_within(self) -> bool:
        """Whether ``before_step`` does anything."""
        ...

    def begin_experience(self) -> list[TopologyChange]:
        """Change the network before the first step of an experience."""
        ...

    def before_step(self) -> list[TopologyChange]:
        """Change the network before a step within an experience."""
        ...

    def end_experience(self) -> list[TopologyChange]:
        """Change the network after the last step of an experience."""
        ...

    def after_step(self, loss: float) -> None:
        """Called after each step of a stream with hidden boundaries."""
        ...

    def scored_network(self) -> nn.Module:
        """Return what is scored in place of the network."""
        ...

    def rehearse_begin(self) -> list[TopologyChange]:
        """Make the largest change that ``begin_experience`` may make."""
        ...

    def rehearse_within(self) -> list[TopologyChange]:
        """Make the largest changes that the steps of an experience may make."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return tensors and plain values, enough to resume from a checkpoint."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore ``state_dict``."""
        ...


@dataclass
class Timers(PlainPart):
    """Seconds of the whole run, and of its training steps alone."""

    seconds: float = 0.0
    train_seconds: float = 0.0


@dataclass
class TrainState:
    """Everything that changes while a network is trained."""

    network: Network
    weighting: LossWeighting
    optimizer: torch.optim.Optimizer
    strategy: Strategy = field(init=False)  # built last, when all else is there
    rule: Rule = field(init=False)  # of growth; built after it
    loss_log: Tensor  # (step, task): losses since the last line of the log
    step: int = 0
    due: list[str] = field(default_factory=list)  # what follows the last step and is not done yet
    batches_seen: dict[str, int] = field(default_factory=dict)
    carried_states: dict[str, Any] = field(default_factory=dict)  # of text, from chunk to chunk
    scores: Scores = field(default_factory=Scores)
    stopping: EarlyStopping = field(default_factory=EarlyStopping)
    paths: PathChooser = field(default_factory=PathChooser)  # of tasks that are unknown
    topology_log: list[dict[str, Any]] = field(default_factory=list)
    growth: GrowthState = field(default_factory=GrowthState)
    timers: Timers = field(default_factory=Timers)

    def named_parameters(self) -> dict[str, nn.Parameter]:
        """Return the parameters of the network and of the loss weighting by name."""
        weights = {f"weighting.{n}": p for n, p in self.weighting.named_parameters()}
        return dict(self.network.named_parameters()) | weights

    def state_dict(self) -> dict[str, Any]:
        """Return tensors and plain values by field name, and the topology of the network."""
        saved: dict[str, Any] = {"topology": self.network.describe()}
        for entry in fields(self):
            value = getattr(self, entry.name)
            if entry.name in OPTIONAL and value == type(value)():
                continue
            if entry.name == "optimizer":
                value = optimizer_state(value, self.named_parameters())
            elif entry.name == "carried_states":
                value = {
                    task: state if isinstance(state, Tensor) else list(state)
                    for task, state in value.items()
                }
            elif hasattr(value, "state_dict"):
                value = value.state_dict()
            saved[entry.name] = value
        return saved

    def load_state_dict(
        self,
        saved: dict[str, Any],
        network: Network,
        optimizer: torch.optim.Optimizer,
        heads: Mapping[str, str],
    ) -> None:
        """Restore what ``state_dict`` returned.

        Args:
            saved: the values, with tensors on the CPU.
            network: with the saved topology and weights, on the device of the run.
            optimizer: new, for that network and the weighting of this state.
            heads: the name of the head of each task.
        """
        self.network, self.optimizer = network, optimizer
        hints = get_type_hints(TrainState)
        for entry in fields(self):
            if entry.name == "network" or entry.name not in saved:
                continue  # it has its weights; or it is at its default
            value, part = saved[entry.name], getattr(self, entry.name)
            if entry.name == "optimizer":
                load_optimizer_state(optimizer, value, self.named_parameters())
            elif entry.name == "carried_states":
                self.carried_states = {
                    task: like(network.initial(heads[task], 1), state)
                    for task, state in value.items()
                }
            elif isinstance(part, Tensor):
                part.copy_(_of_shape(value, part, entry.name))
            elif hasattr(part, "load_state_dict"):
                part.load_state_dict(value)
            else:
                setattr(self, entry.name, typed(value, hints[entry.name], entry.name))


def like(example: Any, saved: Any) -> Any:
    """Return a saved recurrent state on the device, and as the type, of an example."""
    if isinstance(example, Tensor):
        return _of_shape(saved, example, "a carried state", batch=True).to(example.device)
    parts = [like(field, part) for part, field in zip(saved, example, strict=True)]
    return type(example)(*parts)


def _of_shape(saved: Any, example: Tensor, where: str, batch: bool = False) -> Tensor:
    """Return a saved tensor if it has the shape of an example, but for the ``batch`` axis."""
    tensor: Tensor = typed(saved, Tensor, where)
    if tensor.ndim != example.ndim or tensor.shape[batch:] != example.shape[batch:]:
        shapes = tuple(tensor.shape), tuple(example.shape)
        raise UserError(f"{where} is damaged: its shape is {shapes[0]}, not {shapes[1]}.")
    return tensor
