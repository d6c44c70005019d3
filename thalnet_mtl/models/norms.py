"""Norms of what modules and layers read, write and compute their gates from."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thalnet_mtl.ops.batched import gru


class RMSNorm(nn.RMSNorm):
    """γ ⊙ x / √(mean(x²) + 1e-4) over the last axis, in the precision of γ also under autocast.

    1e-4 is that of DreamerV3. Zhang, Sennrich, "Root Mean Square Layer Normalization", 2019.
    """

    def __init__(self, width: int):
        super().__init__(width, 1e-4)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(self.weight.dtype))


def normed_gates(x: Tensor, weight: Tensor, bias: Tensor, gain: Tensor) -> Tensor:
    """Return LN(W x) ⊙ g + b, with a layer norm for each of the three gates of a GRU.

    Ba, Kiros, Hinton, "Layer Normalization", 2016, equations 18 to 20, with a norm a gate.
    """
    products = F.linear(x, weight).to(gain.dtype).unflatten(-1, (3, -1))
    return F.layer_norm(products, products.shape[-1:]).flatten(-2) * gain + bias


def gru_gates(from_input: Tensor, from_state: Tensor, state: Tensor) -> Tensor:
    """Return the next state of a GRU from the parts of its gates; see ``ops.batched.gru``."""
    return gru(from_input[None], from_state[None], state[None])[0]


class NormedGRUCell(nn.GRUCell):
    """A GRU whose gates are normalized: the parts from its input and from its state, each alone."""

    def __init__(self, inputs: int, width: int):
        super().__init__(inputs, width)
        self.input_gain = nn.Parameter(torch.ones(3 * width))
        self.state_gain = nn.Parameter(torch.ones(3 * width))

    def forward(self, x: Tensor, state: Tensor | None = None) -> Tensor:
        assert state is not None
        from_input = normed_gates(x, self.weight_ih, self.bias_ih, self.input_gain)
        from_state = normed_gates(state, self.weight_hh, self.bias_hh, self.state_gain)
        return gru_gates(from_input, from_state, state)
