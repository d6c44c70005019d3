"""Splits as users give them: arrays, lists, a data set of PyTorch or Hugging Face, a loader.

All become ``Sequences``, or ``StoredSequences`` where the data is larger than memory. Types and
lengths are checked here, values and shapes in ``checks``.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from thalnet_mtl.errors import UserError
from thalnet_mtl.ops.inputs import inputs_by_name
from thalnet_mtl.ops.lengths import zero_past_end
from thalnet_mtl.tasks.splits.arrays import as_tensor, describe, is_sequence, on_disk, pad
from thalnet_mtl.tasks.splits.items import Columns, dataset_of, is_dataset, read_dataset
from thalnet_mtl.tasks.splits.lengths import check_lengths, read_lengths, read_targets
from thalnet_mtl.tasks.splits.sequences import Sequences, Split, StoredSequences
from thalnet_mtl.tasks.targets import Target


def read_split(split: Any, target: Target, columns: Columns, where: str) -> Split:
    """Return a split as sequences.

    Args:
        split: ``(xs, ys)`` or ``(xs, ys, lengths)``, where ``xs`` is an array (N, time, inputs), a
            list of sequences of unequal length, or a mapping of such by the name of the input, and
            a target at every step comes in the same form; a mapping of such columns by name; a data
            set of PyTorch or Hugging Face whose items are pairs or mappings; or a ``DataLoader``
            with such a data set.
        target: kind of target.
        columns: names of columns, where data has names.
        where: task and split, for errors.

    Raises:
        UserError: it is none of these, or something is no number; the message names the row.
    """
    if isinstance(split, Sequences | StoredSequences):
        return split
    if isinstance(split, DataLoader):
        split = dataset_of(split, where)
    if isinstance(split, Mapping):
        split = columns.choose(split, where)
    if is_sequence(split) and len(split) in (2, 3):
        return _from_arrays(split, target, where)
    if isinstance(split, IterableDataset) or not is_dataset(split):
        raise UserError(
            f"{where}: expected a pair of sequences and targets, or three with their lengths, or a "
            f"data set with a length, got {describe(split)}."
        )
    return read_dataset(split, target, columns, where)


def _from_arrays(split: Sequence[Any], target: Target, where: str) -> Split:
    xs, ys, lengths = (*split, None)[:3]
    named, several = inputs_by_name(xs), isinstance(xs, Mapping)
    if not named:
        raise UserError(f"{where}: the mapping of inputs is empty.")
    places = {name: f"{where}, input '{name}'" if name else where for name in named}
    columns: dict[str, Tensor | np.ndarray] = {}
    counts = [] if lengths is None else [read_lengths(lengths, where)]
    for name, part in named.items():
        if on_disk(part) and part.ndim > 1:
            columns[name] = np.asarray(part)
            continue
        columns[name], padded = pad(part, 0, places[name])
        counts += [] if padded is None else [padded]
    steps = counts[0] if counts else None
    if any(not torch.equal(count, counts[0]) for count in counts):
        raise UserError(
            f"{where}: the lengths of inputs differ from each other, or from those given."
        )
    for name in columns:
        if columns[name].ndim == 0:
            raise UserError(f"{places[name]}: expected sequences, got {describe(named[name])}.")
    sizes = {name: len(part) for name, part in columns.items()}
    size = next(iter(sizes.values()))
    for name in sizes:
        if sizes[name] != size:
            raise UserError(f"{places[name]}: {sizes[name]} sequences; another input has {size}.")
    targets = read_targets(ys, steps, target, f"{where}, targets")
    if len(targets) != size:
        raise UserError(f"{where}: {size} sequences but {len(targets)} targets.")
    if size == 0:
        raise UserError(f"{where}: there is no sequence.")
    if steps is not None:
        time = min(part.shape[1] if part.ndim > 1 else 1 for part in columns.values())
        check_lengths(steps, size, time, where)
        steps = None if bool((steps == time).all()) else steps

    def read(rows: Tensor) -> Any:
        parts = {
            name: part[rows]
            if isinstance(part, Tensor)
            else as_tensor(part[rows.numpy()], places[name])
            for name, part in columns.items()
        }
        return parts if several else parts[""]

    if any(isinstance(part, np.ndarray) for part in columns.values()):
        return StoredSequences(
            read, targets, steps, sum(part[:1].nbytes for part in columns.values())
        )
    data = Sequences(columns if several else columns[""], targets, steps)
    if steps is None:
        return data
    return data.map_xs(partial(zero_past_end, lengths=steps))
