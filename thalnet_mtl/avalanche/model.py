"""A network as a multi-task model of Avalanche, and the loss for its outputs."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

from thalnet_mtl.compat import import_torchvision

import_torchvision()

import torch
from avalanche.models import MultiTaskModule
from torch import Tensor, nn
from torch.nn import functional as F

from thalnet_mtl.avalanche.ragged import RaggedBatch, padded, stack
from thalnet_mtl.errors import UserError
from thalnet_mtl.models.network import Network
from thalnet_mtl.tasks.base import Task
from thalnet_mtl.tasks.batch import Batch

UNUSED_LOGIT = -1000.0  # for a class that a task does not have; the value of Avalanche's masks


class LastBatch:
    """The tasks, and the task label of each row of the outputs that a model returned last.

    Avalanche does not tell a loss the task of a row. Copies of a model share this object.
    """

    def __init__(self, tasks: Mapping[str, Task]):
        self.tasks = list(tasks.values())
        self.labels: list[int] = []

    def __deepcopy__(self, memo: Any) -> Self:
        return self


class AvalancheModel(MultiTaskModule):
    """A network whose task labels are positions in ``names`` and whose outputs are those of heads.

    In a batch of several tasks, outputs that a task does not have are −1000, as for a logit.
    Sequences of unequal lengths come as a ``RaggedBatch``.
    """

    def __init__(self, network: Network, tasks: Mapping[str, Task]):
        super().__init__()
        self.network = network
        self.names = list(tasks)
        self.heads = [task.head_name for task in tasks.values()]
        self.specs = {task.head_name: task.spec for task in tasks.values()}
        self.last_batch = LastBatch(tasks)

    def adaptation(self, experience: Any) -> None:
        """Record the tasks of a training experience.

        Avalanche also calls this before an evaluation, where nothing may change.
        """
        if self.training:
            self.known_train_tasks_labels |= set(experience.task_labels)

    def forward(self, x: Any, task_labels: Any) -> Any:
        """Return the outputs of each sequence for its task; without labels, of all tasks seen."""
        if task_labels is None:
            return self.forward_all_tasks(x)
        labels = torch.as_tensor(task_labels).flatten().tolist()
        labels = labels * len(x) if len(labels) == 1 else labels
        self.last_batch.labels = labels
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
        """Return outputs (batch, outputs) or (batch, time, outputs), padded with zeros."""
        head = self.heads[task_label]
        if head not in self.network.adapters:
            raise UserError(
                f"task '{self.names[task_label]}' has no head yet: evaluate it after its "
                f"experience, or call add_task before the first."
            )
        xs, lengths = padded(x)
        return self.network(head, xs, None, lengths)[0]

    def forward_all_tasks(self, x: Any) -> dict[int, Tensor]:
        """Return outputs by task label, of the tasks seen that have inputs of this shape."""
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
    """The mean over the sequences of a batch of the losses of their tasks.

    Args:
        model: of ``as_avalanche``; the loss is that of the outputs that it returned last.
    """

    def __init__(self, model: AvalancheModel):
        super().__init__()
        self.last_batch = model.last_batch

    def forward(self, outputs: Any, ys: Any) -> Tensor:
        tasks, labels = self.last_batch.tasks, self.last_batch.labels
        terms = [
            task.loss(part, batch) * (len(part) / len(labels))
            for task, part, batch in rows_by_task(tasks, labels, outputs, ys)
        ]
        return torch.stack(terms).sum()


def rows_by_task(
    tasks: Sequence[Task], labels: Sequence[int], outputs: Any, ys: Any
) -> Iterator[tuple[Task, Tensor, Batch]]:
    """Yield each task of a batch with its outputs and, in a batch without inputs, its targets.

    Args:
        tasks: by their labels.
        labels: the label of each row.
        outputs: of a model, for all rows.
        ys: targets of all rows.
    """
    for label in dict.fromkeys(labels):
        task, part, targets = tasks[label], outputs, ys
        if len(set(labels)) > 1:
            places = [k for k in range(len(labels)) if labels[k] == label]
            part, targets = (stack([rows[k] for k in places]) for rows in (outputs, ys))
        if isinstance(targets, RaggedBatch):  # one at every step, of sequences of unequal lengths
            targets = nn.utils.rnn.pad_sequence(
                targets.parts, batch_first=True, padding_value=task.target.missing
            )
        yield task, part[..., : task.spec.outputs], Batch(None, targets, True)
