"""Notices on the data of a task, printed before it is trained: a sentence each."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from thalnet_mtl.tasks.splits.checks import InputSummary
from thalnet_mtl.tasks.targets import Target

MOST = 3  # names in a sentence
LARGE = 20.0  # numbers above it, in size, slow training down


def data_notices(
    target: Target, targets: Mapping[str, Tensor], class_names: Sequence[str] = ()
) -> list[str]:
    """Return what cannot be learned from the targets of the training part.

    Args:
        target: kind of the targets.
        targets: (N, …) by split, ``train`` first.
        class_names: names of the classes, if they have any.
    """
    training, *later = targets
    notices = []
    if target.name == "class":
        present = {name: ys[target.present(ys)].unique().tolist() for name, ys in targets.items()}
        for name in later:
            unseen = sorted(set(present[name]) - set(present[training]))
            if unseen:
                names = [class_names[int(k)] if class_names else str(int(k)) for k in unseen]
                kind = "class" if len(names) == 1 else "classes"
                verb = "is" if len(names) == 1 else "are"
                notices.append(f"{kind} {_listed(names)} of {name} {verb} in no training row.")
        return notices
    rows = targets[training]
    rows = rows.reshape(-1, rows.shape[-1])
    for k, column in enumerate(rows.T if rows.shape[-1] > 1 else ()):
        values = column[~column.isnan()]
        if not len(values):
            notices.append(f"output {k} has no target in the training part.")
        elif bool((values == values[0]).all()):
            notices.append(f"output {k} is always {values[0].item():g} in the training part.")
    if target.name == "numbers":
        present_numbers = rows[~rows.isnan()]
        mean, deviation = present_numbers.mean().item(), present_numbers.std(correction=0).item()
        if max(abs(mean), deviation) > LARGE:
            notices.append(
                f"the targets have mean {mean:.4g} and standard deviation {deviation:.4g} in the "
                f"training part; a network learns numbers near 0 and 1 much faster. Subtract the "
                f"mean and divide by the standard deviation, as the task 'csv' does."
            )
    return notices


def input_notices(summaries: Mapping[str, InputSummary], scale: float, tokens: bool) -> list[str]:
    """Return the inputs whose numbers are too large to be learned from quickly.

    Args:
        summaries: of the training part, by name of the input.
        scale: divisor of the inputs.
        tokens: whether inputs are whole numbers that stand for symbols.
    """
    notices = []
    for name, part in summaries.items():
        largest = max(abs(part.low), abs(part.high)) / scale
        if not tokens and largest > LARGE:
            which = f"the input '{name}' reaches" if name else "the inputs reach"
            notices.append(
                f"{which} {largest:.4g} in the training part; a network learns from numbers near "
                f"0 and 1 much faster. Set 'scale', by which inputs are divided, or scale the data."
            )
    return notices


def _listed(names: Sequence[str]) -> str:
    """Return names with commas, shortened if there are many."""
    hidden = len(names) - MOST
    return ", ".join(names[:MOST]) + (f" and {hidden} more" if hidden > 0 else "")
