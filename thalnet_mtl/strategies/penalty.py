"""Strategies that keep what earlier experiences taught, for networks that may grow meanwhile.

Penalties and anchors go by the names of parameters: what a network grows has none, and what was
there keeps its own. Tasks may differ in shape: memories are kept, and gradients taken, by task.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from thalnet_mtl.models.change import TopologyChange
from thalnet_mtl.strategies.base import Naive, learning
from thalnet_mtl.tasks.base import Batch
from thalnet_mtl.training.state import Run

Named = dict[str, Tensor]


class QuadraticPenalty(Naive):
    """strength / 2 · Σ_a Σ_k Ω_ak (θ_k − θ*_ak)², anchors θ* with an importance Ω each."""

    def __init__(self, run: Run):
        super().__init__(run)
        self.anchors: list[tuple[Named, Named]] = []  # θ*, Ω

    def penalty(self, run: Run, batches: Mapping[str, Batch]) -> Tensor | None:
        now = learning(run.network)
        terms = [
            (weight[name] * (now[name] - anchor[name]).square()).sum()
            for anchor, weight in self.anchors
            for name in weight
            if name in now
        ]
        return self.options.strength / 2 * torch.stack(terms).sum() if terms else None

    def after_topology_change(self, change: TopologyChange) -> None:
        for named in (part for anchor in self.anchors for part in anchor):
            remap_named(named, change)

    def state_dict(self) -> dict[str, Any]:
        return {"anchors": [list(anchor) for anchor in self.anchors]}

    def load_state_dict(self, run: Run, state: dict[str, Any]) -> None:
        self.anchors = [
            (to_device(anchor, run), to_device(weight, run)) for anchor, weight in state["anchors"]
        ]


def to_device(named: Named, run: Run) -> Named:
    """Tensors by name where the run is."""
    return {name: tensor.to(run.device) for name, tensor in named.items()}


def remap_named(named: Named, change: TopologyChange) -> None:
    """Bring tensors by the name of a parameter along: zero where it has grown."""
    if change.verb in ("detach", "remove_task"):  # what comes later by this name is another
        for name in change.removed:
            named.pop(name, None)
    for name, grown in change.grown.items():
        if name in named:
            named[name] = grown.remap(named[name])
