"""Baselines for ThalNet: a stacked GRU, a stacked LSTM, and an MLP on the flattened input."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.utils._pytree import tree_map

from thalnet_mtl.models.body import Body
from thalnet_mtl.ops.inputs import Inputs
from thalnet_mtl.ops.lengths import Lengths, are_hidden, past_end, zero_past_end
from thalnet_mtl.ops.reference import keep
from thalnet_mtl.registry import register


def _zeros(xs: Inputs, *shape: int) -> Tensor:
    """Return zeros of a shape for every sequence of a batch."""
    assert not isinstance(xs, Mapping)
    return xs.new_zeros(xs.shape[0], *shape)


@register("body", "gru")
class StackedGRU(Body):
    """A ``torch.nn.GRU`` whose state has the batch first: (batch, layers, features)."""

    def __init__(self, inputs: int, features: int, layers: int = 4):
        super().__init__()
        self.inputs, self.features, self.layers = inputs, features, layers
        self.outputs = features
        self.rnn = nn.GRU(inputs, features, layers, batch_first=True)

    def initial(self, xs: Inputs) -> Tensor:
        return _zeros(xs, self.layers, self.outputs)

    def run(
        self, xs: Tensor, state: Tensor, lengths: Lengths | None = None
    ) -> tuple[Tensor, Tensor]:
        ys, state = run_rnn(self.rnn, xs, _layers_first(state), lengths)
        return ys.to(xs.dtype), _batch_first(state).to(xs.dtype)


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
        zeros = _zeros(xs, self.layers, self.outputs)
        return LSTMState(zeros, zeros.clone())

    def run(
        self, xs: Tensor, state: LSTMState, lengths: Lengths | None = None
    ) -> tuple[Tensor, LSTMState]:
        hidden, cell = (_layers_first(part) for part in state)
        ys, (hidden, cell) = run_rnn(self.rnn, xs, (hidden, cell), lengths)
        parts = (_batch_first(part).to(xs.dtype) for part in (hidden, cell))
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
        return _zeros(xs, self.window, self.inputs)

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


def run_rnn(rnn: nn.Module, xs: Tensor, state: Any, lengths: Lengths | None) -> tuple[Tensor, Any]:
    """Run a module of PyTorch on a padded batch; with lengths on a packed one.

    Where nobody can read the lengths, as in a trace, no shape may depend on them: it goes step by
    step, as it does for ``torch.func``, which cannot pack sequences. cuDNN has gradients in
    training mode only, so that a frozen module with gradients does without it.
    """
    if xs.is_cuda and not rnn.training and torch.is_grad_enabled():
        with torch.backends.cudnn.flags(enabled=False):
            return _run_rnn(rnn, xs, state, lengths)
    return _run_rnn(rnn, xs, state, lengths)


def _run_rnn(rnn: nn.Module, xs: Tensor, state: Any, lengths: Lengths | None) -> tuple[Tensor, Any]:
    if lengths is None:
        return rnn(xs, state)
    if are_hidden(lengths) or torch._C._functorch.is_functorch_wrapped_tensor(xs):
        return _run_stepwise(rnn, xs, state, lengths)
    lengths = lengths.cpu()  # where PyTorch wants them
    shared = 0 if xs.is_cuda or not len(lengths) else int(lengths.min())
    if not shared:
        return _run_packed(rnn, xs, state, lengths)
    # On a CPU a step of a packed batch costs more, so the steps that all sequences have are plain.
    begin, state = rnn(xs[:, :shared], state)
    longer = (lengths > shared).nonzero().squeeze(1)
    if not len(longer):
        return F.pad(begin, (0, 0, 0, xs.shape[1] - shared)), state
    part = tree_map(lambda each: each.index_select(1, longer), state)
    rest = xs[:, shared:].index_select(0, longer)
    ends, part = _run_packed(rnn, rest, part, lengths[longer] - shared)
    padded = ends.new_zeros(len(xs), *ends.shape[1:]).index_copy(0, longer, ends)
    merged = tree_map(lambda each, new: each.index_copy(1, longer, new), state, part)
    return torch.cat([begin, padded], dim=1), merged


def _run_packed(rnn: nn.Module, xs: Tensor, state: Any, lengths: Lengths) -> tuple[Tensor, Any]:
    packed = pack_padded_sequence(xs, lengths, batch_first=True, enforce_sorted=False)
    ys, state = rnn(packed, state)
    return pad_packed_sequence(ys, batch_first=True, total_length=xs.shape[1])[0], state


def _run_stepwise(rnn: nn.Module, xs: Tensor, state: Any, lengths: Lengths) -> tuple[Tensor, Any]:
    past, ys = past_end(lengths, xs.shape[1]), []
    for t, x in enumerate(zero_past_end(xs, lengths).split(1, dim=1)):
        y, after = rnn(x, state)
        ys.append(y)
        if isinstance(state, Tensor):
            state = keep(past, t, state, after)
        else:
            pairs = zip(state, after, strict=True)
            state = tuple(keep(past, t, *pair) for pair in pairs)
    return zero_past_end(torch.cat(ys, dim=1), lengths), state


def _layers_first(state: Tensor) -> Tensor:
    return rearrange(state, "batch layers features -> layers batch features").contiguous()


def _batch_first(state: Tensor) -> Tensor:
    return rearrange(state, "layers batch features -> batch layers features")
