"""Baselines for ThalNet: a stacked LSTM, and an MLP on the flattened input."""

from itertools import pairwise
from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from thalnet_mtl.models.body import Body
from thalnet_mtl.models.run_rnn import batch_first, layers_first, run_rnn, zeros_like_batch
from thalnet_mtl.ops.inputs import Inputs
from thalnet_mtl.ops.lengths import Lengths
from thalnet_mtl.registry import register


class LSTMState(NamedTuple):
    """The hidden and the cell state of every layer."""

    hidden: Float[Tensor, "batch layers features"]
    cell: Float[Tensor, "batch layers features"]

    def detach(self) -> "LSTMState":
        """Return the state without its history, for truncated back-propagation."""
        return LSTMState(self.hidden.detach(), self.cell.detach())


@register("body", "lstm")
class StackedLSTM(Body):
    """A ``torch.nn.LSTM`` whose state has the batch first."""

    def __init__(self, inputs: int, features: int, layers: int = 4):
        super().__init__()
        self.inputs, self.features, self.layers = inputs, features, layers
        self.outputs = features
        self.rnn = nn.LSTM(inputs, features, layers, batch_first=True)

    def initial(self, xs: Inputs) -> LSTMState:
        zeros = zeros_like_batch(xs, self.layers, self.outputs)
        return LSTMState(zeros, zeros.clone())

    def run(
        self, xs: Tensor, state: LSTMState, lengths: Lengths | None = None
    ) -> tuple[Tensor, LSTMState]:
        hidden, cell = (layers_first(part) for part in state)
        ys, (hidden, cell) = run_rnn(self.rnn, xs, (hidden, cell), lengths)
        parts = (batch_first(part).to(xs.dtype) for part in (hidden, cell))
        return ys.to(xs.dtype), LSTMState(*parts)


@register("body", "mlp")
class MLP(Body):
    """An MLP of dense ReLU layers on the last ``window`` inputs, flattened.

    Its state is the window, zeros at first, so that it streams like a recurrent body. It returns
    one output a call, after the last input; a step costs as much as a whole sequence. The window of
    a sequence that is shorter than its batch ends with its own last input.
    """

    recurrent = False

    def __init__(self, inputs: int, features: int, layers: int = 4, window: int = 28):
        super().__init__()
        self.inputs, self.features, self.layers = inputs, features, layers
        self.outputs, self.window = features, window
        widths = [inputs * window, *[features] * layers]
        self.dense = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(widths))

    def initial(self, xs: Inputs) -> Float[Tensor, "batch window inputs"]:
        return zeros_like_batch(xs, self.window, self.inputs)

    def run(
        self, xs: Tensor, state: Tensor, lengths: Lengths | None = None
    ) -> tuple[Float[Tensor, "batch 1 outputs"], Tensor]:
        rows = torch.cat([state, xs], dim=1)
        if lengths is None:
            state = rows[:, -self.window :]
        else:
            index = lengths[:, None] + torch.arange(self.window, device=xs.device)
            state = rows.gather(1, index[..., None].expand(-1, -1, self.inputs))
        y = rearrange(state, "batch window inputs -> batch (window inputs)")
        for layer in self.dense:
            y = torch.relu(layer(y))
        return rearrange(y, "batch outputs -> batch 1 outputs").to(xs.dtype), state
