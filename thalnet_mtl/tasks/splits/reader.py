"""The training sequences of a task in an order that a seed shuffles, gathered block by block."""

from collections.abc import Callable
from typing import Any, Generic, Protocol, Self, TypeVar

import torch
from torch import Tensor

from thalnet_mtl.ops.inputs import inputs_by_name
from thalnet_mtl.tasks.splits.sequences import Sequences, Split

BLOCK_SIZE = 4096  # sequences that are gathered at once, at most
BLOCK_BYTES = 64 * 2**20  # size of their inputs, at most
CONVERTED_BYTES = 2 * 2**20  # size of the inputs of batches that are converted at once, at most
ALIGNMENT = 64  # bytes: products may round in another way where memory begins elsewhere


class Batch(Protocol):
    """The view that a reader has of a batch."""

    @property
    def xs(self) -> Any: ...

    def slice(self, start: int, stop: int) -> Self:
        """Return the sequences from ``start`` up to, not including, ``stop``."""
        ...


Converted = TypeVar("Converted", bound=Batch)


class ShuffledReader(Generic[Converted]):
    """A reader of training batches, each a function of the step, the batch size and the seed.

    Gathering scattered rows batch by batch is slow once a step has evicted them from caches, and
    slower from a disk. The reader therefore gathers some batches at once, and keeps them: between
    calls it holds one block and the order of one epoch, both of which its arguments determine. For
    the same reason it converts some batches of a block at once. Batches are views of them.

    Args:
        data: the training sequences, at least one.
        convert: returns sequences as a batch.
        alike: whether each sequence is converted in the same way, whatever the others are, and no
            batch is written to; so that several batches can be converted at once, and kept.
    """

    def __init__(self, data: Split, convert: Callable[[Sequences], Converted], alike: bool):
        self.data, self.convert, self.alike, self.size = data, convert, alike, len(data)
        self._most = min(BLOCK_SIZE, BLOCK_BYTES // max(1, data.bytes_per_sequence()))
        self._order: tuple[tuple[int, int], Tensor] | None = None
        self._block: tuple[tuple[int, ...], Sequences] | None = None
        self._converted: dict[tuple[int, int, int], Converted] = {}  # by step, size and seed

    def batch(self, step: int, size: int, seed: int) -> Converted:
        """Return the batch of a step, counted from 0 over all epochs.

        An epoch leaves out what is too little for a batch.
        """
        key = step, size, seed
        if key not in self._converted:
            converted = self._convert(step, size, seed)
            if not self.alike:
                return converted[key]
            self._converted = converted
        return self._converted[key]

    def _convert(self, step: int, size: int, seed: int) -> dict[tuple[int, int, int], Converted]:
        """Return the batch of a step, and those that are converted together with it."""
        epoch, position = divmod(step, self.size // size)
        batches = max(1, self._most // size)
        number, place = divmod(position, batches)
        key = (seed, epoch, size, number)
        if self._block is None or self._block[0] != key:
            span = slice(number * batches * size, (number + 1) * batches * size)
            self._block = key, self.data.select(self.epoch_order(seed, epoch)[span])
        count = self._converted_at_once(size)
        first = place // count * count
        stop = min(first + count, batches)
        batch = self.convert(self._block[1].slice(first * size, stop * size))
        return {
            (step - place + k, size, seed): batch.slice((k - first) * size, (k - first + 1) * size)
            for k in range(first, stop)
            if len(self._block[1]) >= (k + 1) * size
        }

    def _converted_at_once(self, size: int) -> int:
        """Return how many batches of the block are converted at once."""
        assert self._block is not None
        if not self.alike:
            return 1
        inputs = inputs_by_name(self.convert(self._block[1].slice(0, 1)).xs).values()
        if any(part.nbytes * size % ALIGNMENT for part in inputs):
            return 1
        return max(1, CONVERTED_BYTES // (size * sum(part.nbytes for part in inputs)))

    def epoch_order(self, seed: int, epoch: int) -> Tensor:
        """Return the order of the sequences in an epoch: (N,) indices."""
        if self._order is None or self._order[0] != (seed, epoch):
            generator = torch.Generator().manual_seed(1_000_003 * seed + epoch)
            self._order = (seed, epoch), torch.randperm(len(self.data), generator=generator)
        return self._order[1]
