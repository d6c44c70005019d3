"""Our network in Avalanche's hands, and the loss that fits its outputs."""

from collections.abc import Mapping
from typing import Any

from thalnet_mtl.compat import import_torchvision

import_torchvision()

import torch
from avalanche.models import MultiTaskModule
from torch import Tensor, nn
from torch.nn import functional as F

from thalnet_mtl.avalanche.benchmark import UNUSED
from thalnet_mtl.avalanche.ragged import RaggedBatch, together
from thalnet_mtl.errors import UserError
from thalnet_mtl.models.network import Network
from thalnet_mtl.tasks.base import Task


class AvalancheModel(MultiTaskModule):
    """Our network in Avalanche's hands: task labels are places in ``names``, outputs are logits.

    In a batch of several tasks classes that a task does not have get a logit of −1000.
    """

    def __init__(self, network: Network, tasks: Mapping[str, Task]):
        super().__init__()
        self.network = network
        self.names = list(tasks)
        self.adapters = [task.head_name for task in tasks.values()]
        self.shapes = {task.head_name: task.spec for task in tasks.values()}

    def adaptation(self, experience: Any) -> None:
        """Note the tasks. Avalanche also calls this to evaluate, when nothing may change."""
        if self.training:
            self.known_train_tasks_labels |= set(experience.task_labels)

    def forward(self, x: Any, task_labels: Any) -> Any:
        """Logits of every sequence, by its task; for labels None those of all tasks seen."""
        if task_labels is None:
            return self.forward_all_tasks(x)
        labels = torch.as_tensor(task_labels).flatten().tolist()
        if len(set(labels)) == 1:
            return self.forward_single_task(x, labels[0])
        rows: list[Any] = [None] * len(labels)
        for label in dict.fromkeys(labels):
            places = [k for k, other in enumerate(labels) if other == label]
            found = self.forward_single_task(x[torch.tensor(places)], label)
            for place, row in zip(places, found, strict=True):
                rows[place] = row
        if all(row.ndim == 1 for row in rows):
            most = max(len(row) for row in rows)
            rows = [F.pad(row, (0, most - len(row)), value=UNUSED) for row in rows]
        return together(rows)

    def forward_single_task(self, x: Any, task_label: int) -> Tensor:
        """Logits (batch, classes) or (batch, time, classes)."""
        port = self.adapters[task_label]
        if port not in self.network.adapters:
            raise UserError(
                f"task '{self.names[task_label]}' has no head yet: evaluate it after its "
                f"experience, or add_task before the first."
            )
        return self.network(port, x)[0]

    def forward_all_tasks(self, x: Any) -> dict[int, Tensor]:
        """Logits by task label, of the tasks seen that take inputs of this shape."""
        tokens, width = not x.is_floating_point(), x.shape[-1]
        takes = [
            shape.tokens if tokens else not shape.tokens and shape.inputs == width
            for shape in (self.shapes[port] for port in self.adapters)
        ]
        seen = sorted(self.known_train_tasks_labels)
        return {label: self.forward_single_task(x, label) for label in seen if takes[label]}


def as_avalanche(network: Network, tasks: Mapping[str, Task]) -> AvalancheModel:
    """The model of an Avalanche strategy; ``tasks`` are those of its ``benchmark``."""
    return AvalancheModel(network, tasks)


class Loss(nn.Module):
    """Mean cross-entropy of the sequences of a batch, whatever their tasks."""

    def forward(self, logits: Any, ys: Any) -> Tensor:
        if isinstance(logits, RaggedBatch) or isinstance(ys, RaggedBatch):
            pairs = list(zip(logits, ys, strict=True))
            return torch.stack([self(row[None], target[None]) for row, target in pairs]).mean()
        return F.cross_entropy(logits.flatten(0, -2).float(), ys.flatten())
