"""What a network and a strategy cost: parameters, arithmetic through time, and what they store."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from thalnet_mtl.models.build import count_parameters
from thalnet_mtl.models.network import Network
from thalnet_mtl.models.thalnet import ThalNet


def parameter_counts(network: Network) -> dict[str, int]:
    """Parameters, and how many of them learn."""
    total = count_parameters(network)
    learned = sum(p.numel() for p in network.parameters() if p.requires_grad)
    return {"total": total, "trainable": learned, "frozen": total - learned}


@torch.no_grad()
def count_macs(network: Network, port: str, xs: Tensor) -> int:
    """Those of all matrix products for these inputs, at every step, encoders and head included.

    Counted by PyTorch on the level that defines a ThalNet: readings are not composed with what is
    behind them there. A fused kernel would hide those of an LSTM.
    """
    body = network.body
    before = body.ops if isinstance(body, ThalNet) else ""
    counter, fused = FlopCounterMode(display=False), torch.backends.mkldnn.enabled
    try:
        torch.backends.mkldnn.set_flags(False)
        if isinstance(body, ThalNet):
            body.ops = "reference"
        with counter:
            network(port, xs)
    finally:
        torch.backends.mkldnn.set_flags(fused)
        if isinstance(body, ThalNet):
            body.ops = before
    return counter.get_total_flops() // 2


def stored_bytes(kept: Any) -> int:
    """Bytes of all tensors in some nested data."""
    tensors = [leaf for leaf in tree_leaves(kept) if isinstance(leaf, Tensor)]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
