"""The prior of the search: how well a linear head on an earlier path answers a new task.

That alone does not say that the path knows something about the task: features of any trained path
answer a little. They do so as well if the inputs are in another order, which leaves nothing of what
the path knows about them. So a path is compared with itself in some such orders.
"""

from collections.abc import Sequence
from operator import attrgetter
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thalnet_mtl.models.modes import evaluation_mode
from thalnet_mtl.models.network import Network
from thalnet_mtl.ops.lengths import last_steps
from thalnet_mtl.tasks.base import Task
from thalnet_mtl.tasks.batch import Batch

SAMPLES = 1_000  # at most so many sequences of the training split, and of the validation split
MORE_SAMPLES = 5_000  # the same for the path that was chosen
ITERATIONS = 100
DECAYS = (1e-3, 1e-2, 1e-1, 1.0)  # of the weights, in the loss; validation chooses
FEWEST_COLUMNS = 4  # of inputs that have enough orders


class Fit(NamedTuple):
    """A head that was fitted to the features of an earlier path, its decay and validation loss."""

    head: nn.Linear
    decay: float
    loss: float


def fit_heads(
    network: Network,
    task: Task,
    heads: list[str],
    chunk: int,
    samples: int = SAMPLES,
    decays: Sequence[float] = DECAYS,
    order: int = 0,
) -> dict[str, Fit]:
    """Return by earlier task a linear head on its features that answers a new task.

    The features do not change, so that they are computed once; the fit is then a convex problem for
    the losses of this package. It is solved by L-BFGS from zero.

    Args:
        network: with the earlier tasks.
        task: the new task, with its data loaded.
        heads: the earlier tasks whose path can read its inputs; see ``reusable``.
        chunk: of a text, tokens per chunk.
        samples: at most so many sequences of the training split, and of the validation split.
        decays: of the weights, of which validation chooses one.
        order: number of the order of the inputs, see ``reordered``; 0: as they are.
    """
    training, validation = (
        first_batch(task, split, chunk, samples) for split in ("train", "validation")
    )
    if order:
        training, validation = (reordered(task, each, order) for each in (training, validation))
    fits = {}
    with evaluation_mode(network):
        for name in heads:
            points, others = (_read(network, name, task, each) for each in (training, validation))
            fits[name] = _fit(task, training, validation, points, others, decays)
    return fits


def has_orders(task: Task) -> bool:
    """Return whether the inputs of a task have enough orders; see ``reordered``."""
    return not task.spec.input_names and task.spec.input_width() >= FEWEST_COLUMNS


def reordered(task: Task, batch: Batch, number: int) -> Batch:
    """Return sequences with their inputs in another order, the same for all of them.

    That are all numbers of a sequence, if all sequences are equally long and have one target. Else
    it is the columns of a step; of tokens, what they stand for.

    Args:
        task: whose sequences they are.
        batch: the sequences.
        number: of the order, which is drawn by it.
    """
    xs, generator = batch.xs, torch.Generator().manual_seed(number)
    whole = not (task.spec.tokens or task.spec.every_step or batch.lengths is not None)
    size = xs[0].numel() if whole else task.spec.input_width()
    order = torch.randperm(size, generator=generator).to(xs.device)
    if task.spec.tokens:
        return batch._replace(xs=order[xs])
    if whole:
        return batch._replace(xs=xs.flatten(1)[:, order].view_as(xs))
    return batch._replace(xs=xs[..., order])


def first_batch(task: Task, split: str, chunk: int, samples: int = SAMPLES) -> Batch:
    """Return up to so many sequences of a split, the same each time."""
    size = min(samples, task.batches_per_epoch(split, 1, chunk))
    if split == "train":
        return task.training_batch(0, size, chunk, seed=0)
    return next(task.iterate(split, size, chunk))


@torch.no_grad()
def _read(network: Network, name: str, task: Task, batch: Batch) -> Tensor:
    """Return what a head on the path of an earlier task reads: at the last step, or at every."""
    shape, xs = network.adapter(name).task, batch.xs
    if isinstance(xs, Tensor) and not shape.tokens and xs.shape[-1] != shape.input_width():
        xs = F.interpolate(xs, shape.input_width(), mode="linear")
    features, _ = network.features(name, xs, None, batch.lengths)
    if task.spec.every_step:
        return features
    ends_together = network.adapter(name).spec.extra_steps
    return last_steps(features, None if ends_together else batch.lengths)


def _fit(
    task: Task,
    training: Batch,
    validation: Batch,
    points: Tensor,
    validation_points: Tensor,
    decays: Sequence[float],
) -> Fit:
    """Return the head that is best on validation, of those fitted with several decays."""
    fits = []
    for decay in decays:
        head = _fit_head(task, training, points, decay)
        with torch.no_grad():
            fits.append(Fit(head, decay, float(task.loss(head(validation_points), validation))))
    return min(fits, key=attrgetter("loss"))


def _fit_head(task: Task, training: Batch, points: Tensor, decay: float) -> nn.Linear:
    head = nn.Linear(points.shape[-1], task.spec.outputs).to(points)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    optimizer = torch.optim.LBFGS(
        head.parameters(), max_iter=ITERATIONS, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = task.loss(head(points), training) + decay * head.weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return head
