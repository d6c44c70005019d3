"""Module designs: what a module computes from its context and its task input (poster, section 3).

A design is a short stack of dense and GRU layers, read off its name: ``ff_gru`` is a dense layer
under a GRU. The last layer's output is what the module writes to the center, its features φ.
Registered as ``module``; a design of your own is a ``Design`` with the same three arguments, its
own ``memory`` and its own ``forward``.
"""

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from thalnet_mtl.registry import register


class Design(nn.Module):
    """The contract: ``Design(inputs, features, hidden)``, ``memory`` and ``forward``.

    ``inputs`` is the width of context and task input together, ``features`` that of the slot,
    ``hidden`` that of every layer but the last. ``memory`` is the width of the recurrent state,
    0 for a design without one.
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
        """One step: features and the next memory. Dense layers end in tanh: φ stays bounded."""
        for layer in self.stack:
            if isinstance(layer, nn.GRUCell):
                x = memory = layer(x, memory)
            else:
                x = torch.tanh(layer(x))
        return x, memory

    def is_stack(self) -> bool:
        """Return whether a step is nothing but the layers of ``stack``, one after another.

        Fast backends then compute the layers themselves, without calling ``forward``.
        """
        return type(self).forward is Design.forward


@register("module", "ff")
class FF(Design):
    """Two dense layers, no memory but the center."""

    layers = ("ff", "ff")


@register("module", "gru")
class GRU(Design):
    """A GRU, with the equations of ``torch.nn.GRU``."""

    layers = ("gru",)


@register("module", "ff_gru")
class FFGRU(Design):
    """A dense layer under a GRU: the authors' default."""

    layers = ("ff", "gru")


@register("module", "gru_ff")
class GRUFF(Design):
    """A GRU under a dense layer."""

    layers = ("gru", "ff")


@register("module", "ff_gru_ff")
class FFGRUFF(Design):
    """A GRU between two dense layers."""

    layers = ("ff", "gru", "ff")


class Silent(Design):
    """Stands in for the design of a module that is to say nothing: φ = 0 at every step."""

    layers = ()

    def __init__(self, design: Design, features: int):
        nn.Module.__init__(self)
        self.stack, self.memory, self.features = nn.ModuleList(), design.memory, features

    def forward(
        self, x: Float[Tensor, "batch inputs"], memory: Float[Tensor, "batch memory"]
    ) -> tuple[Float[Tensor, "batch features"], Float[Tensor, "batch memory"]]:
        return x.new_zeros(len(x), self.features), memory
