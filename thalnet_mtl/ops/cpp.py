"""The sequence on a CPU in C++: one autograd node; each thread computes a slice of the batch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from thalnet_mtl.ops.buffers import empty
from thalnet_mtl.ops.cell import Placement
from thalnet_mtl.ops.cpp_layout import RESULT_TENSORS, Call, KernelLayout
from thalnet_mtl.ops.cpp_library import kernel, unavailable
from thalnet_mtl.ops.derivatives import Tensors, by_autograd, hand_written, transforms_are_active
from thalnet_mtl.ops.layout import memoized, unsupported_design
from thalnet_mtl.ops.lengths import Lengths, check_range
from thalnet_mtl.ops.parameter_rows import active_rows
from thalnet_mtl.ops.reference import Outcome

TYPES = {torch.float32: "float", torch.float64: "double"}


def unsupported(placement: Placement, like: Tensor) -> str | None:
    """Return why this backend cannot run these modules, None if it can."""
    if like.device.type != "cpu":
        return f"it is for a CPU, not {like.device.type}"
    if like.dtype not in TYPES:
        return f"it computes in float32 or float64, not {str(like.dtype).removeprefix('torch.')}"
    if torch.is_autocast_enabled("cpu"):
        return "autocast is on"
    return unsupported_design(placement) or unavailable()


def sequence(
    placement: Placement,
    xs: Mapping[str, Float[Tensor, "batch time _"]],
    center: Float[Tensor, "batch center"],
    memory: Float[Tensor, "batch memory"],
    outputs: Sequence[slice],
    lengths: Lengths | None = None,
) -> Outcome:
    """Run the modules over all steps; see ``reference.sequence``."""
    layout = memoized(placement, KernelLayout)
    call = Call(
        placement,
        layout,
        outputs=tuple((slot.start, slot.stop - slot.start) for slot in outputs),
        time=next(iter(xs.values())).shape[1],
        save_activations=torch.is_grad_enabled(),
    )
    tensors = layout.operands(xs)
    rows = active_rows()
    if rows is not None and call.save_activations and not transforms_are_active():
        operands = layout.in_rows(center, tensors, rows)
        call, tensors = replace(call, rows=operands), operands.arguments(tensors)
    else:
        layout.check(center, tensors)
    ys, center, memory, *_ = CppSequence.apply(call, lengths, center, memory, *tensors)
    return ys, center, memory


def _again(ctx: Any, grads: Tensors) -> Tensors:
    """Return the gradients w.r.t. the arguments of ``CppSequence`` by autograd."""
    *operands, _, _ = ctx.saved_tensors
    function: Callable[..., Tensors] = ctx.call.compute
    if ctx.call.replicas:
        function = torch.vmap(function, tuple(None if x is None else 0 for x in operands))
    return None, *by_autograd(function, operands, ctx.needs_input_grad[1:], grads[:3])


class CppSequence(torch.autograd.Function):
    """The sequence and its gradients, computed by the kernel."""

    @staticmethod
    def forward(call: Call, *operands: Tensor | None) -> tuple[Tensor, ...]:
        """Return outputs, last center and last memory; all centers and activations to save.

        Operands are the lengths or None, center and memory, then those of the layout.
        """
        _, center, memory, *_ = operands
        assert center is not None and memory is not None
        lead, batch, time = center.shape[:-2], center.shape[-2], call.time
        saved = time if call.save_activations else min(time, 2)
        centers = center.new_empty(*lead, time, batch, call.layout.center)
        end, last = (
            torch.empty_like(part, memory_format=torch.contiguous_format)
            for part in (center, memory)
        )
        activations = empty([*lead, saved, batch, call.layout.columns], center)
        run = getattr(kernel(), f"forward_{TYPES[center.dtype]}")
        ys = center.new_empty(*lead, batch, time, sum(width for _, width in call.outputs))
        results = [centers, end, last, ys, activations, None, None, None]
        contiguous = _contiguous(operands)
        addresses = call.addresses(contiguous, results)
        header = call.header(batch, saved)
        run(header.data_ptr(), addresses.ctypes.data)
        return ys, end, last, centers, activations

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.call, *operands = inputs
        _, _, _, centers, activations = output
        ctx.save_for_backward(*operands, centers, activations)
        ctx.mark_non_differentiable(centers, activations)
        ctx.set_materialize_grads(False)

    @staticmethod
    @hand_written(_again)
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        *operands, centers, activations = ctx.saved_tensors
        replicas = ctx.call.replicas
        grad_outputs, *grad_state = grads[:3]
        if grad_outputs is not None and (replicas or grad_outputs.stride(-1) != 1):
            grad_outputs = grad_outputs.contiguous()
        row, step = (0, 0) if grad_outputs is None else grad_outputs.stride()[-3:-1]
        if replicas and grad_outputs is not None:  # the stride of an axis of size 1 is arbitrary
            step = grad_outputs.shape[-1]
            row = step * ctx.call.time
        operands, grad_state = _contiguous(operands), _contiguous(grad_state)
        grad_operands = ctx.call.empty_gradients(operands, ctx.needs_input_grad[1:])
        if operands[0] is not None:  # the kernel writes no gradient past the end of a sequence
            for k in ctx.call.inputs:
                if (grad := grad_operands[k]) is not None:
                    grad.zero_()
        run = getattr(kernel(), f"backward_{TYPES[centers.dtype]}")
        header = ctx.call.header(centers.shape[-2], ctx.call.time, row, step)
        results = [centers, *[None] * 3, activations, grad_outputs, *grad_state]
        addresses = ctx.call.addresses(operands, results)
        gradients = ctx.call.addresses(grad_operands, [None] * RESULT_TENSORS)
        run(header.data_ptr(), addresses.ctypes.data, gradients.ctypes.data)
        return None, *grad_operands

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], call: Call, *operands: Tensor | None
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        """Run independent networks in one call, for ``torch.vmap``."""
        if call.replicas:
            raise NotImplementedError("nested vmap over networks")
        stacked = [
            tensor
            if tensor is None
            else tensor.movedim(dim, 0)
            if dim is not None
            else tensor.expand(info.batch_size, *tensor.shape)
            for tensor, dim in zip(operands, in_dims[1:], strict=True)
        ]
        if (lengths := stacked[0]) is not None:  # no check before could see these numbers
            check_range(lengths, call.time)
        outcome = CppSequence.apply(replace(call, replicas=info.batch_size), *stacked)
        return outcome, (0,) * len(outcome)


def _contiguous(tensors: Tensors) -> list[Tensor | None]:
    return [None if tensor is None else tensor.contiguous() for tensor in tensors]
