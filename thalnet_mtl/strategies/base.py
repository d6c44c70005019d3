"""What a strategy may do in a run: the contract, and the one that does nothing."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from thalnet_mtl.models.change import TopologyChange
from thalnet_mtl.registry import register
from thalnet_mtl.tasks.stream import Experience


@register("strategy", "naive")
class Naive:
    """Nothing: every experience is learned as it comes. The base of the others.

    In a step come ``loss``, ``learned`` and ``moved``, in this order; ``run`` is the ``Run``.
    """

    def __init__(self, run: Any):
        self.options = run.config.strategy

    def rehearsed_tasks(self, run: Any, batches: Mapping[str, Any]) -> list[str]:
        """Tasks of earlier experiences whose parameters are learned as well in this step."""
        return []

    def after_backward(self, run: Any) -> None:
        """The gradients of the losses of this step's tasks are there, and nothing else is yet."""

    def penalty(self, run: Any, batches: Mapping[str, Any]) -> Tensor | None:
        """What is added to the losses of this step's tasks."""
        return None

    def before_update(self, run: Any) -> None:
        """All gradients are there, and may be changed."""

    def after_update(self, run: Any, batches: Mapping[str, Any]) -> None:
        """The parameters have moved; these batches were learned from."""

    def after_experience(self, run: Any, experience: Experience) -> None:
        """An experience is over."""

    def after_topology_change(self, change: TopologyChange) -> None:
        """The network has changed."""

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values from which it goes on."""
        return {}

    def load_state_dict(self, run: Any, state: dict[str, Any]) -> None:
        """Go on from there, on the device of the run; what was read is on the CPU."""


def learning(network: nn.Module) -> dict[str, nn.Parameter]:
    """What learns, by name."""
    return {name: p for name, p in network.named_parameters() if p.requires_grad}
