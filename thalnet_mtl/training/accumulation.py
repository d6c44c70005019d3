"""Gradient accumulation: the batch of a step is computed in several passes, to save memory."""

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from thalnet_mtl.models.sequences import map_state
from thalnet_mtl.tasks.base import Task
from thalnet_mtl.tasks.batch import Batch

Batches = Mapping[str, Batch]  # by task
States = Mapping[str, Any]  # by task
Forward = Callable[[Sequence[str], Batches, States], tuple[dict[str, Tensor], dict[str, Any]]]


class KnownLoss(torch.autograd.Function):
    """A loss that is known with its gradients; its graph is that of the parameters alone."""

    @staticmethod
    def forward(
        ctx: Any, loss: Tensor, gradients: Sequence[Tensor], *parameters: nn.Parameter
    ) -> Tensor:
        ctx.gradients = gradients
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *(grad * gradient for gradient in ctx.gradients)


def accumulate(
    forward: Forward,
    groups: Sequence[Sequence[str]],
    tasks: Mapping[str, Task],
    parameters: Mapping[str, Sequence[nn.Parameter]],
    batches: Batches,
    states: States,
    passes: int,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the losses of whole batches and the states at their end, computed part by part.

    A part counts in the loss of its task by ``Task.count``, so that the loss is that of a single
    pass, to rounding. Only the activations of one part of one group are in memory at a time. The
    losses remember their gradients w.r.t. all parameters, with which any loss weighting works.

    Args:
        forward: returns losses and final states for a group of tasks, their batches and states.
        groups: tasks that are computed together.
        tasks: by name.
        parameters: of every task, those that are trained.
        batches: at least ``passes`` sequences for every task.
        states: at the start of the sequences.
        passes: number of parts.
    """
    losses, finals = dict[str, Tensor](), dict[str, Any]()
    for group in groups:
        totals = {name: tasks[name].count(batches[name]).double() for name in group}
        sums: dict[str, list[Tensor]] = {}
        ends: list[dict[str, Any]] = []
        for k in range(passes):
            part_batches, part_states = {}, {}
            for name in group:
                size = len(batches[name].ys)
                span = slice(k * size // passes, (k + 1) * size // passes)
                part_batches[name] = batches[name].slice(span.start, span.stop)
                if name in states:
                    part_states[name] = map_state(itemgetter(span), states[name])
            part_losses, end = forward(group, part_batches, part_states)
            ends.append(end)
            for name, loss in part_losses.items():
                total = totals[name]
                share = tasks[name].count(part_batches[name]) / torch.where(total > 0, total, 1)
                value = loss * share.to(loss.dtype)
                row = torch.autograd.grad(
                    value,
                    parameters[name],
                    retain_graph=name != group[-1],  # that of the other tasks is the same
                    materialize_grads=True,
                )
                terms = [value.detach(), *row]
                old = sums.get(name)
                sums[name] = [a + b for a, b in zip(old, terms, strict=True)] if old else terms
        for name, (loss, *gradients) in sums.items():
            losses[name] = KnownLoss.apply(loss, gradients, *parameters[name])
            if name in states:
                finals[name] = tree_map(lambda *parts: torch.cat(parts), *(e[name] for e in ends))
    return losses, finals
