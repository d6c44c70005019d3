"""Configurations that runs of earlier versions recorded, brought to the fields of today."""

from typing import Any

from thalnet_mtl.config.options import declared_options

# The fields that such a run holds for each task: all that there were.
_TASK = {"name", "permutation", "batch"}
_NAMED_TASK = _TASK | {"weight", "share", "reset", "head"}
# The fields of its section ``strategy``, whatever the strategy.
_STRATEGY = {"strength", "memory", "choice", "decay"}
# The sections that every run records, and the fields of ``growth`` that only one rule reads.
_RECORDED = {"model", "changes", "growth", "train", "evaluate"}
_GROWTH = {"patience": "on_plateau", "price": "search"}


def upgrade(tree: dict[str, Any]) -> None:
    """Remove, in place, what was recorded without effect: fields that are options today."""
    tasks = tree.get("tasks")
    for entry in (tree.get("task"), *(tasks.values() if isinstance(tasks, dict) else ())):
        _drop_permutation(entry)
    section, train = tree.get("strategy"), tree.get("train")
    if isinstance(section, dict) and isinstance(train, dict) and section.keys() >= _STRATEGY:
        for name in _STRATEGY - declared_options("strategy", str(train.get("strategy"))):
            del section[name]
    growth = tree.get("growth")
    if tree.keys() >= _RECORDED and isinstance(growth, dict) and "when" in growth:
        for name, rule in _GROWTH.items():
            if growth["when"] in {"never", "per_task", *_GROWTH.values()} - {rule}:
                growth.pop(name, None)


def _drop_permutation(entry: Any) -> None:
    """Remove ``permutation: 0`` from a task that has no such option."""
    is_old = isinstance(entry, dict) and set(entry) in (_TASK, _NAMED_TASK)
    if is_old and entry["name"] != "permuted_mnist" and entry["permutation"] == 0:
        del entry["permutation"]
