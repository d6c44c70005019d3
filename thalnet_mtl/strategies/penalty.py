"""Quadratic penalties that pull parameters to their earlier values, also while a network grows."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from thalnet_mtl.config.values import Range
from thalnet_mtl.errors import UserError
from thalnet_mtl.models.change import TopologyChange
from thalnet_mtl.strategies.base import Strategy, TrainingContext, trainable_parameters
from thalnet_mtl.tasks.batch import Batch

NamedTensors = dict[str, Tensor]  # by the name of a parameter
Strength = Annotated[float, Range(low=0.0)]  # an option: the factor of a penalty
Interval = Annotated[int, Range(low=1)]  # an option: steps
INTERVAL = 100  # its default


class QuadraticPenalty(Strategy):
    """strength / 2 · Σ_a Σ_k Ω_ak (θ_k − θ*_ak)², with an importance Ω_a for each anchor θ*_a.

    Anchors go by the names of parameters. Parameters that a network grows later are not in them
    and stay free; those that were there keep their anchors, also while they are frozen.

    Args:
        context: of the run.
        strength: factor of the penalty.
    """

    only_after_experience: ClassVar[bool] = True

    def __init__(self, context: TrainingContext, strength: Strength = 1.0):
        super().__init__(context)
        self.strength = strength
        self.anchors: list[tuple[NamedTensors, NamedTensors]] = []  # θ*, Ω

    def penalty(self, batches: Mapping[str, Batch]) -> Tensor | None:
        parameters = trainable_parameters(self.context.network)
        terms = [
            (importance[name] * (parameters[name] - anchor[name]).square()).sum()
            for anchor, importance in self.anchors
            for name in importance
            if name in parameters
        ]
        return self.strength / 2 * torch.stack(terms).sum() if terms else None

    def after_topology_change(self, change: TopologyChange) -> None:
        self.anchors = [
            (change.update_named(anchor), change.update_named(importance))
            for anchor, importance in self.anchors
        ]

    def state_dict(self) -> dict[str, Any]:
        return {"anchors": [list(anchor) for anchor in self.anchors]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        device = self.context.device
        self.anchors = [
            (to_device(anchor, device), to_device(importance, device))
            for anchor, importance in state["anchors"]
        ]


def check_interval(context: TrainingContext, interval: int) -> None:
    """Raise if an interval is set that has no effect, as boundaries are announced."""
    if context.announced and interval != INTERVAL:
        raise UserError(
            f"strategy.interval {interval} has no effect: train.boundaries is announced, so that "
            f"the strategy acts after an experience."
        )


def interval_ends(context: TrainingContext, interval: int) -> bool:
    """Return whether boundaries are hidden and this step is the last of an interval."""
    return not context.announced and (context.step + 1) % interval == 0


def to_device(named: NamedTensors, device: torch.device) -> NamedTensors:
    """Return named tensors on a device."""
    return {name: tensor.to(device) for name, tensor in named.items()}
