"""A stream with hidden boundaries: its tasks, mixed in batches, in one pass."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from thalnet_mtl.errors import UserError
from thalnet_mtl.tasks.base import Task
from thalnet_mtl.tasks.batch import Batch
from thalnet_mtl.tasks.random_streams import step_generator
from thalnet_mtl.tasks.sequences import SequenceTask
from thalnet_mtl.tasks.stream import Experience


class TaskStream(Task):
    """What a learner sees of such a stream: a single task, whose name is that of their head.

    A batch has sequences of all tasks in their shares at its step. Each training sequence is used
    at most once, in an order that the seed shuffles; a task that returns goes on where it was.

    Args:
        tasks: by name, with their data loaded; they have the same shape, loss and head.
        stream: the experiences of the run.
        size: sequences in a batch.

    Raises:
        UserError: a task has fewer sequences than the stream asks for.
    """

    def __init__(self, tasks: Mapping[str, SequenceTask], stream: Sequence[Experience], size: int):
        self.parts = [tasks[name] for name in names_in_order(stream)]
        first, self.size = self.parts[0], size
        super().__init__(
            first.head_name, first.spec, dict, target=first.target.name, loss=first.loss_function
        )
        self.device = first.device
        self.complete = all(task.complete for task in self.parts)
        self.counts = count_sequences(task_shares(stream), size)
        self._starts = self.counts.cumsum(0) - self.counts
        self._order: tuple[int, list[Tensor]] | None = None
        for task, needed in zip(self.parts, self.counts.sum(0).tolist(), strict=True):
            available = task.batches_per_epoch("train", 1, 1)
            if needed > available:
                raise UserError(
                    f"stream: task '{task.name}' has {available:,} training sequences, and its "
                    f"steps take {needed:,}; with hidden boundaries each is used once. "
                    f"Lower the steps, or train.batch."
                )

    def training_batch(self, step: int, size: int, chunk: int, seed: int) -> Batch:
        assert size == self.size
        if self._order is None or self._order[0] != seed:
            self._order = seed, [sequence_order(task, seed) for task in self.parts]
        batches = []
        starts, counts = self._starts[step].tolist(), self.counts[step].tolist()
        for k, (start, count) in enumerate(zip(starts, counts, strict=True)):
            if count:
                source, order = self.parts[k], self._order[1][k]
                data = source.sequences("train", chunk).select(order[start : start + count])
                batch = source.to_batch(data)
                if source.transform:  # the seed has no name of a task in it
                    batch = source.transform(batch, step_generator("transform", seed, step))
                batches.append(batch)
        return self.concatenate(batches) if len(batches) > 1 else batches[0]

    def batches_per_epoch(self, split: str, size: int, chunk: int) -> int:
        return len(self.counts)

    def tasks_at(self, step: int) -> list[str]:
        """Return the names of the tasks in the batch of a step, that with the most first."""
        counts = self.counts[step].tolist()
        present = [k for k, count in enumerate(counts) if count]
        return [self.parts[k].name for k in sorted(present, key=lambda k: -counts[k])]


def names_in_order(stream: Sequence[Experience]) -> list[str]:
    """Return the tasks of a stream in the order in which they first occur."""
    return list(dict.fromkeys(name for experience in stream for name in experience.tasks))


def sequence_order(task: Task, seed: int) -> Tensor:
    """Return the order of the training sequences of a task in a pass."""
    count = task.batches_per_epoch("train", 1, 1)
    return torch.randperm(count, generator=step_generator("pass", seed, 0))


def task_shares(stream: Sequence[Experience]) -> Tensor:
    """Return the share of each task in the batch of every step, (steps, tasks).

    In step k of its ``blur``, the share of an experience is (k + 1/2) / ``blur``, and the rest is
    that of the one before it.
    """
    names = names_in_order(stream)
    of_experience = torch.zeros(len(stream), len(names), dtype=torch.float64)
    for row, experience in zip(of_experience, stream, strict=True):
        for name, share in zip(experience.tasks, experience.shares, strict=True):
            row[names.index(name)] = share
    lengths = torch.tensor([experience.stop - experience.start for experience in stream])
    shares = of_experience.repeat_interleave(lengths, 0)
    for k, experience in enumerate(stream):
        if blur := experience.blur:
            rises = ((torch.arange(blur, dtype=torch.float64) + 0.5) / blur)[:, None]
            start = experience.start - blur // 2
            shares[start : start + blur] = of_experience[k - 1].lerp(of_experience[k], rises)
    return shares


def count_sequences(shares: Tensor, size: int) -> Tensor:
    """Return how many sequences of a batch each task has in every step, (steps, tasks).

    Each sequence is of the task that most is owed to: its share of the sequences of all mixed
    steps so far, less those that it has had. So totals follow the shares, without chance.
    """
    counts = (shares * size).round().long()
    owed = [0.0] * shares.shape[1]
    for step in ((shares > 0).sum(1) > 1).nonzero().flatten().tolist():
        row = shares[step].tolist()
        present = [k for k, share in enumerate(row) if share > 0]
        owed = [debt + size * share for debt, share in zip(owed, row, strict=True)]
        counts[step] = 0
        for _ in range(size):
            most = max(present, key=lambda k: round(owed[k], 9))
            owed[most] -= 1
            counts[step, most] += 1
    return counts
