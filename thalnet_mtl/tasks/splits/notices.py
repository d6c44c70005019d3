"""Notices on the data of a task, printed before it is trained: a sentence each."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from thalnet_mtl.tasks.splits.checks import InputSummary
from thalnet_mtl.tasks.splits.naming import WITHOUT_NAMES, Naming, listed
from thalnet_mtl.tasks.targets import Target

MOST = 3  # names in a sentence
LARGE = 20.0  # numbers above it, in size, slow training down


def data_notices(
    target: Target,
    targets: Mapping[str, Tensor],
    naming: Naming = WITHOUT_NAMES,
) -> list[str]:
    """Return what cannot be learned from the targets of the training part.

    Args:
        target: kind of the targets.
        targets: (N, …) by split, ``train`` first.
        naming: names of classes and outputs.
    """
    training, *later = targets
    notices = []
    if target.name == "class":
        present = {
            name: {int(k) for k in ys[target.present(ys)].unique().tolist()}
            for name, ys in targets.items()
        }
        seen = set[int]().union(*present.values())
        if empty := sorted(set(range(max(seen, default=0))) - seen):
            verb = "has" if len(empty) == 1 else "have"
            notices.append(f"{_classes(empty, naming.class_names)} {verb} no training row.")
        for name in later:
            if unseen := sorted(present[name] - present[training]):
                verb = "is" if len(unseen) == 1 else "are"
                subject = f"{_classes(unseen, naming.class_names)} of {name}"
                notices.append(f"{subject} {verb} in no training row.")
        return notices
    rows = targets[training]
    rows = rows.reshape(-1, rows.shape[-1])
    for k, column in enumerate(rows.T if rows.shape[-1] > 1 else ()):
        there = ~column.isnan()
        output = naming.output(k)
        if not there.any():
            notices.append(f"{output} has no target in the training part.")
        elif bool((column[there] == column[there][0]).all()):
            value = naming.in_units(rows[there][:1])[0, k].item()
            notices.append(f"{output} is always {value:g} in the training part.")
    return notices


def size_notices(target: Target, ys: Tensor) -> list[str]:
    """Return whether the training targets are numbers too large to be learned quickly."""
    if target.name != "numbers":
        return []
    present = ys[~ys.isnan()]
    mean, deviation = present.mean().item(), present.std(correction=0).item()
    if max(abs(mean), deviation) <= LARGE:
        return []
    return [
        f"the targets have mean {mean:.4g} and standard deviation {deviation:.4g} in the training "
        f"part; a network learns numbers near 0 and 1 much faster. Subtract the mean and divide by "
        f"the standard deviation, as standardize: true does."
    ]


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
                f"0 and 1 much faster. Set standardize: true, or 'scale', by which inputs are "
                f"divided."
            )
    return notices


def _classes(classes: Sequence[int], class_names: Sequence[str]) -> str:
    """Return the names of classes, or their numbers, after the noun."""
    names = [class_names[k] if class_names else str(k) for k in classes]
    return f"{'class' if len(names) == 1 else 'classes'} {listed(names, MOST)}"
