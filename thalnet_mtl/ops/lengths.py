"""Sequences of unequal lengths in one batch, padded at their ends.

A step past the end of a sequence has no effect: whatever its inputs are, its outputs are zero, the
state is that of the last real step, and no gradient comes from it.
"""

import torch
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


def past_end(lengths: Lengths, time: int) -> Bool[Tensor, "batch {time}"]:
    """Return which of ``time`` steps lie past the end of their sequence."""
    return torch.arange(time, device=lengths.device) >= lengths[:, None]


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
