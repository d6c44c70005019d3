"""A call of a recurrent body in every form that ``nn.GRU`` takes, brought to one padded batch.

Sequences come as a padded batch, with ``lengths`` if they differ, as a ``PackedSequence``, or alone
without a batch axis. A state may be a list or a tuple of its parts.
"""

from collections.abc import Callable
from typing import Any

import torch
from einops import repeat
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from thalnet_mtl.errors import UserError
from thalnet_mtl.models.checks import check_lengths, check_sub_steps, kind_of
from thalnet_mtl.ops.inputs import Inputs, first_input, map_inputs
from thalnet_mtl.ops.lengths import Lengths


def run_sequences(
    check: Callable[[Inputs], Inputs],
    initial: Callable[[Inputs], Any],
    run: Callable[[Any, Any, Lengths | None], tuple[Tensor, Any]],
    xs: Inputs | PackedSequence,
    state: Any,
    lengths: Tensor | None,
    sub_steps: int = 1,
    extra_steps: int = 0,
    recurrent: bool = True,
) -> tuple[Any, Any]:
    """Run a body on sequences in any form; see ``Body.forward``.

    Args:
        check, initial, run: methods of the body. ``run`` gets a padded batch and its lengths.
    """
    check_sub_steps(sub_steps, extra_steps, recurrent)
    packed = xs if isinstance(xs, PackedSequence) else None
    if packed is not None:
        if extra_steps:
            raise UserError("extra_steps: give a padded batch with lengths, not a PackedSequence.")
        xs, lengths = unpack(packed, lengths)
    assert not isinstance(xs, PackedSequence)
    rows = check(xs)
    alone = first_input(rows).ndim == 2
    if alone:
        if lengths is not None:
            raise UserError("lengths: a sequence without a batch axis has its own length.")
        rows = map_inputs(lambda x: x[None], rows)
    else:
        lengths = check_lengths(lengths, first_input(rows))
    if state is None:
        state = initial(rows)
    else:
        state = map_state(lambda part: part[None], state) if alone else state
        # A body may call ``len``, which would fix the batch of a trace.
        if not (torch.compiler.is_compiling() or torch.jit.is_tracing()):
            state = fit_state(state, initial(rows), first_input(rows))
    ys, state = _run_with_sub_steps(run, rows, state, lengths, sub_steps, extra_steps)
    if packed is not None and recurrent:
        return repack(ys, packed), state
    return (ys[0], map_state(lambda part: part[0], state)) if alone else (ys, state)


def _run_with_sub_steps(
    run: Callable[[Any, Any, Lengths | None], tuple[Tensor, Any]],
    xs: Inputs,
    state: Any,
    lengths: Lengths | None,
    sub_steps: int,
    extra_steps: int,
) -> tuple[Float[Tensor, "batch steps outputs"], Any]:
    """Call ``run`` on inputs that are repeated and followed by zeros, see ``Body.forward``."""
    if sub_steps > 1:
        xs = map_inputs(lambda x: repeat(x, "batch time x -> batch (time n) x", n=sub_steps), xs)
        lengths = None if lengths is None else lengths * sub_steps
    ys, state = run(xs, state, lengths)
    ys = ys[:, sub_steps - 1 :: sub_steps]
    if extra_steps:
        zeros = map_inputs(lambda x: x.new_zeros(x.shape[0], extra_steps, x.shape[2]), xs)
        ys = torch.cat([ys, run(zeros, state, None)[0]], dim=1)
    return ys, state


# Packed sequences


def unpack(packed: PackedSequence, lengths: Tensor | None = None) -> tuple[Tensor, Lengths]:
    """Return a padded batch in the original order, and its lengths."""
    if lengths is not None:
        raise UserError("lengths: a PackedSequence knows the lengths of its sequences already.")
    xs, counts = pad_packed_sequence(packed, batch_first=True)
    return xs, counts.to(xs.device)


def repack(ys: Shaped[Tensor, "batch time _"], packed: PackedSequence) -> PackedSequence:
    """Return a padded batch in the order and with the lengths of a ``PackedSequence``."""
    if packed.sorted_indices is not None:
        ys = ys.index_select(0, packed.sorted_indices)
    active = packed.batch_sizes[:, None] > torch.arange(len(ys))
    again = pack_padded_sequence(ys, active.sum(0), batch_first=True)
    return PackedSequence(
        again.data, packed.batch_sizes, packed.sorted_indices, packed.unsorted_indices
    )


# States and nested containers


def fit_state(state: Any, start: Any, xs: Tensor) -> Any:
    """Return a state in the form of the initial one; raise unless all parts have its shapes."""
    if isinstance(start, Tensor):
        if not isinstance(state, Tensor):
            raise UserError(
                f"a state of {kind_of(state)} does not fit; expected a tensor of shape "
                f"{tuple(start.shape)}."
            )
        if state.shape != start.shape:
            raise UserError(
                f"a state of shape {tuple(state.shape)} does not fit; expected "
                f"{tuple(start.shape)} for this network and batch."
            )
        if state.dtype != start.dtype:
            raise UserError(f"a state of type {state.dtype} does not fit inputs of {xs.dtype}.")
        if state.device != xs.device:
            raise UserError(f"a state on device {state.device} does not fit inputs on {xs.device}.")
        return state
    if isinstance(start, tuple):
        if not isinstance(state, tuple | list) or len(state) != len(start):
            raise UserError(
                f"a state of {len(start)} parts is expected, as the network returns it, not "
                f"{kind_of(state)}"
                + (f" of {len(state)}." if isinstance(state, tuple | list) else ".")
            )
        return _like(start, [fit_state(*pair, xs) for pair in zip(state, start, strict=True)])
    return state


def map_state(function: Callable[[Tensor], Tensor], state: Any) -> Any:
    """Apply a function to a state that is a tensor, or a tuple or list of states."""
    if isinstance(state, Tensor):
        return function(state)
    return _like(state, [map_state(function, part) for part in state])


def map_states(function: Callable[[Tensor, Tensor], Tensor], state: Any, other: Any) -> Any:
    """Apply a function to the tensors of two states of the same form, in pairs."""
    if isinstance(state, Tensor):
        return function(state, other)
    return _like(state, [map_states(function, *pair) for pair in zip(state, other, strict=True)])


def _like(container: Any, parts: list[Any]) -> Any:
    kind = type(container)
    return kind(*parts) if hasattr(kind, "_fields") else kind(parts)
