"""Whether two tasks have the same sequences, so that one pass of the body serves both."""

import torch
from torch import Tensor

from thalnet_mtl.ops.inputs import inputs_by_name
from thalnet_mtl.tasks.splits.sequences import Split
from thalnet_mtl.tasks.targets import first_row

BLOCK_SIZE = 4096  # sequences that are compared at once


def same_order(first: Tensor | None, second: Tensor | None) -> bool:
    """Return whether two tasks read the places of a sequence in the same order."""
    if first is None or second is None:
        return first is second
    return torch.equal(first.cpu(), second.cpu())


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
        xs, others = (inputs_by_name(block.xs) for block in pair)
        if xs.keys() != others.keys():
            return f"their inputs are {', '.join(xs)} and {', '.join(others)}"
        for name, part in xs.items():
            other = others[name]
            if part.shape[1:] != other.shape[1:]:
                return f"sequences have shape {tuple(part.shape[1:])} and {tuple(other.shape[1:])}"
            if row := first_row(part != other):
                return f"the inputs of sequence {start + row} differ"
    return ""
