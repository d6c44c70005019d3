"""Strategies that keep sequences of earlier experiences and see them again."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from thalnet_mtl.errors import UserError
from thalnet_mtl.strategies.base import Naive
from thalnet_mtl.tasks.base import Batch
from thalnet_mtl.tasks.stream import Experience
from thalnet_mtl.training.state import Run

Kept = dict[str, list[Tensor]]  # by task: inputs, targets, random keys in rising order
FAR = 1_000_000  # an epoch that no run reaches


class ReplayMemory(Naive):
    """Sequences of earlier experiences, at most ``strategy.memory`` in all, whatever their shape.

    ``reservoir``: every sequence of all training parts so far is as likely to be among them
    (Vitter 1985, by random keys). ``per_class``: as many of each class of each task.
    Text, one class, is kept in chunks, which begin without a state.
    """

    def __init__(self, run: Run):
        super().__init__(run)
        self.kept: Kept = {}
        shapes = [task.spec for task in run.tasks.values()]
        least = sum(1 if shape.target == "every" else shape.classes for shape in shapes)
        if self.options.choice == "per_class" and self.options.memory < least:
            raise UserError(
                f"strategy.memory {self.options.memory} holds no sequence of each class of each "
                f"task; must be at least {least}."
            )

    def rehearsed_tasks(self, run: Run, batches: Mapping[str, Batch]) -> list[str]:
        return list(self.kept)

    def after_experience(self, run: Run, experience: Experience) -> None:
        room, choice = self.options.memory, CHOICES[self.options.choice]
        # Few of many are of a rare class.
        count = room if choice is reservoir else 20 * room
        generator = torch.Generator().manual_seed(1_000_003 * run.config.train.seed + run.step)
        new = {  # a task that was learned before has had its chance
            task: drawn(run, task, count, generator)
            for task in experience.tasks
            if task not in self.kept
        }
        self.kept = choice(self.kept | new, room)

    def older(self, run: Run) -> list[str]:
        """Tasks of which something is kept, and learns, but that are not learned now."""
        now = run.experience.tasks
        return [
            task
            for task, (*_, keys) in self.kept.items()
            if len(keys) and task in run.trainable_tasks and task not in now
        ]

    def recalled(self, run: Run, tasks: Sequence[str]) -> Tensor:
        """The mean loss of some sequences of some tasks, a fixed choice for every step."""
        sizes = [len(self.kept[task][2]) for task in tasks]
        count = min(run.config.train.batch, sum(sizes))
        generator = torch.Generator().manual_seed(1_000_003 * run.config.train.seed + run.step)
        chosen = torch.randperm(sum(sizes), generator=generator)[:count]
        total: list[Tensor] = []
        for k, task in enumerate(tasks):
            own = chosen - sum(sizes[:k])
            own = own[(own >= 0) & (own < sizes[k])]
            if len(own):
                xs, ys = (part[own.to(part.device)] for part in self.kept[task][:2])
                logits, _ = run.network(run.tasks[task].head_name, xs)
                loss = F.cross_entropy(logits.flatten(0, -2).float(), ys.flatten())
                total.append(loss * (len(own) / count))
        return torch.stack(total).sum()

    def state_dict(self) -> dict[str, Any]:
        return {"kept": self.kept}

    def load_state_dict(self, run: Run, state: dict[str, Any]) -> None:
        for task, (xs, ys, keys) in state["kept"].items():
            self.kept[task] = [xs.to(run.device), ys.to(run.device), keys.cpu()]


def drawn(run: Run, task: str, count: int, generator: torch.Generator) -> list[Tensor]:
    """Sequences of the training part with the least of random keys, in the order of these."""
    options, source = run.config.train, run.tasks[task]
    whole = source.batches_per_epoch("train", 1, options.chunk)
    keys = torch.rand(whole, generator=generator, dtype=torch.float64).sort().values[:count]
    # One by one: sequences of a batch lie at fixed places of a text, and some are in no batch.
    places, order = torch.randperm(whole, generator=generator)[: len(keys)].sort()
    batches = [
        source.training_batch(FAR * whole + place, 1, options.chunk, options.seed)
        for place in places.tolist()
    ]
    back = order.argsort()
    xs, ys = (torch.cat(parts) for parts in list(zip(*batches, strict=True))[:2])
    return [xs[back.to(xs.device)], ys[back.to(ys.device)], keys]


def reservoir(kept: Kept, room: int) -> Kept:
    """Those with the least keys of all."""
    keys = torch.cat([parts[2] for parts in kept.values()]).sort().values[:room]
    return {
        task: [part[parts[2].to(part.device) <= keys[-1]] for part in parts]
        for task, parts in kept.items()
    }


def per_class(kept: Kept, room: int) -> Kept:
    """Those with the least keys of each class of each task."""
    answers = {
        task: parts[1] if parts[1].ndim == 1 else torch.zeros(len(parts[1]), dtype=torch.long)
        for task, parts in kept.items()
    }
    quota = room // sum(len(ys.unique()) for ys in answers.values())
    found: Kept = {}
    for task, parts in kept.items():
        places = [(answers[task] == c).nonzero().flatten() for c in answers[task].unique()]
        chosen = torch.cat([place[:quota] for place in places]).sort().values
        found[task] = [part[chosen.to(part.device)] for part in parts]
    return found


CHOICES = {"reservoir": reservoir, "per_class": per_class}
