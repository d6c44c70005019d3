"""Sequences of tasks of different shapes, one by one and in one batch, as a data loader asks."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from thalnet_mtl.tasks.base import Task


class RaggedBatch:
    """Tensors of different shapes in one batch, one a sequence: a list with ``to``."""

    def __init__(self, parts: Sequence[Tensor]):
        self.parts = list(parts)

    def __len__(self) -> int:
        return len(self.parts)

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.parts)

    def __getitem__(self, index: Any) -> "Tensor | RaggedBatch":
        if isinstance(index, slice):
            return together(self.parts[index])
        if isinstance(index, Tensor) and index.dtype == torch.bool:
            index = index.nonzero().flatten()
        chosen = torch.as_tensor(index)
        if chosen.ndim == 0:
            return self.parts[int(chosen)]
        return together([self.parts[k] for k in chosen.tolist()])

    @property
    def device(self) -> torch.device:
        return self.parts[0].device

    def to(self, *where: Any, **options: Any) -> "RaggedBatch":
        return RaggedBatch([part.to(*where, **options) for part in self.parts])


def together(parts: Sequence[Tensor]) -> Tensor | RaggedBatch:
    """One tensor, where the shapes and types allow it."""
    kinds = {(part.shape, part.dtype) for part in parts}
    return torch.stack(list(parts)) if len(kinds) == 1 else RaggedBatch(parts)


def collate(samples: Iterable[Sequence[Any]]) -> list[Tensor | RaggedBatch]:
    """Inputs, targets and task labels of samples whose shapes may differ."""
    columns = zip(*samples, strict=True)
    return [together([torch.as_tensor(value) for value in column]) for column in columns]


class SequenceDataset(Dataset[tuple[Tensor, Tensor]]):
    """A part of a task, one sequence at a time; text in chunks, which begin without a state."""

    def __init__(self, task: Task, split: str, chunk: int, limit: int = 0):
        self.task = task
        self.xs, self.ys = task.sequences(split, chunk)
        if 0 < limit < len(self.xs):
            chosen = torch.randperm(len(self.xs))[:limit]
            self.xs, self.ys = self.xs[chosen], self.ys[chosen]

    def __len__(self) -> int:
        return len(self.xs)

    def __getitem__(self, k: int) -> tuple[Tensor, Tensor]:
        return self.task.to_inputs(self.xs[k]), self.ys[k].long()
