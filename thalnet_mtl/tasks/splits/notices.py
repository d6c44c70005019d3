"""Notices on the data of a task, printed before it is trained: a sentence each."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from thalnet_mtl.tasks.targets import Target

MOST = 3  # names in a sentence


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
    return notices


def _listed(names: Sequence[str]) -> str:
    """Return names with commas, shortened if there are many."""
    hidden = len(names) - MOST
    return ", ".join(names[:MOST]) + (f" and {hidden} more" if hidden > 0 else "")
