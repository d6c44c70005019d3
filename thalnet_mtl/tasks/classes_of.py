"""The task ``classes_of``: some classes of another task, as in a split by classes."""

from dataclasses import replace
from functools import partial
from typing import Any, Self

import torch

from thalnet_mtl.config.options import task_options
from thalnet_mtl.errors import UserError
from thalnet_mtl.registry import lookup, register
from thalnet_mtl.tasks.sequences import SequenceTask
from thalnet_mtl.tasks.splits.reading import read_split
from thalnet_mtl.tasks.splits.sequences import Split


class ClassesOf(SequenceTask):
    """A task of some of the classes of another task.

    With a head of its own its classes count from 0, in the given order; with a head that it
    shares, they keep their numbers among all classes of the other task.

    Args:
        name: name of the task.
        whole: task with all classes, one a sequence, before its data is loaded.
        classes: the classes.
    """

    def __init__(self, name: str, whole: SequenceTask, classes: list[int]):
        names = whole.class_names
        super().__init__(
            name,
            partial(_read_splits, whole, classes, renumber=True),
            replace(whole.spec, outputs=len(classes)),
            scale=whole.scale,
            standardize=whole.standardize,
            order=whole.order,
            class_names=[names[number] for number in classes] if names else (),
            source=whole.source,
        )
        self._whole, self._classes = whole, classes
        self.meaning = f"{whole.meaning}: {', '.join(map(str, classes))}"

    def named(self, name: str, head: str = "") -> Self:
        task = super().named(name, head)
        if head:
            task.spec, task.class_names = self._whole.spec, self._whole.class_names
            task.read_splits = partial(_read_splits, self._whole, self._classes, renumber=False)
        elif len(self._classes) < 2:
            raise UserError(
                f"task '{name}' has a single class, so there is nothing to tell apart. Let it "
                f"share a head with the other classes, or give it more of them."
            )
        return task


@register("task", "classes_of")
def classes_of(of: str | dict[str, Any], classes: list[int]) -> ClassesOf:
    """Some classes of another task; with a shared head, they keep their numbers among all.

    Args:
        of: the other task, which has one class a sequence: its name, or a mapping of its ``name``
            and options.
        classes: numbers of the classes, from 0.
    """
    name, options = task_options(of, "classes_of")
    whole = lookup("task", name)(**options)
    where, spec = f"classes_of '{name}'", whole.spec
    if not isinstance(whole, SequenceTask) or whole.target.name != "class" or spec.every_step:
        raise UserError(f"{where}: expected a task with one class a sequence.")
    if not classes or len(set(classes)) < len(classes) or not set(classes) < {*range(spec.outputs)}:
        raise UserError(
            f"{where}: classes must be some of 0 … {spec.outputs - 1}, each once, got {classes}."
        )
    return ClassesOf("classes_of", whole, classes)


def _read_splits(whole: SequenceTask, classes: list[int], renumber: bool) -> dict[str, Split]:
    """Return the sequences of some classes, which are renumbered from 0 or keep their numbers."""
    splits: dict[str, Split] = {}
    for split, data in whole.read_splits().items():
        part = read_split(data, whole.target, whole.columns, f"task '{whole.name}', {split}")
        part = part.select(torch.isin(part.ys, torch.tensor(classes)).nonzero().flatten())
        if renumber:
            numbers = torch.zeros(whole.spec.outputs, dtype=part.ys.dtype)
            numbers[classes] = torch.arange(len(classes)).to(numbers)
            part = part.with_targets(numbers[part.ys.long()], part.lengths)
        splits[split] = part
    return splits
