"""Data sets of PyTorch or Hugging Face, read item by item.

A data set is read once when its task is made, for its targets and its checks. If it is small its
inputs are kept in memory; otherwise training reads them again, block by block.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    default_collate,
)

from thalnet_mtl.errors import UserError, unknown
from thalnet_mtl.ops.inputs import first_input, inputs_by_name, map_inputs
from thalnet_mtl.ops.lengths import zero_past_end
from thalnet_mtl.tasks.splits.arrays import as_tensor, describe, is_sequence, pad
from thalnet_mtl.tasks.splits.checks import InputSummary, add_summaries
from thalnet_mtl.tasks.splits.lengths import check_lengths, read_lengths, read_targets
from thalnet_mtl.tasks.splits.sequences import Sequences, Split, StoredSequences, concatenate_padded
from thalnet_mtl.tasks.targets import Target

KEPT_BYTES = 2**30  # a data set whose inputs are smaller is kept in memory
ITEMS = 256  # items that are read at once


@dataclass(frozen=True)
class Columns:
    """The names of inputs, targets and lengths where they go by name.

    ``inputs`` is one name, or several for a task with several inputs; ``lengths`` is '' if there
    is no such column.
    """

    inputs: str | Sequence[str] = "x"
    targets: str = "y"
    lengths: str = ""

    def choose(self, row: Mapping[str, Any], where: str) -> tuple[Any, ...]:
        """Return inputs, targets and, if they have a name, lengths of a mapping."""
        names = [self.inputs] if isinstance(self.inputs, str) else list(self.inputs)
        for name in filter(None, [*names, self.targets, self.lengths]):
            if name not in row:
                error = unknown("column", name, row)
                raise UserError(f"{where}: {error} Name the columns by inputs= and targets=.")
        several = {name: row[name] for name in names}
        xs = row[self.inputs] if isinstance(self.inputs, str) else several
        return (xs, row[self.targets], *([row[self.lengths]] if self.lengths else []))


def is_dataset(data: Any) -> bool:
    """Return whether data has a length and items, and is no array, list or data frame."""
    return (
        not isinstance(data, list | tuple | str | bytes | Mapping | Tensor | IterableDataset)
        and hasattr(data, "__getitem__")
        and hasattr(data, "__len__")
        and not hasattr(data, "__array__")
    )


def dataset_of(loader: DataLoader[Any], where: str) -> Any:
    """Return the data set of a loader.

    Order and batches are not those of the loader, so that resuming is exact.

    Raises:
        UserError: the loader has a sampler or a ``collate_fn`` of its own.
    """
    sampler, batches, dataset = loader.sampler, loader.batch_sampler, loader.dataset
    if isinstance(dataset, IterableDataset):
        return dataset
    reason = ""
    if type(sampler) not in (SequentialSampler, RandomSampler):
        reason = f"a sampler of its own, {type(sampler).__name__}"
    elif isinstance(sampler, RandomSampler) and (
        sampler.replacement or sampler.num_samples != len(dataset)  # type: ignore[arg-type]
    ):
        reason = "a RandomSampler that does not visit every item once"
    elif batches is not None and type(batches) is not BatchSampler:
        reason = f"a batch sampler of its own, {type(batches).__name__}"
    if reason:
        raise UserError(
            f"{where}: the DataLoader has {reason}. Pass its data set instead: for an exact resume "
            f"the order of batches follows from train.seed. To weigh classes, use class_weights of "
            f"the loss."
        )
    if loader.batch_size is not None and loader.collate_fn is not default_collate:
        raise UserError(
            f"{where}: the DataLoader has a collate_fn of its own. Pass its data set instead: "
            f"sequences of unequal length are padded. A change of batches goes into transform=."
        )
    return dataset


def read_dataset(dataset: Any, target: Target, columns: Columns, where: str) -> Split:
    """Read all items once; return the sequences, or how to read them again if they are many."""
    count = _length(dataset, where)
    blocks: list[Any] | None = []
    targets: list[Any] = []
    counts: list[Tensor] = []
    summaries: dict[str, InputSummary] = {}
    total, most = 0, 0
    for places in torch.arange(count).split(ITEMS):
        xs, some, some_counts = _read_items(dataset, places.tolist(), columns, where)
        add_summaries(summaries, xs, int(places[0]), where)
        targets += some
        counts.append(some_counts)
        parts = inputs_by_name(xs).values()
        total += sum(part.nbytes for part in parts)
        most = max(most, sum(part[:1].nbytes for part in parts))
        blocks = None if blocks is None or total > KEPT_BYTES else [*blocks, xs]
    _check_repeatable(dataset, columns, where)
    lengths = torch.cat(counts)
    ys = read_targets(targets, lengths, target, f"{where}, targets")
    unequal = lengths if bool((lengths != lengths[0]).any()) else None
    if blocks is not None:
        return Sequences(_joined(blocks), ys, unequal)

    def read(places: Tensor) -> Any:
        parts = [_read_items(dataset, p.tolist(), columns, where)[0] for p in places.split(ITEMS)]
        return _joined(parts)

    return StoredSequences(read, ys, unequal, most, summaries)


def _length(dataset: Any, where: str) -> int:
    try:
        count = len(dataset)
    except (TypeError, NotImplementedError) as error:
        raise UserError(f"{where}: the data set {type(dataset).__name__} has no length.") from error
    if count == 0:
        raise UserError(f"{where}: there is no sequence.")
    return count


def _read_items(
    dataset: Any, places: list[int], columns: Columns, where: str
) -> tuple[Any, list[Any], Tensor]:
    """Return the padded inputs of items, their targets and their lengths."""
    rows = []
    for place, item in zip(places, _items(dataset, places, where), strict=True):
        row = columns.choose(item, f"{where}, item {place}") if isinstance(item, Mapping) else item
        if not is_sequence(row) or len(row) not in (2, 3):
            raise UserError(
                f"{where}: item {place} is {describe(item)}; expected a pair of a sequence and its "
                f"target, or a mapping with named columns."
            )
        rows.append(row)
    inputs = [row[0] for row in rows]
    named = isinstance(inputs[0], Mapping)
    by_name: dict[str, list[Any]] = {name: [] for name in inputs_by_name(inputs[0])}
    for place, xs in zip(places, inputs, strict=True):
        if isinstance(xs, Mapping) != named or (named and set(xs) != set(by_name)):
            raise UserError(
                f"{where}: the input of item {place} is {describe(xs)}; item {places[0]} has "
                f"{describe(inputs[0])}."
            )
        for name, part in inputs_by_name(xs).items():
            by_name[name].append(part)
    padded, counts = {}, []
    for name, parts in by_name.items():
        subject = f"{where}, input '{name}'" if name else where
        padded[name], lengths = _pad(parts, places, subject)
        counts.append(lengths)
    if any(not torch.equal(lengths, counts[0]) for lengths in counts):
        raise UserError(f"{where}: lengths differ between the inputs of a sequence.")
    xs, lengths = (padded if named else padded[""]), counts[0]
    if any(len(row) == 3 for row in rows):
        time = first_input(xs).shape[1]
        pairs = zip(rows, lengths, strict=True)
        stated = [row[2] if len(row) == 3 else steps for row, steps in pairs]
        lengths = read_lengths(stated, where)
        check_lengths(lengths, len(rows), time, where)
        xs = map_inputs(lambda part: zero_past_end(part, lengths), xs)
    return xs, [row[1] for row in rows], lengths


def _items(dataset: Any, places: list[int], where: str) -> list[Any]:
    """Return items of a data set, read at once if it can do so."""
    try:
        if hasattr(dataset, "__getitems__"):
            return list(dataset.__getitems__(places))
        return [dataset[place] for place in places]
    except Exception as error:  # of any kind: this is the code of a user
        raise UserError(
            f"{where}: {type(dataset).__name__} fails to read items {places[0]} … {places[-1]}: "
            f"{type(error).__name__}: {error}"
        ) from error


def _pad(parts: Sequence[Any], places: Sequence[int], where: str) -> tuple[Tensor, Tensor]:
    """Return the inputs of items as one padded tensor, and their lengths."""
    tensors = []
    for place, part in zip(places, parts, strict=True):
        tensor = as_tensor(part, f"{where}, item {place}")
        if tensor.ndim == 0:
            raise UserError(f"{where}: item {place} is a single number; expected a sequence.")
        tensors.append(tensor)
    padded, lengths = pad(tensors, 0, where, places)
    return padded, torch.full((len(parts),), padded.shape[1]) if lengths is None else lengths


def _joined(blocks: Sequence[Any]) -> Any:
    """Return padded blocks of inputs as one."""
    if isinstance(blocks[0], Mapping):
        return {name: _joined([block[name] for block in blocks]) for name in blocks[0]}
    return concatenate_padded(blocks, max(block.shape[1] for block in blocks))


def _check_repeatable(dataset: Any, columns: Columns, where: str) -> None:
    """Raise if the first item is another one when it is read again."""
    first, again = (_read_items(dataset, [0], columns, where)[0] for _ in range(2))
    pairs = zip(inputs_by_name(first).values(), inputs_by_name(again).values(), strict=True)
    if not all(
        a.shape == b.shape and torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in pairs
    ):
        raise UserError(
            f"{where}: item 0 differs between two reads. A data set must always return the same; "
            f"random changes belong into transform=, which can be resumed exactly."
        )
