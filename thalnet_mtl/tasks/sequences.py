"""Tasks on sequences that are read whole: one target after the last step, or at every step."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from thalnet_mtl.errors import UserError
from thalnet_mtl.tasks.base import SPLITS, Batch, Task
from thalnet_mtl.tasks.infer import infer_spec
from thalnet_mtl.tasks.losses import Loss
from thalnet_mtl.tasks.notices import data_notices
from thalnet_mtl.tasks.splits import Sequences, first_input, map_inputs, read_sequences
from thalnet_mtl.tasks.targets import first_row, target_of
from thalnet_mtl.topology.spec import TaskSpec

BLOCK_SIZE = 4096  # sequences that are gathered at once

Splits = Mapping[str, Any]  # by ``SplitName``: (xs, ys) or (xs, ys, lengths)


class SequenceTask(Task):
    """A task whose sequences are read whole, in an order that a seed shuffles.

    >>> xs, ys = torch.rand(90, 10, 3), torch.arange(90) % 2
    >>> task = SequenceTask("parity", {name: (xs, ys) for name in ("train", "validation", "test")})
    >>> task.spec
    TaskSpec(inputs=3, outputs=2, tokens=False, every_step=False, steps=10)

    Args:
        name: name of the task.
        splits: the data by split, ``(xs, ys)`` or ``(xs, ys, lengths)``; see
            ``splits.read_sequences``. Or a function that returns it, called when the task is
            loaded.
        spec: shapes of inputs and targets; read from the data if it is not given.
        target: kind of target: ``class``, ``labels`` or ``numbers``.
        loss: name of a registered loss, a function, or a ``Loss``; by default that of the target.
        metrics: names of registered metrics, the main one first; by default those of the target.
        scale: divisor of the inputs; 255 brings bytes into [0, 1].
        class_names: names of the classes, in their order; for people.
        notices: what a user may want to know of the data, a sentence each.
        order: (time · inputs,) places; number k of every flattened sequence is read from
            ``order[k]``.
        source: data set of ``thalnet data ls`` that ``splits`` reads, if any.
    """

    def __init__(
        self,
        name: str,
        splits: Splits | Callable[[], Splits],
        spec: TaskSpec | None = None,
        *,
        target: str = "class",
        loss: str | Loss | Callable[..., Tensor] = "",
        metrics: tuple[str, ...] = (),
        scale: float = 1.0,
        class_names: Sequence[str] = (),
        notices: Sequence[str] = (),
        order: Tensor | None = None,
        source: str = "",
    ):
        if spec is None:
            if callable(splits):
                raise UserError(f"task '{name}': give a spec, or the data instead of a function.")
            spec = infer_spec(splits, target_of(target), f"task '{name}'")
        read_splits = splits if callable(splits) else lambda: splits
        super().__init__(
            name, spec, read_splits, target=target, loss=loss, metrics=metrics, source=source
        )
        self.scale, self.order = scale, order
        self.class_names, self._own_notices = tuple(class_names), tuple(notices)
        # Caches of the batches that come next, with the arguments that they depend on.
        self._order: tuple[tuple[int, int], Tensor] | None = None
        self._block: tuple[tuple[int, ...], Sequences] | None = None

    def batches_per_epoch(self, split: str, size: int, chunk: int) -> int:
        count = len(self.sequences(split, chunk))
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
            block = self.sequences("train", chunk).select(chosen)
            self._block = (seed, epoch, size, number), block
        return self.to_batch(self._block[1].slice(place * size, (place + 1) * size))

    def with_targets(self, batch: Batch, step: int, size: int, seed: int) -> Batch:
        """Return the training batch of a task with the same sequences, with the targets of this.

        Args:
            batch: of the other task.
            step, size, seed: the arguments with which it was drawn.
        """
        ys = self.sequences("train", 0).ys
        epoch, position = divmod(step, len(ys) // size)
        chosen = self._epoch_order(seed, epoch)[position * size : (position + 1) * size]
        ys = ys.index_select(0, chosen.to(ys.device))
        ys = ys[:, : first_input(batch.xs).shape[1]] if self.spec.every_step else ys
        return batch._replace(ys=ys.long() if self.target.name == "class" else ys)

    def share_inputs(self, other: "SequenceTask") -> None:
        """Read the inputs of another task, and drop an equal copy of them.

        Raises:
            UserError: the training sequences differ; the message names the first row that does.
        """
        where = f"task '{self.name}' cannot take the inputs of '{other.name}'"
        if self.scale != other.scale:
            raise UserError(f"{where}: their scales, {self.scale:g} and {other.scale:g}, differ.")
        if not same_order(self.order, other.order):
            raise UserError(f"{where}: the order in which they read a sequence differs.")
        for name in SPLITS:
            own, shared = self.sequences(name, 0), other.sequences(name, 0)
            difference = first_difference(own, shared)
            if difference and name == "train":
                raise UserError(f"{where}: {difference}.")
            if not difference:
                self.splits[name] = Sequences(shared.xs, own.ys, shared.lengths)

    def iterate(self, split: str, size: int, chunk: int) -> Iterator[Batch]:
        for part in self.sequences(split, chunk).split(size):
            yield self.to_batch(part)

    def sequences(self, split: str, chunk: int) -> Sequences:
        data = self.split(split)
        assert isinstance(data, Sequences)
        return data

    def to_batch(self, data: Sequences) -> Batch:
        """Return stored sequences as a batch, cut after the end of the longest."""
        xs, ys, lengths = data
        if self.order is not None:
            order = self.order.expand(len(data), -1)
            xs = map_inputs(lambda part: part.flatten(1).gather(1, order).view_as(part), xs)
        if lengths is not None:
            time = int(lengths.max())
            xs = map_inputs(lambda part: part[:, :time], xs)
            ys = ys[:, :time] if self.spec.every_step else ys
            lengths = lengths.to(self.device)
        ys = ys.long() if self.target.name == "class" else ys
        return Batch(map_inputs(self.to_inputs, xs), ys, True, lengths)

    def to_inputs(self, xs: Tensor) -> Tensor:
        """Convert to floats, then divide by ``scale``: two steps are much faster than one."""
        if self.spec.tokens:
            return xs.long()
        wide = xs if xs.is_floating_point() else xs.to(torch.get_default_dtype())
        return wide if self.scale == 1 else wide / self.scale

    def _epoch_order(self, seed: int, epoch: int) -> Tensor:
        """Return the order of the training sequences in an epoch: (N,) indices."""
        if self._order is None or self._order[0] != (seed, epoch):
            generator = torch.Generator().manual_seed(1_000_003 * seed + epoch)
            order = torch.randperm(len(self.sequences("train", 0)), generator=generator)
            self._order = (seed, epoch), order.to(self.device)
        return self._order[1]

    def _validate(self, name: str, split: Any) -> Sequences:
        where = f"task '{self.name}', {name}"
        data = read_sequences(split, self.spec, self.target, where)
        if self.order is not None:
            if len(self.order) != first_input(data.xs)[0].numel():
                raise UserError(f"{where}: order has {len(self.order)} places.")
            self.order = self.order.to(self.device)
        return data.to(self.device)

    def _prepare(self) -> None:
        parts = {name: self.sequences(name, 0).ys for name in self.splits}
        training, target = parts["train"], self.target
        present = {name: target.present(ys) for name, ys in parts.items()}
        for name in SPLITS:
            if not present[name].any():
                raise UserError(f"task '{self.name}', {name}: all targets are missing.")
        self.complete = all(
            bool(part.reshape(len(part), -1).any(1).all()) for part in present.values()
        )
        values = training[present["train"]]
        shared = self.head_name != self.name  # with other tasks, which may have other classes
        if bool((values == values[0]).all()) and not shared:
            raise UserError(
                f"task '{self.name}': all training targets are {values[0].item():g}, so there is "
                f"nothing to learn."
            )
        if target.name == "class":
            found = [ys[present[name]].unique().tolist() for name, ys in parts.items()]
            self.classes_seen = tuple(sorted({int(label) for part in found for label in part}))
        notices = () if shared else data_notices(target, parts, self.class_names)
        self.notices = (*self._own_notices, *notices)
        self.loss_function.prepare(training, self.spec.outputs)
        where = f"task '{self.name}'"
        self.loss_function.check(target, training[:2], self.spec.outputs, where)


def same_order(first: Tensor | None, second: Tensor | None) -> bool:
    """Return whether two tasks read the places of a sequence in the same order."""
    if first is None or second is None:
        return first is second
    return torch.equal(first.cpu(), second.cpu())


def first_difference(first: Sequences, second: Sequences) -> str:
    """Return in what two sets of sequences differ, with the first such row; '' if in nothing."""
    if len(first) != len(second):
        return f"they have {len(first):,} and {len(second):,} training sequences"
    if (first.lengths is None) != (second.lengths is None):
        return "only one of them has sequences of unequal length"
    steps = [part.lengths for part in (first, second) if part.lengths is not None]
    if steps and (row := first_row(steps[0] != steps[1])):
        return f"sequence {row} has {row.value(steps[0])} and {row.value(steps[1])} steps"
    pairs = named_inputs(first.xs), named_inputs(second.xs)
    if pairs[0].keys() != pairs[1].keys():
        return f"their inputs are {', '.join(pairs[0])} and {', '.join(pairs[1])}"
    for name, xs in pairs[0].items():
        ys = pairs[1][name]
        if xs.shape[1:] != ys.shape[1:]:
            return f"a sequence has shape {tuple(xs.shape[1:])} and {tuple(ys.shape[1:])}"
        for start in range(0, len(xs), BLOCK_SIZE):
            span = slice(start, start + BLOCK_SIZE)
            if row := first_row(xs[span] != ys[span]):
                return f"the inputs of sequence {start + row} differ"
    return ""


def named_inputs(xs: Any) -> Mapping[str, Tensor]:
    """Return inputs by name; a single one has no name."""
    return xs if isinstance(xs, Mapping) else {"": xs}
