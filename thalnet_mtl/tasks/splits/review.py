"""A review of the targets of all splits: which are missing, which classes occur, what is constant.

Targets are reviewed in pieces, since they may be mapped from a file larger than memory.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from thalnet_mtl.errors import UserError
from thalnet_mtl.tasks.splits.naming import WITHOUT_NAMES, Naming, listed
from thalnet_mtl.tasks.targets import Target

BLOCK = 2**22  # entries that are reviewed at once


def every_sequence_has_targets(target: Target, ys: Mapping[str, Tensor], where: str) -> bool:
    """Return whether no sequence lacks all its targets.

    Args:
        target: kind of target.
        ys: checked targets by split.
        where: the task, for errors.

    Raises:
        UserError: a split has no target at all.
    """
    complete = True
    for split, part in ys.items():
        present = [target.present(rows).reshape(len(rows), -1).any(1) for rows in pieces(part)]
        if not any(bool(rows.any()) for rows in present):
            raise UserError(f"{where}, {split}: all targets are missing.")
        complete &= all(bool(rows.all()) for rows in present)
    return complete


def classes_of(target: Target, ys: Tensor) -> set[int]:
    """Return the classes that occur."""
    classes: set[int] = set()
    for rows in pieces(ys):
        classes |= {int(label) for label in rows[target.present(rows)].unique().tolist()}
    return classes


def check_varied(
    target: Target,
    ys: Tensor,
    outputs: int,
    where: str,
    naming: Naming = WITHOUT_NAMES,
) -> None:
    """Raise if the training targets are constant: one class, or every label or number the same.

    Args:
        target: kind of target.
        ys: training targets.
        outputs: width of the head.
        where: the task, for errors.
        naming: names of classes and outputs.
    """
    subject = f"{where}: all training targets{naming.of_columns()}"
    if target.name == "class":
        classes = classes_of(target, ys)
        if len(classes) == 1:
            (label,) = classes
            raise UserError(
                f"{subject} are {naming.class_name(label)}, so there is nothing to learn."
            )
        return
    low = torch.full((outputs,), torch.inf, device=ys.device)
    high = -low
    for rows in pieces(ys):
        values = rows.reshape(-1, outputs).to(low.dtype)
        low = torch.minimum(low, torch.where(values.isnan(), torch.inf, values).amin(0))
        high = torch.maximum(high, torch.where(values.isnan(), -torch.inf, values).amax(0))
    if bool((low >= high).all()):
        constants = naming.in_units(low)[low.isfinite()].tolist()
        text = listed([f"{value:g}" for value in constants])
        raise UserError(f"{subject} are {text}, so there is nothing to learn.")


def pieces(ys: Tensor) -> Iterator[Tensor]:
    """Yield targets in pieces."""
    yield from ys.split(max(1, BLOCK // max(1, ys[0].numel())))
