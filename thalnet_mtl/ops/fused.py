"""The sequence as one autograd node in plain PyTorch, for every device.

Autograd does not see the loop over time. The forward pass saves activations. The backward pass runs
through the steps once, for the gradients w.r.t. pre-activations, and then computes all gradients
w.r.t. weights as large products over time and batch. Steps past the end of a sequence are not
computed; see ``Packing``.
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
from thalnet_mtl.ops.lengths import Lengths, Packing
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
    packing = Packing(next(iter(xs.values())), lengths)
    groups, device = memoized(placement, group_cells), center.device.type
    dtype = center.dtype
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
    with torch.autocast(device, enabled=False):
        read, weights = pack_weights(placement)
        projections = input_projections(placement, {k: packing.pack(x) for k, x in xs.items()})
        state = packing.sort(center), packing.sort(memory)
        centers, *last = FusedSequence.apply(
            groups, packing, dtype, *state, read, *projections, *weights
        )
    ys = torch.cat([packing.pad(centers[:, slot]) for slot in outputs], dim=-1)
    return ys, packing.unsort(last[0]), packing.unsort(last[1])


class FusedSequence(torch.autograd.Function):
    """The sequence and its gradients; only products are computed in ``dtype``."""

    @staticmethod
    def forward(
        ctx: Any,
        groups: Sequence[CellGroup],
        packing: Packing,
        dtype: torch.dtype,
        center: Tensor,
        memory: Tensor,
        read: Tensor,
        *tensors: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return all centers, packed, and the last ones and the last memories, sorted."""
        rows = sum(packing.counts)
        centers = center.new_empty(rows, center.shape[1])
        columns = center.new_zeros(rows, read.shape[1])
        read = read.to(dtype)
        loops = list(_group_loops(groups, packing, columns, dtype, tensors))
        for loop in loops:
            loop.load_states(memory)
        steps, previous = packing.split(centers), center
        for t, now in enumerate(packing.split(columns)):
            if len(now) < len(previous):
                previous = previous[: len(now)]
                for loop in loops:
                    loop.drop_ended(len(now))
            _add_product(now, previous, read)
            for loop in loops:
                loop.step(t, steps[t])
            previous = steps[t]
        last = torch.empty_like(memory)
        for loop in loops:
            loop.store_states(last)
        ctx.packing, ctx.loops, ctx.columns = packing, loops, columns
        ctx.save_for_backward(center, memory, read, centers)
        ctx.set_materialize_grads(False)
        return centers, packing.last(steps), last

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_centers: Tensor | None, grad_end: Tensor | None, grad_last: Tensor | None
    ) -> tuple[Any, ...]:
        if grad_centers is None and grad_end is None and grad_last is None:
            return (None,) * len(ctx.needs_input_grad)
        center, memory, read, centers = ctx.saved_tensors
        packing = ctx.packing
        grad_columns = torch.empty_like(ctx.columns)
        grad_memory = torch.zeros_like(memory) if grad_last is None else grad_last.clone()
        for loop in ctx.loops:
            loop.start_backward(grad_columns, grad_memory)
        grad_end = torch.zeros_like(center) if grad_end is None else grad_end
        grad_center, steps = grad_end, packing.split(grad_columns)
        grad_steps = [None] * len(steps) if grad_centers is None else packing.split(grad_centers)
        for t in reversed(range(len(steps))):
            grad_center = packing.with_ending(t, grad_center, grad_end)
            if grad_steps[t] is not None:
                grad_center = grad_center + grad_steps[t]
            for loop in ctx.loops:
                loop.backward_step(t, grad_center)
            grad_center = (steps[t].to(read.dtype) @ read.mT).to(center.dtype)
        previous = torch.cat(packing.previous(center, packing.split(centers)))
        grad_read = weight_gradient(previous[None], grad_columns[None], read.dtype)[0]
        for loop in ctx.loops:
            loop.store_state_gradients(grad_memory)
        projections = [tensor for loop in ctx.loops for tensor in loop.projection_gradients()]
        weights = [tensor for loop in ctx.loops for tensor in loop.weight_gradients()]
        return None, None, None, grad_center, grad_memory, grad_read, *projections, *weights


def _add_product(target: Tensor, x: Tensor, weight: Tensor) -> None:
    """Add x W to ``target`` in place, with the product in the type of W."""
    if weight.dtype == target.dtype:
        target.addmm_(x, weight)
    else:
        target += x.to(weight.dtype) @ weight


def _group_loops(
    groups: Sequence[CellGroup],
    packing: Packing,
    columns: Tensor,
    dtype: torch.dtype,
    tensors: Sequence[Tensor | None],
) -> Iterator[GroupLoop]:
    """Yield a loop for every group; ``tensors`` are all projections, then all packed weights."""
    remaining: Iterator[Any] = iter(tensors)
    projections = [[next(remaining) for _ in group.plans] for group in groups]
    for group, projected in zip(groups, projections, strict=True):
        weights = [[next(remaining) for _ in range(n)] for n in group.packed_counts]
        yield GroupLoop(group, packing, columns, dtype, projected, weights)
