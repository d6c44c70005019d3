"""A memory of training sequences of earlier experiences, the base of the replay strategies."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from thalnet_mtl.config.values import Range
from thalnet_mtl.errors import UserError
from thalnet_mtl.strategies.base import Strategy, TrainingContext
from thalnet_mtl.tasks.base import Task
from thalnet_mtl.tasks.batch import Batch
from thalnet_mtl.tasks.random_streams import step_generator
from thalnet_mtl.tasks.stream import Experience

UNREACHABLE_EPOCH = 1_000_000  # no run reads the batches of this epoch for training


class StoredSequences(NamedTuple):
    """The stored sequences of a task, with the random keys by which they were chosen."""

    data: Batch
    keys: Tensor  # ascending, uniform in [0, 1), on the CPU

    def select(self, places: Tensor) -> "StoredSequences":
        """Return the sequences at some places, (n,) indices in ascending order."""
        return StoredSequences(self.data.select(places), self.keys[places])


class ReplayMemory(Strategy):
    """A memory of a number of sequences of earlier tasks, of any shape.

    ``reservoir``: each sequence of all training sets so far is equally likely to be stored
    (Vitter 1985, by random keys). ``per_class``: equally many of each class of each task. A task
    with other targets than one class a sequence counts as one class: labels, numbers, targets at
    every step. Sequences without any target are not stored. Text is stored in chunks, which start
    from an empty state.

    Args:
        context: of the run.
        memory: number of stored sequences, over all tasks.
        choice: which sequences are stored: ``reservoir`` or ``per_class``.
    """

    only_after_experience: ClassVar[bool] = True

    def __init__(
        self,
        context: TrainingContext,
        memory: Annotated[int, Range(low=1)] = 500,
        choice: Literal["reservoir", "per_class"] = "reservoir",
    ):
        super().__init__(context)
        self.memory, self.choice = memory, choice
        self.stored: dict[str, StoredSequences] = {}
        classes = sum(
            task.spec.outputs if has_one_class(task) else 1 for task in context.tasks.values()
        )
        if choice == "per_class" and memory < classes:
            raise UserError(
                f"strategy.memory {memory} holds no sequence of each class of each task; "
                f"must be at least {classes}."
            )

    def rehearsed_tasks(self, batches: Mapping[str, Batch]) -> list[str]:
        return list(self.stored)

    def after_experience(self, experience: Experience) -> None:
        context, capacity, choose = self.context, self.memory, CHOICES[self.choice]
        # With classes, more candidates than fit: rare classes have few among many.
        count = capacity if choose is reservoir else 20 * capacity
        generator = step_generator("memory", context.seed, context.step)
        candidates = {  # a task that returns was sampled in its first experience
            task: draw_candidates(context, task, count, generator)
            for task in experience.tasks
            if task not in self.stored
        }
        self.stored = choose(self.stored | candidates, capacity)

    def older_tasks(self) -> list[str]:
        """Return the stored tasks that still train but are not part of this experience."""
        current = self.context.experience.tasks
        return [
            task
            for task, sequences in self.stored.items()
            if len(sequences.keys) and task in self.context.trainable_tasks and task not in current
        ]

    def replay_loss(self, tasks: Sequence[str]) -> Tensor:
        """Return the mean loss of up to ``train.batch`` random stored sequences of some tasks.

        The loss of each task has the factor ``tasks.NAME.weight``, as in training. The choice
        depends only on seed and step.
        """
        context = self.context
        sizes = [len(self.stored[task].keys) for task in tasks]
        count = min(context.batch_size(), sum(sizes))
        generator = step_generator("replay", context.seed, context.step)
        chosen = torch.randperm(sum(sizes), generator=generator)[:count]
        terms: list[Tensor] = []
        for k, task in enumerate(tasks):
            places = chosen - sum(sizes[:k])
            places = places[(places >= 0) & (places < sizes[k])]
            if len(places):
                batch, source = self.stored[task].data.select(places), context.tasks[task]
                outputs, _ = context.network(source.head_name, batch.xs, None, batch.lengths)
                loss = context.loss_weight(task) * source.loss(outputs, batch)
                terms.append(loss * (len(places) / count))
        return torch.stack(terms).sum()

    def state_dict(self) -> dict[str, Any]:
        return {
            "stored": {
                task: [*sequences.data, sequences.keys] for task, sequences in self.stored.items()
            }
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        device = self.context.device
        for task, (*data, keys) in state["stored"].items():
            self.stored[task] = StoredSequences(Batch(*data).to(device), keys.cpu())


def has_one_class(task: Task) -> bool:
    """Return whether each sequence of a task has one class as its target."""
    return task.target.name == "class" and not task.spec.every_step


def draw_candidates(
    context: TrainingContext, task: str, count: int, generator: torch.Generator
) -> StoredSequences:
    """Give each training sequence a random key; return the ``count`` with the smallest keys.

    Sequences without any target are left out.
    """
    chunk, source = context.chunk, context.tasks[task]
    total = source.batches_per_epoch("train", 1, chunk)
    keys = torch.rand(total, generator=generator, dtype=torch.float64).sort().values
    keys = keys[: count if source.complete else total]
    # Read with batch size 1: in larger batches the sequences of a text begin at fixed places, and
    # some of them are in no batch.
    places, order = torch.randperm(total, generator=generator)[: len(keys)].sort()
    batches = [
        source.training_batch(UNREACHABLE_EPOCH * total + place, 1, chunk, context.seed)
        for place in places.tolist()
    ]
    candidates = StoredSequences(source.concatenate(batches).select(order.argsort()), keys)
    present = source.target.present(candidates.data.ys)
    with_target = present.reshape(len(keys), -1).any(1).nonzero().flatten()
    return candidates.select(with_target.cpu()[:count])


def reservoir(stored: Mapping[str, StoredSequences], capacity: int) -> dict[str, StoredSequences]:
    """Return the ``capacity`` sequences with the smallest keys of all tasks."""
    keys = torch.cat([sequences.keys for sequences in stored.values()]).sort().values[:capacity]
    return {
        task: part.select((part.keys <= keys[-1]).nonzero().flatten())
        for task, part in stored.items()
    }


def per_class(stored: Mapping[str, StoredSequences], capacity: int) -> dict[str, StoredSequences]:
    """Return the sequences with the smallest keys of each class of each task, equally many."""
    labels = {
        task: ys if (ys := part.data.ys).ndim == 1 else torch.zeros(len(ys), dtype=torch.long)
        for task, part in stored.items()
    }
    quota = capacity // sum(len(ys.unique()) for ys in labels.values())
    selected = {}
    for task, part in stored.items():
        places = [(labels[task] == c).nonzero().flatten() for c in labels[task].unique()]
        chosen = torch.cat([place[:quota] for place in places]).sort().values
        selected[task] = part.select(chosen)
    return selected


CHOICES = {"reservoir": reservoir, "per_class": per_class}
