"""A task: what goes in, what is due, what it is judged by, and its batches.

Data sits on the training device as it was stored (uint8 for everything built in) and is indexed
there. A batch is a pure function of the step, so that a run can go on at any step with no state
but that number.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Literal, NamedTuple, get_args

import torch
from einops import rearrange
from torch import Tensor

from thalnet_mtl.config import UserError, unknown
from thalnet_mtl.metrics import ACCURACY, BITS_PER_CHARACTER, Metric
from thalnet_mtl.topology import Interface

SplitName = Literal["train", "validation", "test"]


class Batch(NamedTuple):
    """Inputs and targets; ``fresh`` if the sequences start here, so that no state is carried."""

    xs: Tensor
    ys: Tensor
    fresh: bool


class Task:
    """The contract. ``splits`` maps each ``SplitName`` to the task's own kind of data.

    ``label`` is the name in results, ``source`` the data set in ``thalnet data ls``, if any.
    """

    metric: Metric
    source: str = ""

    def __init__(self, name: str, interface: Interface, load: Callable[[], Mapping[str, object]]):
        self.name, self.interface = name, interface
        self.label = name
        self.head = ""
        self.classes_seen: tuple[int, ...] = ()  # of its head, if its data hold some of them only
        self._load = load
        self.device = torch.device("cpu")
        self.splits: dict[str, object] = {}

    @property
    def port(self) -> str:
        """The name under which a network knows it: that of its head."""
        return self.head or self.name

    def to(self, device: torch.device | str) -> "Task":
        """Load all splits, fetching data that is missing, and keep them on a device."""
        self.device = torch.device(device)
        splits = dict(self._load())
        for name in get_args(SplitName):
            if name not in splits:
                raise UserError(f"task '{self.name}' has no split '{name}'.")
        self.splits = {name: self._put(name, split) for name, split in splits.items()}
        return self

    def steps(self, split: str, size: int, chunk: int) -> int:
        """Whole batches of a split, at least one."""
        raise NotImplementedError

    def batch(self, step: int, size: int, chunk: int, seed: int) -> Batch:
        """The training batch of a step, counted from 0 over all epochs."""
        raise NotImplementedError

    def batches(self, split: str, size: int, chunk: int) -> Iterator[Batch]:
        """A split once, in order."""
        raise NotImplementedError

    def sequences(self, split: str, chunk: int) -> tuple[Tensor, Tensor]:
        """All sequences of a split as they are stored, and their targets: (N, …) both."""
        raise NotImplementedError

    def to_inputs(self, xs: Tensor) -> Tensor:
        """Stored sequences as a network takes them."""
        raise NotImplementedError

    def split(self, name: str) -> object:
        """One part of the data."""
        if name not in self.splits:
            raise unknown("split", name, get_args(SplitName))
        return self.splits[name]

    def _put(self, name: str, split: object) -> object:
        raise NotImplementedError


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
        super().__init__(name, Interface(rows[1], classes, steps=rows[0]), load)
        self.scale = scale
        self._order: tuple[tuple[int, int], Tensor] | None = None
        self._ahead: tuple[tuple[int, ...], Rows] | None = None

    def steps(self, split: str, size: int, chunk: int) -> int:
        count = len(self._rows(split).xs)
        if split == "train" and size > count:
            raise UserError(f"batch {size} is larger than the {count} sequences of {self.name}.")
        return count // size if split == "train" else -(-count // size)

    def batch(self, step: int, size: int, chunk: int, seed: int) -> Batch:
        rows = self._rows("train")
        epoch, position = divmod(step, self.steps("train", size, chunk))
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

    def batches(self, split: str, size: int, chunk: int) -> Iterator[Batch]:
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
        shape = (len(rows.ys), self.interface.steps, self.interface.inputs)
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
        return self.interface.classes


class TextTask(Task):
    """Predict the next token at every step; state is carried from chunk to chunk.

    A batch of ``size`` reads the text at as many places at once, equally far apart; what does
    not divide, fewer than ``size`` tokens at the end, is left out.

    Args:
        name: of the task.
        load: returns a 1-D tensor or array of tokens per split.
        vocabulary: tokens are below it; 256 for bytes.
    """

    metric = BITS_PER_CHARACTER

    def __init__(self, name: str, load: Callable[[], Mapping[str, object]], vocabulary: int = 256):
        super().__init__(name, Interface(vocabulary, vocabulary, tokens=True, target="every"), load)

    def steps(self, split: str, size: int, chunk: int) -> int:
        tokens = self._tokens(split)
        length = (len(tokens) - 1) // size
        if length < (chunk if split == "train" else 1):
            raise UserError(
                f"{self.name}, {split}: {len(tokens):,} tokens are too few for batch {size} "
                f"times chunk {chunk}."
            )
        return length // chunk if split == "train" else -(-length // chunk)

    def batch(self, step: int, size: int, chunk: int, seed: int) -> Batch:
        return self._cut("train", step % self.steps("train", size, chunk), size, chunk)

    def batches(self, split: str, size: int, chunk: int) -> Iterator[Batch]:
        for k in range(self.steps(split, size, chunk)):
            yield self._cut(split, k, size, chunk)

    def sequences(self, split: str, chunk: int) -> tuple[Tensor, Tensor]:
        """Cut at every ``chunk`` tokens; what is left over at the end is in none."""
        tokens = self._tokens(split)
        whole = (len(tokens) - 1) // chunk * chunk
        return tokens[:whole].view(-1, chunk), tokens[1 : whole + 1].view(-1, chunk)

    def to_inputs(self, xs: Tensor) -> Tensor:
        return xs.long()

    def _cut(self, split: str, k: int, size: int, chunk: int) -> Batch:
        tokens = self._tokens(split)
        length = (len(tokens) - 1) // size
        span = slice(k * chunk, min((k + 1) * chunk, length))
        xs, ys = (
            rearrange(tokens[shift : shift + size * length], "(batch n) -> batch n", batch=size)
            for shift in (0, 1)
        )
        return Batch(xs[:, span].long(), ys[:, span].long(), k == 0)

    def _tokens(self, name: str) -> Tensor:
        split = self.split(name)
        assert isinstance(split, Tensor)
        return split

    def _put(self, name: str, split: object) -> Tensor:
        tokens = torch.as_tensor(split)
        inside = tokens.ndim == 1 and len(tokens) > 1 and int(tokens.min()) >= 0
        if not inside or int(tokens.max()) >= self.interface.inputs:
            raise UserError(
                f"task '{self.name}', {name}: expected one row of tokens below "
                f"{self.interface.inputs}."
            )
        return tokens.to(self.device)
