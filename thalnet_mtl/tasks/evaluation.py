"""Evaluation: the loss and the scores of outputs over a split, and those of guessing."""

from collections.abc import Mapping
from itertools import islice

import torch
from torch import Tensor

from thalnet_mtl.tasks.base import Task
from thalnet_mtl.tasks.batch import Batch


class Evaluation:
    """The loss and the scores of outputs over the batches of a split."""

    def __init__(self, task: Task):
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
        outputs, ys = self.task.floats(outputs), batch.ys
        self.scorer.update(self.task.in_units(outputs), self.task.in_units(ys))

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
    task: Task, split: str, size: int = 500, chunk: int = 200, batches: int = 0
) -> dict[str, float]:
    """Return the loss and the scores of guessing on a split: of the best constant answer.

    These are the class frequencies, the label frequencies or the means of the training part.

    Args:
        task: with its data loaded.
        split: train, validation or test.
        size, chunk, batches: those of an evaluation with which it is compared.

    Raises:
        UndefinedScore: a metric has no value for the targets of the split.
    """
    constant = task.target.constant(task.sequences("train", chunk).ys, task.spec.outputs)
    evaluation = Evaluation(task)
    for batch in islice(task.iterate_targets(split, size, chunk), batches or None):
        answers = batch.ys.shape if task.target.name == "class" else batch.ys.shape[:-1]
        evaluation.update(constant.expand(*answers, -1), batch)
    fixed = task.guesses
    scores = evaluation.compute(fixed)
    return {name: scores[name] for name in ("loss", *fixed)}
