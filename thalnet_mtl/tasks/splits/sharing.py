"""A comparison of the sequences of two tasks: if equal, one pass of the body serves both."""

from typing import Any

import torch
from torch import Tensor

from thalnet_mtl.errors import UserError
from thalnet_mtl.ops.inputs import inputs_by_name
from thalnet_mtl.tasks.splits.sequences import Split
from thalnet_mtl.tasks.targets import first_row

BLOCK_SIZE = 4096  # sequences that are compared at once


def same_order(first: Tensor | None, second: Tensor | None) -> bool:
    """Return whether two tasks read the places of a sequence in the same order."""
    if first is None or second is None:
        return first is second
    return torch.equal(first.cpu(), second.cpu())


def check_same_reading(first: Any, second: Any, where: str) -> None:
    """Raise unless two tasks read what they store in the same way; both are a ``SequenceTask``."""
    if first.scale != second.scale:
        raise UserError(f"{where}: their scales, {first.scale:g} and {second.scale:g}, differ.")
    if first.input_scaling != second.input_scaling:
        raise UserError(f"{where}: their inputs are standardized differently.")
    if not same_order(first.order, second.order):
        raise UserError(f"{where}: the order in which they read a sequence differs.")
    if first.transform or second.transform:
        raise UserError(f"{where}: a transform of batches may change inputs and targets.")


def first_difference(first: Split, second: Split) -> str:
    """Return in what two sets of sequences differ, with the first such row; '' if in nothing."""
    if len(first) != len(second):
        return f"they have {len(first):,} and {len(second):,} training sequences"
    if (first.lengths is None) != (second.lengths is None):
        return "only one of them has sequences of unequal length"
    steps = [part.lengths for part in (first, second) if part.lengths is not None]
    if steps and (row := first_row(steps[0] != steps[1])):
        return f"sequence {row} has {row.value(steps[0])} and {row.value(steps[1])} steps"
    for start in range(0, len(first), BLOCK_SIZE):
        pair = [part.slice(start, start + BLOCK_SIZE) for part in (first, second)]
        xs, second_xs = (inputs_by_name(block.xs) for block in pair)
        if xs.keys() != second_xs.keys():
            return f"their inputs are {', '.join(xs)} and {', '.join(second_xs)}"
        for name, part in xs.items():
            second_part = second_xs[name]
            first_shape, second_shape = tuple(part.shape[1:]), tuple(second_part.shape[1:])
            if first_shape != second_shape:
                return f"sequences have shape {first_shape} and {second_shape}"
            if row := first_row(part != second_part):
                return f"the inputs of sequence {start + row} differ"
    return ""
