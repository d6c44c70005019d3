"""A task: what goes in, what is due, what it is judged by, and its batches.

Data sits on the training device as it was stored (uint8 for everything built in) and is indexed
there. A batch is a pure function of the step, so that a run can go on at any step with no state
but that number.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from thalnet_mtl.errors import UserError
from thalnet_mtl.metrics.metric import ACCURACY
from thalnet_mtl.tasks.base import Batch, Task
from thalnet_mtl.topology.spec import TaskSpec

AHEAD = 4096  # sequences that are brought together at once


class Rows(NamedTuple):
    """Sequences of rows with one class each: xs (N, time, inputs), ys (N,)."""

    xs: Tensor
    ys: Tensor


class RowsTask(Task):
    """Classify sequences after their last row.

    Args:
        name: of the task.
        rows: length and width of a sequence.
        classes: how many.
        load: returns per split a pair of arrays or tensors, (N, time, inputs) numbers and (N,)
            classes; called when data is needed.
        scale: what inputs are divided by; 255 brings bytes into [0, 1].
    """

    metric = ACCURACY

    def __init__(
        self,
        name: str,
        rows: tuple[int, int],
        classes: int,
        load: Callable[[], Mapping[str, object]],
        scale: float | int = 255,
    ):
        super().__init__(name, TaskSpec(rows[1], classes, steps=rows[0]), load)
        self.scale = scale
        self._order: tuple[tuple[int, int], Tensor] | None = None
        self._ahead: tuple[tuple[int, ...], Rows] | None = None

    def batches_per_epoch(self, split: str, size: int, chunk: int) -> int:
        count = len(self._rows(split).xs)
        if split == "train" and size > count:
            raise UserError(f"batch {size} is larger than the {count} sequences of {self.name}.")
        return count // size if split == "train" else -(-count // size)

    def training_batch(self, step: int, size: int, chunk: int, seed: int) -> Batch:
        rows = self._rows("train")
        epoch, position = divmod(step, self.batches_per_epoch("train", size, chunk))
        if self._order is None or self._order[0] != (seed, epoch):
            generator = torch.Generator().manual_seed(1_000_003 * seed + epoch)
            order = torch.randperm(len(rows.xs), generator=generator)
            self._order = (seed, epoch), order.to(self.device)
        # Scattered reads are slow one batch at a time, when all else has pushed them out of caches.
        block, place = divmod(position, max(1, AHEAD // size))
        if self._ahead is None or self._ahead[0] != (seed, epoch, size, block):
            count = max(1, AHEAD // size) * size
            chosen = self._order[1][block * count : (block + 1) * count]
            ahead = Rows(*(part.index_select(0, chosen) for part in rows))
            self._ahead = (seed, epoch, size, block), ahead
        span = slice(place * size, (place + 1) * size)
        xs, ys = (part[span] for part in self._ahead[1])
        return Batch(self.to_inputs(xs), ys.long(), True)

    def iterate(self, split: str, size: int, chunk: int) -> Iterator[Batch]:
        rows = self._rows(split)
        for xs, ys in zip(rows.xs.split(size), rows.ys.split(size), strict=True):
            yield Batch(self.to_inputs(xs), ys.long(), True)

    def sequences(self, split: str, chunk: int) -> tuple[Tensor, Tensor]:
        rows = self._rows(split)
        return rows.xs, rows.ys

    def to_inputs(self, xs: Tensor) -> Tensor:
        """Bytes become floats before they are divided: much faster than both at once."""
        wide = xs if xs.is_floating_point() else xs.to(torch.get_default_dtype())
        return wide / self.scale

    def _rows(self, name: str) -> Rows:
        split = self.split(name)
        assert isinstance(split, Rows)
        return split

    def _put(self, name: str, split: object) -> Rows:
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

    @property
    def classes(self) -> int:
        return self.spec.classes
