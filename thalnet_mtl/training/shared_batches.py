"""Losses and gradients of a batch whose rows are shared by the ranks of a run.

With the mean loss L_r of rank r over targets that weigh w_r (``Task.count``), the loss of the batch
is Σ_r w_r L_r / Σ_r w_r. Every rank knows the whole batch, and so the sum of the weights.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from thalnet_mtl.ops.batch_rows import BatchRows
from thalnet_mtl.tasks.base import Task
from thalnet_mtl.tasks.batch import Batch
from thalnet_mtl.training.accumulation import KnownLoss
from thalnet_mtl.training.flat_optimizer import FlatOptimizer
from thalnet_mtl.training.ranks import Ranks
from thalnet_mtl.training.weighting import LossWeighting, TaskParameters


class SharedLoss(torch.autograd.Function):
    """The loss of a whole batch, with the gradient of the part that this rank has computed."""

    @staticmethod
    def forward(ctx: Any, part: Tensor, whole: Tensor) -> Tensor:
        return whole.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None


def own_parts(
    ranks: Ranks,
    losses: Mapping[str, Tensor],
    tasks: Mapping[str, Task],
    batches: Mapping[str, Batch],
    rows: Mapping[str, BatchRows],
) -> dict[str, Tensor]:
    """Return what this rank adds to the loss of each batch: w_r L_r / Σ_r w_r.

    Args:
        ranks: of the run.
        losses: the mean losses L_r of the rows that are computed here, by task.
        tasks: by name.
        batches: with all rows.
        rows: that are computed here.
    """
    parts = {}
    for name, loss in losses.items():
        task, batch, total = tasks[name], batches[name], tasks[name].count(batches[name])
        counted = ranks.share(rows[name].total)
        weight = task.count(batch.map(rows[name].of)) * (counted.start < counted.stop)
        parts[name] = loss * (weight / torch.where(total > 0, total, 1)).to(loss.dtype)
    return parts


def shared_backward(
    ranks: Ranks,
    weighting: LossWeighting,
    optimizer: FlatOptimizer,
    parts: Mapping[str, Tensor],
    task_parameters: TaskParameters,
) -> dict[str, Tensor]:
    """Fill the gradients of all parameters with those of whole batches, on every rank the same.

    Returns:
        the losses of whole batches by task.
    """
    losses = torch.stack([part.detach() for part in parts.values()])
    kind = type(weighting)
    one_gradient = kind.backward is LossWeighting.backward
    if one_gradient and kind.terms is LossWeighting.terms:  # the losses themselves are not needed
        weighting.backward(parts, task_parameters)
        ranks.sum([losses, *optimizer.used_gradients()])
        return dict(zip(parts, losses, strict=True))
    ranks.sum([losses])
    whole: dict[str, Tensor] = {
        name: SharedLoss.apply(part, loss)
        for (name, part), loss in zip(parts.items(), losses, strict=True)
    }
    if one_gradient:
        weighting.backward(whole, task_parameters)
        # Gradients of the weighting follow from whole losses: every rank has them already.
        ranks.sum(optimizer.used_gradients(without=set(weighting.parameters())))
    else:
        weighting.backward(with_gradients(ranks, whole, task_parameters), task_parameters)
    return whole


def with_gradients(
    ranks: Ranks, losses: Mapping[str, Tensor], task_parameters: TaskParameters
) -> dict[str, Tensor]:
    """Return losses that know their gradients, summed over all ranks, w.r.t. all parameters.

    Any loss weighting then computes the same on every rank, whatever it does with the gradients.
    """
    known, last = dict(losses), list(losses)[-1]
    for name, loss in losses.items():
        parameters = [p for p in task_parameters(name).values() if p.requires_grad]
        if not (parameters and loss.requires_grad):
            continue
        gradients = torch.autograd.grad(
            loss,
            parameters,
            retain_graph=name != last,  # tasks with the same inputs share a pass of the body
            materialize_grads=True,
        )
        ranks.sum(gradients)
        known[name] = KnownLoss.apply(loss.detach(), gradients, *parameters)
    return known
