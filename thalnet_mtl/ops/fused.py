"""The sequence as one autograd node in plain PyTorch, for every device.

Autograd does not see the loop over time. The forward pass saves activations. The backward pass runs
through the steps once, for the gradients w.r.t. pre-activations, and then computes all gradients
w.r.t. weights as large products over time and batch. Steps past the end of a sequence are computed
as well: nothing reads them, so that all their gradients are zero.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from thalnet_mtl.ops.cell import Placement
from thalnet_mtl.ops.group_loop import GroupLoop
from thalnet_mtl.ops.layout import memoized, unsupported_design
from thalnet_mtl.ops.lengths import Lengths, last_steps, zero_past_end
from thalnet_mtl.ops.packed_weights import (
    CellGroup,
    group_cells,
    input_projections,
    pack_weights,
    weight_gradient,
)
from thalnet_mtl.ops.reference import Outcome


def unsupported(placement: Placement, like: Tensor) -> str | None:
    """Return why this backend cannot run these modules, None if it can."""
    for cell in placement.cells:
        if cell.reading.dynamic:
            return f"module '{cell.name}' has a dynamic reading"
    return unsupported_design(placement)


def sequence(
    placement: Placement,
    xs: Mapping[str, Float[Tensor, "batch time _"]],
    center: Float[Tensor, "batch center"],
    memory: Float[Tensor, "batch memory"],
    outputs: Sequence[slice],
    lengths: Lengths | None = None,
) -> Outcome:
    """Run the modules over all steps; see ``reference.sequence``."""
    xs = {name: zero_past_end(x, lengths) for name, x in xs.items()}
    groups, device = memoized(placement, group_cells), center.device.type
    dtype = center.dtype
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
    time = next(iter(xs.values())).shape[1]
    with torch.autocast(device, enabled=False):
        read, weights = pack_weights(placement)
        projections = input_projections(placement, xs)
        centers, last = FusedSequence.apply(
            groups, time, dtype, lengths, center, memory, read, *projections, *weights
        )
    ys = torch.cat([centers[..., slot] for slot in outputs], dim=-1)
    # A copy: a caller may reset the center in place, and the backward pass needs ``centers``.
    return zero_past_end(ys, lengths), last_steps(centers, lengths).clone(), last


class FusedSequence(torch.autograd.Function):
    """The sequence and its gradients; only products are computed in ``dtype``."""

    @staticmethod
    def forward(
        ctx: Any,
        groups: Sequence[CellGroup],
        time: int,
        dtype: torch.dtype,
        lengths: Lengths | None,
        center: Tensor,
        memory: Tensor,
        read: Tensor,
        *tensors: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        batch = len(center)
        centers = center.new_empty(time, batch, center.shape[1])
        columns = center.new_zeros(time, batch, read.shape[1])
        read = read.to(dtype)
        loops = list(_group_loops(groups, columns, dtype, tensors))
        for loop in loops:
            loop.load_states(memory)
        previous = center
        for t in range(time):
            _add_product(columns[t], previous, read)
            for loop in loops:
                loop.step(t, centers[t])
            previous = centers[t]
        last = torch.empty_like(memory)
        for loop in loops:
            loop.store_states(last, lengths)
        ctx.loops, ctx.columns, ctx.lengths = loops, columns, lengths
        ctx.save_for_backward(center, memory, read, centers)
        ctx.set_materialize_grads(False)
        return centers.transpose(0, 1), last

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_centers: Tensor | None, grad_last: Tensor | None
    ) -> tuple[Any, ...]:
        center, memory, read, centers = ctx.saved_tensors
        time = len(centers)
        grad_columns = torch.empty_like(ctx.columns)
        grad_memory = torch.zeros_like(memory) if grad_last is None else grad_last.clone()
        lengths = None if grad_last is None else ctx.lengths
        for loop in ctx.loops:
            loop.start_backward(grad_columns, grad_memory, lengths)
        grad_center = torch.zeros_like(center)
        for t in reversed(range(time)):
            if grad_centers is not None:
                grad_center = grad_center + grad_centers[:, t]
            for loop in ctx.loops:
                loop.backward_step(t, grad_center)
            grad_center = (grad_columns[t].to(read.dtype) @ read.mT).to(center.dtype)
        previous = torch.cat([center[None], centers[:-1]])
        grad_read = weight_gradient(previous[None], grad_columns[None], read.dtype)[0]
        for loop in ctx.loops:
            loop.store_state_gradients(grad_memory)
        projections = [tensor for loop in ctx.loops for tensor in loop.projection_gradients()]
        weights = [tensor for loop in ctx.loops for tensor in loop.weight_gradients()]
        return None, None, None, None, grad_center, grad_memory, grad_read, *projections, *weights


def _add_product(target: Tensor, x: Tensor, weight: Tensor) -> None:
    """Add x W to ``target`` in place, with the product in the type of W."""
    if weight.dtype == target.dtype:
        target.addmm_(x, weight)
    else:
        target += x.to(weight.dtype) @ weight


def _group_loops(
    groups: Sequence[CellGroup],
    columns: Tensor,
    dtype: torch.dtype,
    tensors: Sequence[Tensor | None],
) -> Iterator[GroupLoop]:
    """Yield a loop for every group; ``tensors`` are all projections, then all packed weights."""
    remaining: Iterator[Any] = iter(tensors)
    projections = [[next(remaining) for _ in group.plans] for group in groups]
    for group, projected in zip(groups, projections, strict=True):
        weights = [[next(remaining) for _ in range(n)] for n in group.packed_counts]
        yield GroupLoop(group, columns, dtype, projected, weights)
