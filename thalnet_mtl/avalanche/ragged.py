"""Batches of sequences of different shapes, and a data set that a PyTorch data loader can read."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from thalnet_mtl.errors import UserError
from thalnet_mtl.tasks.base import Task


class RaggedBatch:
    """A batch of tensors of different shapes, one for each sequence.

    It can be indexed, iterated and moved like a tensor whose first axis is the batch.
    """

    def __init__(self, parts: Sequence[Tensor]):
        self.parts = list(parts)

    def __len__(self) -> int:
        return len(self.parts)

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.parts)

    def __getitem__(self, index: Any) -> "Tensor | RaggedBatch":
        if isinstance(index, slice):
            return stack(self.parts[index])
        if isinstance(index, Tensor) and index.dtype == torch.bool:
            index = index.nonzero().flatten()
        places = torch.as_tensor(index)
        if places.ndim == 0:
            return self.parts[int(places)]
        return stack([self.parts[k] for k in places.tolist()])

    @property
    def device(self) -> torch.device:
        return self.parts[0].device

    def to(self, *args: Any, **kwargs: Any) -> "RaggedBatch":
        return RaggedBatch([part.to(*args, **kwargs) for part in self.parts])


def stack(parts: Sequence[Tensor]) -> Tensor | RaggedBatch:
    """Stack tensors to one if their shapes and types are equal, otherwise to a ragged batch."""
    kinds = {(part.shape, part.dtype) for part in parts}
    return torch.stack(list(parts)) if len(kinds) == 1 else RaggedBatch(parts)


def padded(parts: Tensor | RaggedBatch) -> tuple[Tensor, Tensor | None]:
    """Return sequences as one tensor padded with zeros, and their lengths if they differ."""
    if isinstance(parts, Tensor):
        return parts, None
    lengths = torch.tensor([len(part) for part in parts], device=parts.device)
    return torch.nn.utils.rnn.pad_sequence(parts.parts, batch_first=True), lengths


def collate(samples: Iterable[Sequence[Any]]) -> list[Tensor | RaggedBatch]:
    """Return the inputs, targets and task labels of samples, each as a batch."""
    columns = zip(*samples, strict=True)
    return [stack([torch.as_tensor(value) for value in column]) for column in columns]


class SequenceDataset(Dataset[tuple[Tensor, Tensor]]):
    """A split of a task as a data set of sequences; text in chunks, each from an empty state.

    Args:
        task: with its data loaded.
        split: train, validation or test.
        chunk: for text, tokens in a sequence.
        limit: maximum number of sequences, drawn at random; 0 for all. Sequences without any
            target are left out.

    Raises:
        UserError: the task has several inputs.
    """

    def __init__(self, task: Task, split: str, chunk: int, limit: int = 0):
        if task.spec.input_names:
            raise UserError(
                f"task '{task.name}' has several inputs, but a data set of Avalanche holds a "
                f"single tensor for each sequence."
            )
        self.task = task
        self.data = task.sequences(split, chunk)
        if not task.complete:
            present = task.target.present(self.data.ys).reshape(len(self.data), -1)
            self.data = self.data.select(present.any(1).nonzero().flatten())
        if 0 < limit < len(self.data):
            self.data = self.data.select(torch.randperm(len(self.data))[:limit])

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, k: int) -> tuple[Tensor, Tensor]:
        batch = self.task.to_batch(self.data.slice(k, k + 1))
        return batch.xs[0], batch.ys[0]
