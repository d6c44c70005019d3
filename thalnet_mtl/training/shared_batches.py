"""Losses and gradients of a batch whose rows are shared by the ranks of a run.

With the mean loss L_r of rank r over targets that weigh w_r (``Task.count``), the loss of the batch
is Σ_r w_r L_r / Σ_r w_r. Every rank knows the whole batch, and so the sum of the weights.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from thalnet_mtl.ops.batch_rows import BatchRows
from thalnet_mtl.tasks.base import Task
from thalnet_mtl.tasks.batch import Batch
from thalnet_mtl.training.accumulation import KnownLoss
from thalnet_mtl.training.flat_optimizer import FlatOptimizer
from thalnet_mtl.training.ranks import Ranks
from thalnet_mtl.training.weighting import LossWeighting


class SharedLoss(torch.autograd.Function):
    """The loss of a whole batch, with the gradient of the part that this rank has computed."""

    @staticmethod
    def forward(ctx: Any, part: Tensor, whole: Tensor) -> Tensor:
        return whole.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None


def share_losses(
    ranks: Ranks,
    losses: Mapping[str, Tensor],
    tasks: Mapping[str, Task],
    batches: Mapping[str, Batch],
    rows: Mapping[str, BatchRows],
) -> dict[str, Tensor]:
    """Return the losses of whole batches by task, whose gradients are those of this rank.

    Args:
        ranks: of the run.
        losses: mean losses of the rows that are computed here.
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
    whole = torch.stack([part.detach() for part in parts.values()])
    ranks.sum([whole])
    return {
        name: SharedLoss.apply(part, value)
        for (name, part), value in zip(parts.items(), whole, strict=True)
    }


def sum_task_gradients(
    ranks: Ranks,
    losses: Mapping[str, Tensor],
    task_parameters: Callable[[str], Mapping[str, nn.Parameter]],
) -> dict[str, Tensor]:
    """Return losses that know their gradients, summed over all ranks, w.r.t. all parameters.

    Any loss weighting then computes the same on every rank, whatever it does with the gradients.
    """
    known, last = dict[str, Tensor](), list(losses)[-1]
    for name, loss in losses.items():
        parameters = [p for p in task_parameters(name).values() if p.requires_grad]
        known[name] = loss
        if parameters and loss.requires_grad:
            gradients = torch.autograd.grad(
                loss,
                parameters,
                retain_graph=name != last,  # tasks with the same inputs share a pass of the body
                materialize_grads=True,
            )
            summed = summed_over(ranks, gradients)
            known[name] = KnownLoss.apply(loss.detach(), summed, *parameters)
    return known


def summed_over(ranks: Ranks, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    """Return the sums of tensors over all ranks, added up in one collective."""
    if not ranks.several:
        return tensors
    row = torch.cat([tensor.flatten() for tensor in tensors])
    ranks.sum([row])
    parts = row.split([tensor.numel() for tensor in tensors])
    return [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)]


def sum_gradients(ranks: Ranks, optimizer: FlatOptimizer, weighting: LossWeighting) -> None:
    """Sum the gradients of the network over all ranks.

    Those of the loss weighting follow from the losses of whole batches, the same on every rank.
    """
    alike = set(weighting.parameters())
    ranks.sum(
        row.grad
        for row, _, parts in optimizer.rows
        if row.grad is not None and parts[0].parameter not in alike
    )


def has_one_gradient(weighting: LossWeighting) -> bool:
    """Return whether a weighting takes the gradient of one total of the losses."""
    return type(weighting).backward is LossWeighting.backward
