"""Synaptic intelligence: importance of parameters from their share in lowering the loss."""

from collections.abc import Mapping
from typing import Any

import torch

from thalnet_mtl.models.change import TopologyChange
from thalnet_mtl.registry import register
from thalnet_mtl.strategies.base import TrainingContext, trainable_parameters
from thalnet_mtl.strategies.penalty import (
    INTERVAL,
    Interval,
    NamedTensors,
    QuadraticPenalty,
    Strength,
    check_interval,
    interval_ends,
    to_device,
)
from thalnet_mtl.tasks.batch import Batch
from thalnet_mtl.tasks.stream import Experience

DAMPING = 0.1  # ξ, as in the paper


@register("strategy", "si")
class SynapticIntelligence(QuadraticPenalty):
    """Synaptic intelligence: Ω_k += max(0, ω_k) / (Δ_k² + ξ), with ω_k = −Σ_steps g_k Δθ_k.

    Zenke, Poole, Ganguli, "Continual Learning Through Synaptic Intelligence", ICML 2017. g is the
    gradient of the task losses without the penalty, Δ_k the change of a parameter over the
    experience; the penalty is strength · Σ Ω (θ − θ*)², with the latest weights as θ*.

    With hidden boundaries, every ``interval`` steps count as an experience, as in RWalk
    (Chaudhry et al., ECCV 2018), which also adds up scores over intervals.

    Args:
        context: of the run.
        strength: factor of the penalty.
        interval: steps after which Ω and θ* are updated, with hidden boundaries.
    """

    needs_boundaries = ""

    def __init__(
        self, context: TrainingContext, strength: Strength = 1.0, interval: Interval = INTERVAL
    ):
        super().__init__(context, strength)
        check_interval(context, interval)
        self.interval = interval
        self.start: NamedTensors = {}  # parameters at the start of the experience
        self.path: NamedTensors = {}  # ω
        self.before: NamedTensors = {}  # parameters and gradients before the update of this step
        self.gradients: NamedTensors = {}

    def after_backward(self) -> None:
        parameters = trainable_parameters(self.context.network)
        for name, parameter in parameters.items():
            if name not in self.start:
                self.start[name] = parameter.detach().clone()
                self.path[name] = torch.zeros_like(parameter)
        self.before = {name: p.detach().clone() for name, p in parameters.items()}
        self.gradients = {n: p.grad.clone() for n, p in parameters.items() if p.grad is not None}

    def after_update(self, batches: Mapping[str, Batch]) -> None:
        parameters = trainable_parameters(self.context.network)
        for name, gradient in self.gradients.items():
            self.path[name] -= gradient * (parameters[name].detach() - self.before[name])
        if interval_ends(self.context, self.interval):
            self.consolidate()

    def after_experience(self, experience: Experience) -> None:
        self.consolidate()

    def consolidate(self) -> None:
        """Add to the importance what was learned since the last time; keep the weights."""
        parameters = dict(self.context.network.named_parameters())  # also those frozen by now
        anchor, importance = map(dict, self.anchors[0]) if self.anchors else ({}, {})
        for name, path in self.path.items():
            anchor[name] = parameters[name].detach().clone()
            distance = anchor[name] - self.start[name]
            # Twice, because the penalty of the base class has a factor of 1 / 2.
            increase = 2 * path.clamp(min=0) / (distance.square() + DAMPING)
            importance[name] = increase + importance.get(name, 0)
        self.anchors = [(anchor, importance)]
        self.start, self.path = {}, {}

    def after_topology_change(self, change: TopologyChange) -> None:
        super().after_topology_change(change)
        self.start, self.path = change.update_named(self.start), change.update_named(self.path)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"start": self.start, "path": self.path}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        device = self.context.device
        self.start, self.path = to_device(state["start"], device), to_device(state["path"], device)
