"""Evaluation: the loss and the scores of outputs over a split, and those of guessing."""

from collections.abc import Iterable, Mapping
from itertools import islice

import torch
from torch import Tensor

from thalnet_mtl.tasks.base import Task
from thalnet_mtl.tasks.batch import Batch


class Evaluation:
    """The loss and the scores of outputs over the batches of a split.

    Args:
        task: with its data loaded.
        columns: outputs that are numbers, to score each of them alone as well.
    """

    def __init__(self, task: Task, columns: Iterable[int] = ()):
        self.columns = {column: task.scorer() for column in columns}
        self.task, self.scorer = task, task.scorer()
        self.total = torch.zeros((), dtype=torch.float64, device=task.device)
        self.weight, self.count = torch.zeros_like(self.total), torch.zeros_like(self.total)

    def update(self, outputs: Tensor, batch: Batch) -> None:
        """Add the outputs of a head for a batch."""
        outputs = outputs.detach()
        weight = self.task.count(batch)
        self.total += self.task.loss(outputs, batch) * weight
        self.weight += weight
        self.count += self.task.target.present(batch.ys).sum()
        outputs = self.task.in_units(self.task.floats(outputs))
        ys = self.task.in_units(batch.ys)
        self.scorer.update(outputs, ys)
        for k, scorer in self.columns.items():
            scorer.update(outputs[..., k : k + 1], ys[..., k : k + 1])

    def compute(self, fixed: Mapping[str, float | None] | None = None) -> dict[str, float]:
        """Return ``loss``, the score of every metric, and ``count``, the number of targets.

        Args:
            fixed: scores that are given, by metric; None for those to compute.

        Raises:
            UndefinedScore: a metric has no value for these targets.
        """
        scores = self.scorer.compute(fixed or {})
        loss = float(self.total / self.weight)
        return {"loss": loss, **scores, "count": int(self.count)}


@torch.no_grad()
def guess_scores(
    task: Task,
    split: str,
    size: int = 500,
    chunk: int = 200,
    batches: int = 0,
    evaluation: Evaluation | None = None,
) -> dict[str, float]:
    """Return the loss and the scores of guessing on a split: of the best constant answer.

    These are the class frequencies, the label frequencies or the means of the training part.

    Args:
        task: with its data loaded.
        split: train, validation or test.
        size, chunk, batches: those of an evaluation with which it is compared.
        evaluation: that it fills; by default a new one.

    Raises:
        UndefinedScore: a metric has no value for the targets of the split.
    """
    constant = task.target.constant(task.sequences("train", chunk).ys, task.spec.outputs)
    evaluation = evaluation or Evaluation(task)
    for batch in islice(task.iterate_targets(split, size, chunk), batches or None):
        answers = batch.ys.shape if task.target.name == "class" else batch.ys.shape[:-1]
        evaluation.update(constant.expand(*answers, -1), batch)
    fixed = task.guesses
    scores = evaluation.compute(fixed)
    return {name: scores[name] for name in ("loss", *fixed)}
