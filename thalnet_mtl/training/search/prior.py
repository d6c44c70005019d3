"""The prior of the search: how well a linear head on an earlier path answers a new task."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from thalnet_mtl.models.modes import evaluation_mode
from thalnet_mtl.models.network import Network
from thalnet_mtl.ops.lengths import last_steps
from thalnet_mtl.tasks.base import Task
from thalnet_mtl.tasks.batch import Batch

SAMPLES = 1_000  # at most so many sequences of the training split, and of the validation split
ITERATIONS = 100
DECAY = 1e-3  # of the weights, in the loss


class Fit(NamedTuple):
    """A head that was fitted to the features of an earlier path, and its validation loss."""

    head: nn.Linear
    loss: float


def fit_heads(network: Network, task: Task, heads: list[str], chunk: int) -> dict[str, Fit]:
    """Return by earlier task a linear head on its features that answers a new task.

    The features do not change, so that they are computed once; the fit is then a convex problem for
    the losses of this package. It is solved by L-BFGS from zero.

    Args:
        network: with the earlier tasks.
        task: the new task, with its data loaded.
        heads: the earlier tasks, of the same input shape.
        chunk: of a text, tokens per chunk.
    """
    training, validation = (first_batch(task, split, chunk) for split in ("train", "validation"))
    fits = {}
    with evaluation_mode(network):
        for name in heads:
            points = [_read(network, name, task, batch) for batch in (training, validation)]
            fits[name] = _fit(task, training, validation, *points)
    return fits


def first_batch(task: Task, split: str, chunk: int) -> Batch:
    """Return up to ``SAMPLES`` sequences of a split, the same each time."""
    if split == "train":
        size = min(SAMPLES, task.batches_per_epoch("train", 1, chunk))
        return task.training_batch(0, size, chunk, seed=0)
    return next(task.iterate(split, SAMPLES, chunk))


@torch.no_grad()
def _read(network: Network, name: str, task: Task, batch: Batch) -> Tensor:
    """Return what a head on the path of an earlier task reads: at the last step, or at every."""
    features, _ = network.features(name, batch.xs, None, batch.lengths)
    if task.spec.every_step:
        return features
    ends_together = network.adapter(name).spec.extra_steps
    return last_steps(features, None if ends_together else batch.lengths)


def _fit(
    task: Task, training: Batch, validation: Batch, points: Tensor, validation_points: Tensor
) -> Fit:
    head = nn.Linear(points.shape[-1], task.spec.outputs).to(points)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    optimizer = torch.optim.LBFGS(
        head.parameters(), max_iter=ITERATIONS, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = task.loss(head(points), training) + DECAY * head.weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    with torch.no_grad():
        return Fit(head, float(task.loss(head(validation_points), validation)))
