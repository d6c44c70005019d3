"""The data of a split: sequences with their targets and lengths, in memory or on disk."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

import torch
from jaxtyping import Bool
from torch import Tensor
from torch.nn import functional as F

from thalnet_mtl.ops.inputs import inputs_by_name, map_inputs
from thalnet_mtl.ops.lengths import zero_past_end

SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[str, ...] = get_args(SplitName)


class Sequences(NamedTuple):
    """N sequences: ``xs`` (N, time, inputs), or (N, time) for tokens, padded with zeros.

    ``ys`` is (N,) for a class, (N, outputs) for labels or numbers, with an axis of time after N
    where there is a target at every step. ``lengths`` (N,), or None if all sequences are equally
    long.
    """

    xs: Any  # Inputs
    ys: Tensor
    lengths: Tensor | None = None

    def __len__(self) -> int:
        return len(self.ys)

    def map(self, function: Callable[[Tensor], Tensor]) -> "Sequences":
        """Apply a function to all tensors."""
        lengths = None if self.lengths is None else function(self.lengths)
        return Sequences(map_inputs(function, self.xs), function(self.ys), lengths)

    def map_xs(self, function: Callable[[Tensor], Tensor]) -> "Sequences":
        """Apply a function to the inputs."""
        return Sequences(map_inputs(function, self.xs), self.ys, self.lengths)

    def with_targets(self, ys: Tensor, lengths: Tensor | None) -> "Sequences":
        """Return the same inputs with these targets and lengths."""
        return Sequences(self.xs, ys, lengths)

    def select(self, places: Tensor) -> "Sequences":
        """Return the sequences at some places, (n,) indices."""
        return self.map(lambda part: part.index_select(0, places.to(part.device)))

    def slice(self, start: int, stop: int) -> "Sequences":
        """Return the sequences from ``start`` up to, not including, ``stop``, without a copy."""
        return self.map(lambda part: part[start:stop])

    def split(self, size: int) -> "Iterator[Sequences]":
        """Yield all sequences in order, ``size`` at a time."""
        for start in range(0, len(self), size):
            yield self.slice(start, start + size)

    def to(self, device: torch.device) -> "Sequences":
        """Return the sequences on a device; lengths stay on the CPU."""
        xs = map_inputs(lambda part: part.to(device), self.xs)
        return Sequences(xs, self.ys.to(device), self.lengths)

    def bytes_per_sequence(self) -> int:
        """Return the size of the inputs of a sequence."""
        return sum(part[:1].nbytes for part in inputs_by_name(self.xs).values())


class StoredSequences:
    """Sequences whose inputs are read when they are needed, from a file or a user's data set.

    Targets and lengths are in memory, or mapped from a file; targets on the device.

    Args:
        read: returns the padded inputs of sequences at some places, ascending (n,) indices.
        ys, lengths: as in ``Sequences``, on the CPU.
        sequence_bytes: size of the inputs of a sequence, the longest of them.
        summaries: what ``checks.summarize`` returns, if it is known.
    """

    def __init__(
        self,
        read: Callable[[Tensor], Any],
        ys: Tensor,
        lengths: Tensor | None,
        sequence_bytes: int,
        summaries: Mapping[str, Any] | None = None,
    ):
        self.read, self.ys, self.lengths = read, ys, lengths
        self.sequence_bytes, self.summaries = sequence_bytes, dict(summaries or {})
        self.device = torch.device("cpu")

    def __len__(self) -> int:
        return len(self.ys)

    def map_xs(self, function: Callable[[Tensor], Tensor]) -> "StoredSequences":
        """Apply a function to the inputs whenever they are read."""
        stored, read = copy.copy(self), self.read
        stored.read = lambda places: map_inputs(function, read(places))
        stored.summaries = {}
        return stored

    def with_targets(self, ys: Tensor, lengths: Tensor | None) -> "StoredSequences":
        """Return the same inputs with these targets and lengths."""
        stored = copy.copy(self)
        stored.ys, stored.lengths = ys, lengths
        return stored

    def select(self, places: Tensor) -> Sequences:
        """Read the sequences at some places, (n,) indices, in the order of the file."""
        ascending, order = places.cpu().sort()
        lengths = None if self.lengths is None else self.lengths[ascending]
        xs = self.read(ascending)
        if lengths is not None:
            xs = map_inputs(lambda part: zero_past_end(part, lengths), xs)
        data = Sequences(xs, self.ys[ascending.to(self.ys.device)], lengths)
        if not torch.equal(order, torch.arange(len(order))):
            data = data.select(order.argsort())
        return data.to(self.device)

    def slice(self, start: int, stop: int) -> Sequences:
        """Read the sequences from ``start`` up to, not including, ``stop``."""
        return self.select(torch.arange(len(self))[start:stop])

    def split(self, size: int) -> Iterator[Sequences]:
        """Read all sequences in order, ``size`` at a time."""
        for start in range(0, len(self), size):
            yield self.slice(start, start + size)

    def to(self, device: torch.device) -> "StoredSequences":
        """Return the sequences, which then are moved to a device when they are read."""
        stored = copy.copy(self)
        stored.device, stored.ys = device, self.ys.to(device)
        return stored

    def bytes_per_sequence(self) -> int:
        """Return the size of the inputs of a sequence, the longest of them."""
        return self.sequence_bytes


Split = Sequences | StoredSequences


def fill(part: Tensor, mask: Bool[Tensor, "N time"], value: float | int) -> Tensor:
    """Return a tensor (N, time, …) with a value where a mask is true."""
    return part.masked_fill(mask.view(*mask.shape, *[1] * (part.ndim - 2)), value)


def concatenate_padded(parts: Sequence[Tensor], time: int, value: float = 0) -> Tensor:
    """Return tensors (N, time, …) one after another, each padded at the end to ``time`` steps."""
    return torch.cat(
        [
            F.pad(part, [*[0] * (2 * (part.ndim - 2)), 0, time - part.shape[1]], value=value)
            for part in parts
        ]
    )
