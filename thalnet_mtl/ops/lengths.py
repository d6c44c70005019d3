"""Sequences of unequal lengths in one batch, padded at their ends.

A step past the end of a sequence has no effect: whatever its inputs are, its outputs are zero, the
state is that of the last real step, and no gradient comes from it.
"""

from collections.abc import Sequence
from functools import cached_property

import torch
from einops import rearrange
from jaxtyping import Bool, Int, Shaped
from torch import Tensor

from thalnet_mtl.errors import UserError

Lengths = Int[Tensor, " batch"]


def check_range(lengths: Int[Tensor, "*_"], time: int) -> int:
    """Return the smallest length; raise unless every sequence has 1 to ``time`` steps."""
    if not lengths.numel():
        return time
    least, most = (int(value) for value in lengths.aminmax())
    if least < 1 or most > time:
        value = least if least < 1 else most
        raise UserError(f"lengths has a {value}; a sequence of this batch has 1 to {time} steps.")
    return least


def are_hidden(lengths: Tensor) -> bool:
    """Return whether no number can be read: in a trace, under ``vmap``, of tensors without data."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return True
    if torch._C._len_torch_dispatch_stack() or type(lengths) is not Tensor or lengths.is_meta:
        return True
    functorch = torch._C._functorch
    while functorch.is_functorch_wrapped_tensor(lengths):
        if functorch.is_batchedtensor(lengths):
            return True
        lengths = functorch.get_unwrapped(lengths)
    return False


class Packing:
    """The order of the real steps of a padded batch as in ``torch.nn.utils.rnn.PackedSequence``.

    Packed rows are all sequences at step 0, then those that have a step 1, and so on. Within a step
    the longest sequences come first: they are the first rows of the step before it. A loop over
    the steps computes nothing past the end. Rows are on the axis before the last.

    Args:
        xs: a padded batch.
        lengths: number of steps of every sequence, from 1 to T; None if all have T.

    Attributes:
        counts: number of sequences that have each step, up to the last step of the longest.
        following: number of those that have the next step, too.
        order: index in the batch of every sequence, longest first; None if all have all steps.
    """

    def __init__(self, xs: Shaped[Tensor, "batch time _"], lengths: Lengths | None):
        self.batch, self.time = batch, time = xs.shape[:2]
        self.counts = [batch] * time
        self.order: Tensor | None = None
        if lengths is not None and check_range(lengths, time) < time:
            ordered, self.order = lengths.sort(descending=True, stable=True)
            steps = torch.arange(time, device=lengths.device)
            step, row = (steps[:, None] < ordered).nonzero().T
            self.counts = step.bincount().tolist()
            self._places = self.order[row] * time + step  # in the batch with its axes flattened
        self.following = [*self.counts[1:], 0]

    @cached_property
    def ranks(self) -> Tensor:
        """Place of every sequence of the batch in ``order``."""
        assert self.order is not None
        return self.order.argsort()

    def some_end(self, t: int) -> bool:
        """Return whether step ``t`` is the last one of any sequence, or of the batch."""
        return t == len(self.counts) - 1 or self.following[t] < self.counts[t]

    def pack(self, xs: Shaped[Tensor, "batch time _"]) -> Shaped[Tensor, "steps _"]:
        """Return the real steps of a padded batch, packed."""
        if self.order is None:
            return rearrange(xs, "batch time x -> (time batch) x")
        return xs.flatten(0, 1).index_select(0, self._places)

    def pad(self, ys: Shaped[Tensor, "steps _"]) -> Shaped[Tensor, "batch time _"]:
        """Return the padded batch of packed steps, zero past the end."""
        if self.order is None:
            return rearrange(ys, "(time batch) y -> batch time y", time=self.time)
        padded = ys.new_zeros(self.batch * self.time, ys.shape[1])
        return padded.index_copy(0, self._places, ys).unflatten(0, (self.batch, self.time))

    def sort(self, state: Shaped[Tensor, "*_ batch _"]) -> Shaped[Tensor, "*_ batch _"]:
        """Return the rows of a batch, longest sequences first."""
        return state if self.order is None else state.index_select(-2, self.order)

    def unsort(self, state: Shaped[Tensor, "*_ batch _"]) -> Shaped[Tensor, "*_ batch _"]:
        """Return rows that were sorted in the order of the batch."""
        return state if self.order is None else state.index_select(-2, self.ranks)

    def split(self, steps: Shaped[Tensor, "*_ steps _"]) -> Sequence[Tensor]:
        """Return a view of every step."""
        return steps.split(self.counts, -2)

    def previous(
        self, start: Shaped[Tensor, "*_ batch _"], states: Sequence[Tensor]
    ) -> list[Tensor]:
        """Return the states before every step, from the first ones and those after every step."""
        pairs = zip(states[:-1], self.following[:-1], strict=True)
        return [start, *(state[..., :count, :] for state, count in pairs)]

    def last(self, states: Sequence[Tensor]) -> Shaped[Tensor, "*_ batch _"]:
        """Return a copy of the last state of every sequence, sorted, from those by step."""
        pairs = enumerate(zip(states, self.following, strict=True))
        ended = [state[..., left:, :] for t, (state, left) in pairs if self.some_end(t)]
        return torch.cat(ended[::-1], -2)

    def with_ending(
        self,
        t: int,
        grad: Shaped[Tensor, "*_ following _"],
        grad_last: Shaped[Tensor, "*_ batch _"],
    ) -> Shaped[Tensor, "*_ rows _"]:
        """Return the gradients w.r.t. the states after step ``t``, those through outputs excluded.

        They are ``grad`` for sequences that have a next step, from which it comes. For those that
        end they are ``grad_last``, w.r.t. the sorted last states.
        """
        if not self.some_end(t):
            return grad
        following, count = self.following[t], self.counts[t]
        return torch.cat([grad[..., :following, :], grad_last[..., following:count, :]], -2)


def past_end(lengths: Lengths, time: int | torch.SymInt) -> Bool[Tensor, "batch time"]:
    """Return which of ``time`` steps lie past the end of their sequence."""
    steps = torch.arange(time, device=lengths.device)  # type: ignore[arg-type] # SymInt in traces
    return steps >= lengths[:, None]


def zero_past_end(
    xs: Shaped[Tensor, "batch time *_"], lengths: Lengths | None
) -> Shaped[Tensor, "batch time *_"]:
    """Return ``xs`` with zeros past the end, whatever is there; without lengths ``xs`` itself."""
    if lengths is None:
        return xs
    past = past_end(lengths, xs.shape[1])
    return xs.masked_fill(past.view(*past.shape, *[1] * (xs.ndim - 2)), 0)


def last_steps(
    xs: Shaped[Tensor, "batch time _"], lengths: Lengths | None
) -> Shaped[Tensor, "batch _"]:
    """Return the last real step of every sequence; without lengths the last step."""
    if lengths is None:
        return xs[:, -1]
    index = (lengths - 1)[:, None, None].expand(-1, 1, xs.shape[2])
    return xs.gather(1, index).squeeze(1)
