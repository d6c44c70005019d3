"""The cost of a network and of a strategy: arithmetic operations, and bytes that are stored."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from thalnet_mtl.models.modes import evaluation_mode
from thalnet_mtl.models.network import Network
from thalnet_mtl.topology.spec import AdapterSpec


@torch.no_grad()
def count_macs(network: Network, task: str, xs: Tensor) -> int:
    """Return the multiply-adds of all matrix products for these inputs, at every step.

    Encoders and head are included. PyTorch counts them with the ``reference`` backend, which does
    not merge a reading with the layer behind it. The fused kernel of an LSTM would hide its
    products from the counter, so that it is switched off. The network is in evaluation mode.
    """
    from torch.utils.flop_counter import FlopCounterMode  # imports Triton where there is one

    body, ops = network.body, network.body.ops
    counter, mkldnn = FlopCounterMode(display=False), torch.backends.mkldnn.enabled
    try:
        torch.backends.mkldnn.set_flags(False)
        body.ops = "reference"
        with evaluation_mode(network), counter:
            network(task, xs)
    finally:
        torch.backends.mkldnn.set_flags(mkldnn)
        body.ops = ops
    return counter.get_total_flops() // 2


class MacCounter:
    """A counter of multiply-adds that remembers what it has counted.

    A task is counted anew only if other modules, or modules with other readings, run for it.
    """

    def __init__(self) -> None:
        self._counted: dict[str, tuple[AdapterSpec, tuple[str, ...], int]] = {}

    def count(self, network: Network, task: str, inputs: Iterator[Tensor]) -> int:
        """Return the multiply-adds of a task for the first of some inputs."""
        active = network.active_modules(task)
        adapter = replace(network.adapter(task).spec, frozen=False)
        counted = self._counted.get(task)
        if counted is None or counted[0] != adapter or counted[1] is not active:
            counted = adapter, active, count_macs(network, task, next(inputs))
            self._counted[task] = counted
        return counted[2]


def stored_bytes(tree: Any) -> int:
    """Return the bytes of all tensors in nested containers."""
    tensors = [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
