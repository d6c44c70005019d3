"""Groups of sequences by their classes, of which a balanced memory holds equally many."""

from collections.abc import Iterator

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from thalnet_mtl.tasks.base import Task

BLOCK = 4096  # sequences whose classes are listed at once


class ClassGroups:
    """The group of each sequence of a task: the rarest of the classes that are its targets.

    With one class a sequence, that is its class. With a class at every step it is the one that
    occurs in the fewest training sequences, of labels the rarest one that is 1; sequences whose
    labels are all 0 are a further group. Numbers and texts have no classes: all their sequences
    are one group.

    Args:
        task: with its data loaded.
        chunk: of a text, tokens in a sequence.

    Attributes:
        sizes: training sequences of each group by its number; those without any target are in none.
    """

    def __init__(self, task: Task, chunk: int):
        self.target, self.outputs = task.target, task.spec.outputs
        self.has_classes = task.target.name != "numbers" and not task.carries_state
        self.counts = torch.zeros(self.outputs, dtype=torch.long)
        ys = task.sequences("train", chunk).ys
        if self.has_classes:
            for block in self._occurrences(ys):
                self.counts += block.sum(0)
        numbers, sizes = self.of(ys)[self.with_target(ys)].unique(return_counts=True)
        self.sizes: dict[int, int] = dict(zip(numbers.tolist(), sizes.tolist(), strict=True))

    def of(self, ys: Tensor) -> Int[Tensor, " N"]:
        """Return the number of the group of each sequence, from its targets (N, …)."""
        if not self.has_classes:
            return torch.zeros(len(ys), dtype=torch.long)
        never = self.counts.sum() + 1
        blocks = [
            torch.where(
                block.any(1), torch.where(block, self.counts, never).argmin(1), self.outputs
            )
            for block in self._occurrences(ys)
        ]
        return torch.cat(blocks) if blocks else torch.zeros(0, dtype=torch.long)

    def with_target(self, ys: Tensor) -> Bool[Tensor, " N"]:
        """Return which sequences have at least one target."""
        return self.target.present(ys).reshape(len(ys), -1).any(1).cpu()

    def _occurrences(self, ys: Tensor) -> Iterator[Bool[Tensor, "N classes"]]:
        """Yield, block by block, which classes occur in each sequence."""
        for block in ys.split(BLOCK) if len(ys) else ():
            there = self.target.present(block).cpu()
            block = block.cpu()
            if self.target.name == "class":
                occurs = torch.zeros(len(block), self.outputs + 1, dtype=torch.bool)
                places = torch.where(there, block.long(), self.outputs).reshape(len(block), -1)
                yield occurs.scatter_(1, places, True)[:, :-1]
            else:
                yield (block == 1).reshape(len(block), -1, self.outputs).any(1)
