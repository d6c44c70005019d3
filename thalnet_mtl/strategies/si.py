"""Strategies that keep what earlier experiences taught, for networks that may grow meanwhile.

Penalties and anchors go by the names of parameters: what a network grows has none, and what was
there keeps its own. Tasks may differ in shape: memories are kept, and gradients taken, by task.
"""

from collections.abc import Mapping
from typing import Any

import torch

from thalnet_mtl.models.change import TopologyChange
from thalnet_mtl.registry import register
from thalnet_mtl.strategies.base import learning
from thalnet_mtl.strategies.penalty import Named, QuadraticPenalty, remap_named, to_device
from thalnet_mtl.tasks.base import Batch
from thalnet_mtl.tasks.stream import Experience
from thalnet_mtl.training.state import Run

LEAST = 0.1  # ξ of synaptic intelligence, as its authors


@register("strategy", "si")
class SynapticIntelligence(QuadraticPenalty):
    """Synaptic intelligence: Ω_k += max(0, ω_k) / (Δ_k² + ξ), with ω_k = −Σ_steps g_k Δθ_k.

    Zenke, Poole, Ganguli, "Continual Learning Through Synaptic Intelligence", ICML 2017. g is the
    gradient of the losses alone, Δ_k how far a weight went in the experience; the penalty is
    strength · Σ Ω (θ − θ*)², of the latest weights.
    """

    def __init__(self, run: Run):
        super().__init__(run)
        self.start: Named = {}  # weights where the experience began
        self.path: Named = {}  # ω
        self.before: Named = {}  # weights and gradients of this step
        self.gradients: Named = {}

    def after_backward(self, run: Run) -> None:
        now = learning(run.network)
        for name, parameter in now.items():
            if name not in self.start:
                self.start[name] = parameter.detach().clone()
                self.path[name] = torch.zeros_like(parameter)
        self.before = {name: p.detach().clone() for name, p in now.items()}
        self.gradients = {n: p.grad.clone() for n, p in now.items() if p.grad is not None}

    def after_update(self, run: Run, batches: Mapping[str, Batch]) -> None:
        now = learning(run.network)
        for name, gradient in self.gradients.items():
            self.path[name] -= gradient * (now[name].detach() - self.before[name])

    def after_experience(self, run: Run, experience: Experience) -> None:
        now = learning(run.network)
        old = self.anchors[0][1] if self.anchors else {}
        weight: Named = {}
        for name in self.path:
            if name in now:
                far = now[name].detach() - self.start[name]
                gained = 2 * self.path[name].clamp(min=0) / (far.square() + LEAST)
                weight[name] = gained + old.get(name, 0)
        self.anchors = [({n: now[n].detach().clone() for n in weight}, weight)]
        self.start, self.path = {}, {}

    def after_topology_change(self, change: TopologyChange) -> None:
        super().after_topology_change(change)
        for named in (self.start, self.path):
            remap_named(named, change)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"start": self.start, "path": self.path}

    def load_state_dict(self, run: Run, state: dict[str, Any]) -> None:
        super().load_state_dict(run, state)
        self.start, self.path = to_device(state["start"], run), to_device(state["path"], run)
