"""The training sequences of a task in an order that a seed shuffles, gathered block by block."""

import torch
from torch import Tensor

from thalnet_mtl.tasks.splits.sequences import Sequences, Split

BLOCK_SIZE = 4096  # sequences that are gathered at once, at most
BLOCK_BYTES = 64 * 2**20  # size of their inputs, at most


class ShuffledReader:
    """A reader of training batches, each a function of the step, the batch size and the seed.

    Gathering scattered rows batch by batch is slow once a step has evicted them from caches, and
    slower from a disk. The reader therefore gathers some batches at once, and keeps them: between
    calls it holds one block and the order of one epoch, both of which its arguments determine.

    Args:
        data: the training sequences, at least one.
    """

    def __init__(self, data: Split):
        self.data = data
        self._most = min(BLOCK_SIZE, BLOCK_BYTES // max(1, data.bytes_per_sequence()))
        self._order: tuple[tuple[int, int], Tensor] | None = None
        self._block: tuple[tuple[int, ...], Sequences] | None = None

    def batch(self, step: int, size: int, seed: int) -> Sequences:
        """Return the sequences of a step, counted from 0 over all epochs.

        An epoch leaves out what is too little for a batch.
        """
        epoch, position = divmod(step, len(self.data) // size)
        batches = max(1, self._most // size)
        number, place = divmod(position, batches)
        key = (seed, epoch, size, number)
        if self._block is None or self._block[0] != key:
            span = slice(number * batches * size, (number + 1) * batches * size)
            self._block = key, self.data.select(self.epoch_order(seed, epoch)[span])
        return self._block[1].slice(place * size, (place + 1) * size)

    def epoch_order(self, seed: int, epoch: int) -> Tensor:
        """Return the order of the sequences in an epoch: (N,) indices."""
        if self._order is None or self._order[0] != (seed, epoch):
            generator = torch.Generator().manual_seed(1_000_003 * seed + epoch)
            self._order = (seed, epoch), torch.randperm(len(self.data), generator=generator)
        return self._order[1]
