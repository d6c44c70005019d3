"""Batches: the inputs and targets of one step."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool
from torch import Tensor

from thalnet_mtl.errors import UserError
from thalnet_mtl.ops.inputs import first_input
from thalnet_mtl.ops.lengths import past_end
from thalnet_mtl.tasks.splits.sequences import Sequences, concatenate_padded


class Batch(NamedTuple):
    """Inputs and targets of one step, on the device of their task.

    ``xs`` is (batch, time, inputs), (batch, time) for tokens, or a mapping of such by the name of
    the input. ``ys`` is (batch,) for one class per sequence and (batch, time) for one at every
    step; labels and numbers have a further axis, (…, outputs). Missing targets are −100 for a
    class and NaN otherwise. If ``starts_sequence`` is False, the batch continues the sequences of
    the batch before it, whose final state is carried on. ``lengths`` (batch,) are the steps of
    each sequence, None if all fill the batch.
    """

    xs: Any
    ys: Tensor
    starts_sequence: bool
    lengths: Tensor | None = None

    def map(self, function: Callable[[Tensor], Tensor]) -> "Batch":
        """Apply a function to all tensors."""
        xs, ys, lengths = Sequences(self.xs, self.ys, self.lengths).map(function)
        return Batch(xs, ys, self.starts_sequence, lengths)

    def slice(self, start: int, stop: int) -> "Batch":
        """Return the sequences from ``start`` up to, not including, ``stop``."""
        return self.map(lambda part: part[start:stop])

    def select(self, places: Tensor) -> "Batch":
        """Return the sequences at some places, (n,) indices."""
        return self.map(lambda part: part[places.to(part.device)])

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on a device."""
        return self.map(lambda part: part.to(device))

    def past_end(self) -> Bool[Tensor, "batch time"] | None:
        """Return which steps lie past the end of their sequence; None if all fill the batch."""
        if self.lengths is None:
            return None
        return past_end(self.lengths, first_input(self.xs).shape[1])


def concatenate(batches: Sequence[Batch], missing: float | None) -> Batch:
    """Return several batches as one, padded to the longest sequence of them.

    Sequences have lengths if one of the batches has them, or if they are not equally long.

    Args:
        batches: at least one.
        missing: stands for a missing target where there is a target at every step; otherwise None.
    """
    first, times = batches[0], [first_input(batch.xs).shape[1] for batch in batches]
    time = max(times)
    xs: Any
    if isinstance(first.xs, Mapping):
        xs = {name: concatenate_padded([b.xs[name] for b in batches], time) for name in first.xs}
    else:
        xs = concatenate_padded([batch.xs for batch in batches], time)
    targets = [batch.ys for batch in batches]
    ys = torch.cat(targets) if missing is None else concatenate_padded(targets, time, missing)
    if min(times) == time and all(batch.lengths is None for batch in batches):
        return Batch(xs, ys, first.starts_sequence)
    lengths = [
        torch.full((len(batch.ys),), steps, device=ys.device)
        if batch.lengths is None
        else batch.lengths
        for batch, steps in zip(batches, times, strict=True)
    ]
    return Batch(xs, ys, first.starts_sequence, torch.cat(lengths))


def check_transformed(before: Batch, after: Any, keeps_time: bool, where: str) -> None:
    """Raise unless a transform returns a batch of the same shapes and types.

    Args:
        before: the batch that it was called with.
        after: what it returned.
        keeps_time: whether the number of steps must stay.
        where: task and transform, for errors.
    """
    if not isinstance(after, Batch):
        raise UserError(f"{where} must return a Batch, not {type(after).__name__}.")
    for part_name in ("xs", "ys"):
        pair = [first_input(getattr(batch, part_name)) for batch in (before, after)]
        shapes = [(tuple(part.shape), part.dtype) for part in pair]
        same_time = part_name == "ys" or keeps_time
        if shapes[0][1] != shapes[1][1] or (same_time and shapes[0][0] != shapes[1][0]):
            raise UserError(f"{where} changes {part_name} from {shapes[0]} to {shapes[1]}.")
