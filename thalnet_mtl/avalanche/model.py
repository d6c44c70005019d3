"""A network as a multi-task model of Avalanche, and the loss for its outputs."""

from collections.abc import Mapping
from typing import Any

from thalnet_mtl.compat import import_torchvision

import_torchvision()

import torch
from avalanche.models import MultiTaskModule
from torch import Tensor, nn
from torch.nn import functional as F

from thalnet_mtl.avalanche.ragged import RaggedBatch, stack
from thalnet_mtl.errors import UserError
from thalnet_mtl.models.network import Network
from thalnet_mtl.tasks.base import Task

UNUSED_LOGIT = -1000.0  # for a class that a task does not have; the value of Avalanche's masks


class AvalancheModel(MultiTaskModule):
    """A network whose task labels are positions in ``names`` and whose outputs are logits.

    In a batch of several tasks, classes that a task does not have get the logit −1000.
    """

    def __init__(self, network: Network, tasks: Mapping[str, Task]):
        super().__init__()
        self.network = network
        self.names = list(tasks)
        self.heads = [task.head_name for task in tasks.values()]
        self.specs = {task.head_name: task.spec for task in tasks.values()}

    def adaptation(self, experience: Any) -> None:
        """Record the tasks of a training experience.

        Avalanche also calls this before an evaluation, where nothing may change.
        """
        if self.training:
            self.known_train_tasks_labels |= set(experience.task_labels)

    def forward(self, x: Any, task_labels: Any) -> Any:
        """Return the logits of each sequence for its task; without labels, of all tasks seen."""
        if task_labels is None:
            return self.forward_all_tasks(x)
        labels = torch.as_tensor(task_labels).flatten().tolist()
        if len(set(labels)) == 1:
            return self.forward_single_task(x, labels[0])
        rows: list[Any] = [None] * len(labels)
        for label in dict.fromkeys(labels):
            places = [k for k in range(len(labels)) if labels[k] == label]
            logits = self.forward_single_task(x[torch.tensor(places)], label)
            for place, row in zip(places, logits, strict=True):
                rows[place] = row
        if all(row.ndim == 1 for row in rows):
            classes = max(len(row) for row in rows)
            rows = [F.pad(row, (0, classes - len(row)), value=UNUSED_LOGIT) for row in rows]
        return stack(rows)

    def forward_single_task(self, x: Any, task_label: int) -> Tensor:
        """Return logits (batch, classes) or (batch, time, classes)."""
        head = self.heads[task_label]
        if head not in self.network.adapters:
            raise UserError(
                f"task '{self.names[task_label]}' has no head yet: evaluate it after its "
                f"experience, or call add_task before the first."
            )
        return self.network(head, x)[0]

    def forward_all_tasks(self, x: Any) -> dict[int, Tensor]:
        """Return logits by task label, of the tasks seen that have inputs of this shape."""
        tokens, width = not x.is_floating_point(), x.shape[-1]
        fits = [
            spec.tokens if tokens else not spec.tokens and spec.inputs == width
            for spec in (self.specs[head] for head in self.heads)
        ]
        seen = sorted(self.known_train_tasks_labels)
        return {label: self.forward_single_task(x, label) for label in seen if fits[label]}


def as_avalanche(network: Network, tasks: Mapping[str, Task]) -> AvalancheModel:
    """Return a model for a strategy of Avalanche; ``tasks`` are those of its ``benchmark``."""
    return AvalancheModel(network, tasks)


class Loss(nn.Module):
    """The mean cross-entropy of the sequences of a batch, which may be of several tasks."""

    def forward(self, logits: Any, ys: Any) -> Tensor:
        if isinstance(logits, RaggedBatch) or isinstance(ys, RaggedBatch):
            pairs = list(zip(logits, ys, strict=True))
            return torch.stack([self(row[None], target[None]) for row, target in pairs]).mean()
        return F.cross_entropy(logits.flatten(0, -2).float(), ys.flatten())
