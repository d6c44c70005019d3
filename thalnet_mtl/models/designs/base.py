"""Module designs: the layers between a module's inputs and the features that it writes.

A design gets the context and the task input of its module, side by side, and returns the features φ
and its next memory. ``Design`` itself is a short stack of dense and GRU layers. Designs are
registered as ``module``. To add one, subclass ``Design``: name the ``layers``, or keep the three
arguments and define ``memory`` and ``forward``. For the options zoneout, orthogonal and chrono it
also takes ``keep`` in ``forward`` and defines ``recurrent_weights`` and ``set_time_scales``.
"""

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from thalnet_mtl.models.initialization import chrono_bias


class Design(nn.Module):
    """A stack of dense and GRU layers, named by ``layers``.

    Args:
        inputs: width of context and task input together.
        features: width of the slot, and of the last layer.
        hidden: width of all other layers.

    Attributes:
        memory: width of the recurrent state, 0 for a design without one.
        about: what it has that fast backends cannot compute, for their messages.
    """

    layers: ClassVar[tuple[str, ...]]
    about: str
    noise: int = 0  # width of the random numbers that it takes beside its inputs

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
        self,
        x: Float[Tensor, "batch inputs"],
        memory: Float[Tensor, "batch memory"],
        keep: Float[Tensor, "batch memory"] | None = None,
    ) -> tuple[Float[Tensor, "batch features"], Float[Tensor, "batch memory"]]:
        """Return features and memory after one step. Dense layers apply tanh, so φ is bounded.

        ``keep`` is the share of its old value that each unit of the memory keeps; None: nothing.
        """
        # By name, since the layer may have been replaced, by quantization for example.
        for name, layer in zip(self.layers, self.stack, strict=True):
            if name == "gru":
                x = memory = zone_out(memory, layer(x, memory), keep)
            else:
                x = torch.tanh(layer(x))
        return x, memory

    def is_stack(self) -> bool:
        """Return whether a step only applies the layers of ``stack`` in order.

        If so, fast backends compute the layers themselves and do not call ``forward``.
        """
        return type(self).forward is Design.forward

    def grus(self) -> list[nn.GRUCell]:
        """Return the GRUs of the stack; of a design that is no stack, none."""
        if not self.is_stack():
            return []
        return [layer for layer in self.stack if isinstance(layer, nn.GRUCell)]

    def recurrent_weights(self) -> list[Tensor]:
        """Return the weights of the memory: (gates · memory, memory), a square for each gate."""
        return [layer.weight_hh for layer in self.grus()]

    def set_time_scales(self, steps: int) -> bool:
        """Set the biases of update gates by ``chrono_bias``; return whether there are any."""
        for layer in self.grus():
            set_gru_time_scales(layer.bias_ih, layer.bias_hh, steps)
        return bool(self.grus())


@torch.no_grad()
def set_gru_time_scales(input_bias: Tensor, state_bias: Tensor, steps: int) -> None:
    """Set the biases of the update gates of a GRU of PyTorch, which keeps σ(bias) of its state."""
    update = slice(len(input_bias) // 3, 2 * len(input_bias) // 3)
    input_bias[update] = chrono_bias(len(input_bias) // 3, steps).to(input_bias)
    state_bias[update] = 0.0


def zone_out(before: Tensor, after: Tensor, keep: Tensor | None) -> Tensor:
    """Return h = k ⊙ h_before + (1 − k) ⊙ h_after, with k random bits or their probability.

    Krueger et al., "Zoneout: Regularizing RNNs by Randomly Preserving Hidden Activations", 2017.
    """
    if keep is None:
        return after
    return torch.lerp(after.to(before.dtype), before, keep.to(before.dtype))


class Lesioned(Design):
    """A stand-in for the design of a lesioned module: its features are 0 at every step."""

    layers = ()

    def __init__(self, design: Design, features: int):
        nn.Module.__init__(self)
        self.stack, self.memory, self.features = nn.ModuleList(), design.memory, features

    def forward(
        self,
        x: Float[Tensor, "batch inputs"],
        memory: Float[Tensor, "batch memory"],
        keep: Float[Tensor, "batch memory"] | None = None,
    ) -> tuple[Float[Tensor, "batch features"], Float[Tensor, "batch memory"]]:
        return x.new_zeros(len(x), self.features), memory
