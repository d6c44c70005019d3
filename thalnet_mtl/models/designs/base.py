"""Module designs: the layers between a module's inputs and the features that it writes.

A design gets the context and the task input of its module, side by side, and returns the features φ
and its next memory. ``Design`` itself is a short stack of dense and GRU layers. Designs are
registered as ``module``. To add one, subclass ``Design``: name the ``layers``, or keep the three
arguments and define ``memory`` and ``forward``.
"""

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Design(nn.Module):
    """A stack of dense and GRU layers, named by ``layers``.

    Args:
        inputs: width of context and task input together.
        features: width of the slot, and of the last layer.
        hidden: width of all other layers.

    Attributes:
        memory: width of the recurrent state, 0 for a design without one.
    """

    layers: ClassVar[tuple[str, ...]]

    def __init__(self, inputs: int, features: int, hidden: int):
        super().__init__()
        widths = [hidden] * (len(self.layers) - 1) + [features]
        self.stack = nn.ModuleList()
        self.memory = 0
        for layer, width in zip(self.layers, widths, strict=True):
            self.stack.append(
                nn.GRUCell(inputs, width) if layer == "gru" else nn.Linear(inputs, width)
            )
            self.memory += width if layer == "gru" else 0
            inputs = width

    def forward(
        self, x: Float[Tensor, "batch inputs"], memory: Float[Tensor, "batch memory"]
    ) -> tuple[Float[Tensor, "batch features"], Float[Tensor, "batch memory"]]:
        """Return features and memory after one step. Dense layers apply tanh, so φ is bounded."""
        # By name, since the layer may have been replaced, by quantization for example.
        for name, layer in zip(self.layers, self.stack, strict=True):
            if name == "gru":
                x = memory = layer(x, memory)
            else:
                x = torch.tanh(layer(x))
        return x, memory

    def is_stack(self) -> bool:
        """Return whether a step only applies the layers of ``stack`` in order.

        If so, fast backends compute the layers themselves and do not call ``forward``.
        """
        return type(self).forward is Design.forward


class Lesioned(Design):
    """A stand-in for the design of a lesioned module: its features are 0 at every step."""

    layers = ()

    def __init__(self, design: Design, features: int):
        nn.Module.__init__(self)
        self.stack, self.memory, self.features = nn.ModuleList(), design.memory, features

    def forward(
        self, x: Float[Tensor, "batch inputs"], memory: Float[Tensor, "batch memory"]
    ) -> tuple[Float[Tensor, "batch features"], Float[Tensor, "batch memory"]]:
        return x.new_zeros(len(x), self.features), memory
