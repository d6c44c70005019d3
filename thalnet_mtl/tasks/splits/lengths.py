"""The lengths of sequences, and targets that come as lists of unequal length."""

from typing import Any

from torch import Tensor

from thalnet_mtl.errors import UserError
from thalnet_mtl.tasks.splits.arrays import as_list, as_tensor, describe, pad
from thalnet_mtl.tasks.targets import Target, first_row


def read_lengths(lengths: Any, where: str) -> Tensor:
    """Return lengths as int64."""
    counts = as_tensor(lengths, f"{where}, lengths")
    if counts.is_floating_point() or counts.ndim != 1:
        raise UserError(
            f"{where}: lengths have shape {tuple(counts.shape)} and type {counts.dtype}; expected "
            f"a whole number for every sequence."
        )
    return counts.long().cpu()


def check_lengths(lengths: Tensor, count: int, time: int, where: str) -> None:
    """Raise unless there is a length within 1 … ``time`` for each of ``count`` sequences."""
    if len(lengths) != count:
        raise UserError(f"{where}: {count} sequences but {len(lengths)} lengths.")
    if row := first_row((lengths < 1) | (lengths > time)):
        raise UserError(
            f"{where}: length {row.value(lengths)} of row {row} is not within 1 … {time}."
        )


def read_targets(ys: Any, lengths: Tensor | None, target: Target, where: str) -> Tensor:
    """Return targets as numbers, those at every step padded with what is missing.

    The targets of a list at every step must be as many as the steps of its sequence.
    """
    if as_list(ys) is None:
        targets = as_tensor(ys, where, target.missing, target.for_text)
        if targets.ndim == 0:
            raise UserError(f"{where}: expected one for every sequence, got {describe(ys)}.")
        return targets
    targets, counts = pad(ys, target.missing, where)
    if counts is None:
        return targets
    expected = counts[:1].expand_as(counts) if lengths is None else lengths
    if len(expected) == len(counts) and (row := first_row(counts != expected)):
        steps = "the sequences are equally long" if lengths is None else f"{expected[row]} steps"
        raise UserError(
            f"{where}: row {row} has {counts[row]} entries, but {steps}; expected one for every "
            f"step."
        )
    return targets if target.name == "class" or targets.ndim > 2 else targets[..., None]
