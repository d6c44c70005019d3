"""Calls of the recurrent modules of PyTorch on padded batches."""

from collections.abc import Mapping
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.utils._pytree import tree_map

from thalnet_mtl.ops.inputs import Inputs
from thalnet_mtl.ops.lengths import Lengths, are_hidden, past_end, zero_past_end
from thalnet_mtl.ops.reference import keep


def zeros_like_batch(xs: Inputs, *shape: int) -> Tensor:
    """Return zeros of a shape for every sequence of a batch."""
    assert not isinstance(xs, Mapping)
    return xs.new_zeros(xs.shape[0], *shape)


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


def layers_first(state: Tensor) -> Tensor:
    """Return a state of a module of PyTorch from one with the batch first."""
    return rearrange(state, "batch layers features -> layers batch features").contiguous()


def batch_first(state: Tensor) -> Tensor:
    """Return a state with the batch first from one of a module of PyTorch."""
    return rearrange(state, "layers batch features -> batch layers features")
