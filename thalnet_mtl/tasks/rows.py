"""Classification of sequences of rows, such as images read row by row."""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from thalnet_mtl.errors import UserError
from thalnet_mtl.metrics.metric import ACCURACY
from thalnet_mtl.tasks.base import Batch, Task
from thalnet_mtl.topology.spec import TaskSpec

BLOCK_SIZE = 4096  # sequences that are gathered at once


class Rows(NamedTuple):
    """Sequences of rows with one class each: xs (N, time, inputs), ys (N,)."""

    xs: Tensor
    ys: Tensor


class RowsTask(Task):
    """A classification of whole sequences, after their last row.

    Args:
        name: name of the task.
        rows: number and width of the rows in a sequence.
        classes: number of classes.
        read_splits: returns a pair of arrays or tensors per split, (N, time, inputs) numbers and
            (N,) classes; called when the task is loaded.
        scale: divisor of the inputs; 255 brings bytes into [0, 1].
        source: data set of ``thalnet data ls`` that ``read_splits`` reads, if any.
        classes_seen: classes in the data, if they are only some of ``classes``.
    """

    metric = ACCURACY

    def __init__(
        self,
        name: str,
        rows: tuple[int, int],
        classes: int,
        read_splits: Callable[[], Mapping[str, object]],
        scale: float | int = 255,
        source: str = "",
        classes_seen: tuple[int, ...] = (),
    ):
        spec = TaskSpec(rows[1], classes, steps=rows[0])
        super().__init__(name, spec, read_splits, source, classes_seen)
        self.scale = scale
        # Caches of the batches that come next, with the arguments that they depend on.
        self._order: tuple[tuple[int, int], Tensor] | None = None
        self._block: tuple[tuple[int, ...], Rows] | None = None

    @property
    def classes(self) -> int:
        """Number of classes of the head."""
        return self.spec.outputs

    def batches_per_epoch(self, split: str, size: int, chunk: int) -> int:
        count = len(self._rows(split).xs)
        if split == "train" and size > count:
            raise UserError(f"batch {size} is larger than the {count} sequences of {self.name}.")
        return count // size if split == "train" else -(-count // size)

    def training_batch(self, step: int, size: int, chunk: int, seed: int) -> Batch:
        epoch, position = divmod(step, self.batches_per_epoch("train", size, chunk))
        # Gathering scattered rows batch by batch is slow once a step has evicted them from caches.
        batches = max(1, BLOCK_SIZE // size)
        number, place = divmod(position, batches)
        if self._block is None or self._block[0] != (seed, epoch, size, number):
            span = slice(number * batches * size, (number + 1) * batches * size)
            chosen = self._epoch_order(seed, epoch)[span]
            block = Rows(*(part.index_select(0, chosen) for part in self._rows("train")))
            self._block = (seed, epoch, size, number), block
        span = slice(place * size, (place + 1) * size)
        xs, ys = (part[span] for part in self._block[1])
        return Batch(self.to_inputs(xs), ys.long(), True)

    def iterate(self, split: str, size: int, chunk: int) -> Iterator[Batch]:
        rows = self._rows(split)
        for xs, ys in zip(rows.xs.split(size), rows.ys.split(size), strict=True):
            yield Batch(self.to_inputs(xs), ys.long(), True)

    def sequences(self, split: str, chunk: int) -> tuple[Tensor, Tensor]:
        rows = self._rows(split)
        return rows.xs, rows.ys

    def to_inputs(self, xs: Tensor) -> Tensor:
        """Convert to floats, then divide by ``scale``: two steps are much faster than one."""
        wide = xs if xs.is_floating_point() else xs.to(torch.get_default_dtype())
        return wide / self.scale

    def _epoch_order(self, seed: int, epoch: int) -> Tensor:
        """Return the order of the training sequences in an epoch: (N,) indices."""
        if self._order is None or self._order[0] != (seed, epoch):
            generator = torch.Generator().manual_seed(1_000_003 * seed + epoch)
            order = torch.randperm(len(self._rows("train").xs), generator=generator)
            self._order = (seed, epoch), order.to(self.device)
        return self._order[1]

    def _rows(self, name: str) -> Rows:
        split = self.split(name)
        assert isinstance(split, Rows)
        return split

    def _validate(self, name: str, split: object) -> Rows:
        rows = Rows(*(torch.as_tensor(part) for part in split))  # type: ignore[attr-defined]
        shape = (len(rows.ys), self.spec.steps, self.spec.inputs)
        if tuple(rows.xs.shape) != shape:
            raise UserError(
                f"task '{self.name}', {name}: sequences have shape {tuple(rows.xs.shape)}; "
                f"expected {shape} for {len(rows.ys)} classes."
            )
        if rows.xs.is_floating_point() and not rows.xs.isfinite().all():
            raise UserError(f"task '{self.name}', {name}: the inputs hold NaN or infinite numbers.")
        if len(rows.ys) == 0 or not 0 <= int(rows.ys.min()) <= int(rows.ys.max()) < self.classes:
            raise UserError(
                f"task '{self.name}', {name}: classes must lie in 0 … {self.classes - 1}."
            )
        return Rows(rows.xs.to(self.device), rows.ys.to(self.device))
