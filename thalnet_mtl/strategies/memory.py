"""A memory of training sequences of earlier experiences, the base of the replay strategies."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from thalnet_mtl.config.values import Range
from thalnet_mtl.errors import UserError
from thalnet_mtl.strategies.base import Strategy, TrainingContext
from thalnet_mtl.tasks.batch import Batch
from thalnet_mtl.tasks.class_groups import ClassGroups
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
    (Vitter 1985, by random keys). ``per_class``: equally many of each class of each task, where a
    sequence with several classes counts as the rarest of them, and all of a task without classes
    as one; see ``ClassGroups``. Sequences without any target are not stored. Text is stored in
    chunks, which start from an empty state.

    With hidden boundaries, the sequences of a step are offered to the memory after it:
    each sequence so far is equally likely to be stored (reservoir sampling).

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
        if choice == "per_class" and not context.announced:
            raise UserError(
                "strategy.choice per_class counts the classes of all tasks before they come; with "
                "hidden boundaries, use reservoir."
            )
        self.stored: dict[str, StoredSequences] = {}
        self.groups: dict[str, ClassGroups] = {}
        if choice == "per_class":
            self.groups = {n: ClassGroups(task, context.chunk) for n, task in context.tasks.items()}
            self.check_groups()

    def check_groups(self) -> None:
        """Raise if the memory is smaller than the classes; note which tasks have no classes."""
        classes = sum(len(groups.sizes) for groups in self.groups.values())
        if self.memory < classes:
            raise UserError(
                f"strategy.memory {self.memory} holds no sequence of each class of each task; "
                f"must be at least {classes}."
            )
        without = [name for name, groups in self.groups.items() if not groups.has_classes]
        if without:
            self.notice = (
                f"strategy.choice per_class: {', '.join(without)} has no classes to balance; its "
                f"sequences count as one class."
            )

    def rehearsed_tasks(self, batches: Mapping[str, Batch]) -> list[str]:
        return list(self.stored)

    def after_experience(self, experience: Experience) -> None:
        context, capacity = self.context, self.memory
        generator = step_generator("memory", context.seed, context.step)
        # A task that returns was sampled in its first experience.
        new = [task for task in experience.tasks if task not in self.stored]
        if self.choice == "reservoir":
            drawn = {task: draw_candidates(context, task, capacity, generator) for task in new}
            self.stored = reservoir(self.stored | drawn, capacity)
        else:
            drawn = {
                task: draw_of_each_class(context, task, self.groups[task], capacity, generator)
                for task in new
            }
            self.stored = per_class(self.stored | drawn, self.groups, capacity)

    def after_update(self, batches: Mapping[str, Batch]) -> None:
        if not self.context.announced:
            generator = step_generator("memory", self.context.seed, self.context.step)
            for task, batch in batches.items():
                self.offer(task, batch, generator)

    def offer(self, task: str, batch: Batch, generator: torch.Generator) -> None:
        """Store those sequences of a batch whose random keys are among the smallest so far."""
        source, old = self.context.tasks[task], self.stored.get(task)
        keys = torch.rand(len(batch.ys), generator=generator, dtype=torch.float64)
        chosen = source.target.present(batch.ys).reshape(len(keys), -1).any(1).cpu()
        if old is not None and len(old.keys) == self.memory:
            chosen &= keys < old.keys[-1]
        places = chosen.nonzero().flatten()
        if len(places):
            data, keys = batch.select(places), keys[places]
            if old is not None:
                data = source.concatenate([old.data, data])
                keys = torch.cat([old.keys, keys])
            order = keys.argsort()[: self.memory]
            self.stored[task] = StoredSequences(data, keys).select(order)

    def older_tasks(self) -> list[str]:
        """Return the stored tasks that still train but are not part of this experience.

        With hidden boundaries, it is the stream, with all that is stored.
        """
        current = self.context.experience.tasks if self.context.announced else ()
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


def draw_of_each_class(
    context: TrainingContext,
    task: str,
    groups: ClassGroups,
    capacity: int,
    generator: torch.Generator,
) -> StoredSequences:
    """Give each training sequence a random key; return those of each class with the smallest keys.

    Together they are at most ``capacity``, equally many of each class as far as there are so many.
    """
    source = context.tasks[task]
    data = source.sequences("train", context.chunk)
    keys = torch.rand(len(data), generator=generator, dtype=torch.float64)
    of, order = groups.of(data.ys), keys.argsort()
    order = order[groups.with_target(data.ys)[order]]
    quota = equal_share(groups.sizes.values(), capacity)
    rows = torch.cat([order[of[order] == number][:quota] for number in groups.sizes])
    rows = rows[keys[rows].argsort()]
    batch = source.to_batch(data.select(rows))
    return StoredSequences(source.transformed(batch, context.seed, context.step), keys[rows])


def reservoir(stored: Mapping[str, StoredSequences], capacity: int) -> dict[str, StoredSequences]:
    """Return the ``capacity`` sequences with the smallest keys of all tasks."""
    keys = torch.cat([sequences.keys for sequences in stored.values()]).sort().values[:capacity]
    return {
        task: part.select((part.keys <= keys[-1]).nonzero().flatten())
        for task, part in stored.items()
    }


def per_class(
    stored: Mapping[str, StoredSequences], groups: Mapping[str, ClassGroups], capacity: int
) -> dict[str, StoredSequences]:
    """Return the sequences with the smallest keys of each class of each task, equally many."""
    quota = equal_share((n for task in stored for n in groups[task].sizes.values()), capacity)
    selected = {}
    for task, part in stored.items():
        of = groups[task].of(part.data.ys)
        places = [(of == number).nonzero().flatten()[:quota] for number in groups[task].sizes]
        selected[task] = part.select(torch.cat(places).sort().values)
    return selected


def equal_share(sizes: Iterable[int], capacity: int) -> int:
    """Return the largest q with Σ min(size, q) ≤ capacity: what small groups leave goes to others.

    >>> equal_share([1, 9, 9], 12)
    5
    """
    remaining, ascending = capacity, sorted(sizes)
    for k, size in enumerate(ascending):
        share = remaining // (len(ascending) - k)
        if size > share:
            return share
        remaining -= size
    return capacity
