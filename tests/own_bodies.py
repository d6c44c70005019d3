"""Modules that are called like nn.GRU, registered as bodies as a user's plug-in would."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from thalnet_mtl.registry import register


@register("body", "leaky")
class Leaky(nn.Module):
    """A leaky average of a dense layer; its state has the batch second, as in nn.GRU."""

    def __init__(self, input_size: int, hidden_size: int, leak: float = 0.5, gain: float = 1.0):
        super().__init__()
        self.input_size, self.hidden_size = input_size, hidden_size
        self.leak, self.gain = leak, gain
        self.dense = nn.Linear(input_size + hidden_size, hidden_size)

    def forward(self, xs: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        h = xs.new_zeros(len(xs), self.hidden_size) if state is None else state[0]
        ys = []
        for x in xs.unbind(1):
            new = torch.tanh(self.gain * self.dense(torch.cat([x, h], 1)))
            h = self.leak * h + (1 - self.leak) * new
            ys.append(h)
        return torch.stack(ys, 1), h[None]


class NestedState(NamedTuple):
    """A state in three containers, with the batch at the end and at the start."""

    deep: tuple[Tensor]
    total: list[Tensor]


@register("body", "nested")
class Nested(nn.Module):
    """A GRU cell that adds the mean of all inputs so far; its state is nested."""

    def __init__(self, inputs: int = 3, features: int = 4):
        super().__init__()
        self.inputs, self.features = inputs, features
        self.cell = nn.GRUCell(inputs, features)

    def forward(self, xs: Tensor, state: Any = None) -> tuple[Tensor, NestedState]:
        if state is None:
            state = NestedState((xs.new_zeros(self.features, len(xs)),), [xs.new_zeros(len(xs))])
        h, total, ys = state.deep[0].T, state.total[0], []
        for x in xs.unbind(1):
            h, total = self.cell(x, h), total + x.mean(1)
            ys.append(h + total[:, None])
        return torch.stack(ys, 1), NestedState((h.T,), [total])
