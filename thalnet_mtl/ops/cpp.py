"""The sequence on a CPU in C++: one autograd node; each thread computes a slice of the batch."""

import ctypes
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from thalnet_mtl.ops.buffers import empty
from thalnet_mtl.ops.cell import Placement
from thalnet_mtl.ops.cpp_library import kernel, unavailable
from thalnet_mtl.ops.layout import cell_plans, memoized, unsupported_design
from thalnet_mtl.ops.lengths import Lengths, zero_past_end
from thalnet_mtl.ops.reference import Outcome, matrix

TYPES = {torch.float32: "float", torch.float64: "double"}
# For every kernel of a reading its number in net.h, and the names of its tensors, "" for none.
READINGS: dict[str | None, tuple[int, tuple[str, ...]]] = {
    "linear": (0, ("weight",)),
    "weight_norm": (1, ("weight", "scale")),
    "weight_norm_rows": (2, ("weight", "scale")),
    "fast_softmax": (3, ("weight", "bias", "", "", "gates")),
    "fast_gaussian": (
        4,
        ("mean.weight", "mean.bias", "variance.weight", "variance.bias", "gates", "positions"),
    ),
    None: (0, ()),  # a matrix that PyTorch computes, used like the weight of ``linear``
}
READING_TENSORS = 6  # tensors that the kernel expects for a reading, absent ones included
RESULT_TENSORS = 6  # tensors after all operands: centers, memory, activations, three gradients
MAX_HEADERS = 64  # cached headers, one for each shape of a call

Tensors = Sequence[Tensor | None]
# Where an operand comes from: the name of a task input, an attribute of a module, or a function.
Source = str | tuple[nn.Module, str] | Callable[[], Tensor | None] | None


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
    xs = {name: zero_past_end(x, lengths) for name, x in xs.items()}
    layout = memoized(placement, KernelLayout)
    call = Call(
        layout,
        outputs=tuple((slot.start, slot.stop - slot.start) for slot in outputs),
        time=next(iter(xs.values())).shape[1],
        save_activations=torch.is_grad_enabled(),
    )
    operands = [center, memory, *layout.operands(xs)]
    for tensor in operands:  # the kernel reads raw memory and could not tell
        if tensor is not None and (tensor.dtype, tensor.device) != (center.dtype, center.device):
            raise ValueError(
                "all tensors must have the same type and device, but one is "
                f"{tensor.dtype} on {tensor.device} and the center {center.dtype} on "
                f"{center.device}."
            )
    ys, center, memory, *_ = CppSequence.apply(call, lengths, *operands)
    return ys, center, memory


class KernelLayout:
    """The sizes of a placement as the kernel reads them, and the sources of its operands.

    Attributes:
        numbers: integers that describe all modules; ``Net::describe`` in net.h parses them.
        sources: for every operand of a module where its tensor comes from, None if absent.
        columns: width of a row of activations.
    """

    def __init__(self, placement: Placement):
        self.center, self.memory = placement.center_width, placement.memory_width
        self.numbers = [len(placement.cells)]
        self.headers: dict[Any, Tensor] = {}
        self.sources: list[Source] = []
        for cell, plan in zip(placement.cells, cell_plans(placement), strict=True):
            kind, names = READINGS[plan.kernel]
            self.numbers += [plan.slot.start, plan.slot.stop - plan.slot.start, plan.context]
            self.numbers += [plan.inputs, plan.composed, kind]
            self.numbers += [len(plan.positions), len(plan.layers)]
            for shape in plan.layers:
                self.numbers += [shape.gru, shape.width]
            self.numbers += plan.positions
            self.sources.append(cell.name if cell.inputs else None)
            reading = [_source(cell.reading, name) for name in names] or [partial(matrix, cell)]
            self.sources += [*reading, *[None] * (READING_TENSORS - len(reading))]
            for layer in cell.design.stack:
                if isinstance(layer, nn.GRUCell):
                    names = "weight_ih", "weight_hh", "bias_ih", "bias_hh"
                else:
                    names = "weight", "", "bias", ""
                self.sources += [_source(layer, name) for name in names]
        # Called without tensors the kernel only returns the width of a row of activations.
        absent: list[Tensor | None] = [None] * (3 + len(self.sources) + RESULT_TENSORS)
        query = Call(self, (), time=1, save_activations=False)
        self.columns: int = kernel().forward_float(query.header(1, 1).data_ptr(), _pointers(absent))

    def operands(self, xs: Mapping[str, Tensor]) -> list[Tensor | None]:
        """Return the tensors that the kernel reads, module by module, None for absent ones."""
        operands: list[Tensor | None] = []
        for source in self.sources:
            if source is None:
                operands.append(None)
            elif isinstance(source, tuple):
                owner, name = source
                tensor = owner._parameters.get(name)  # ten times as fast as getattr
                operands.append(getattr(owner, name) if tensor is None else tensor)
            else:
                operands.append(xs[source] if isinstance(source, str) else source())
        return operands


@dataclass(frozen=True)
class Call:
    """The shape of one call of the kernel.

    Args:
        outputs: slots of the center to return, each with its start and width.
        save_activations: whether to keep the activations of all steps, for a backward pass.
        replicas: number of independent networks of the same layout; if not 0, all tensors have a
            leading axis of this size.
    """

    layout: KernelLayout
    outputs: tuple[tuple[int, int], ...]
    time: int
    save_activations: bool
    replicas: int = 0

    def header(self, batch: int, saved: int, row: int = 0, step: int = 0) -> Tensor:
        """Return all integers that describe the call.

        ``saved`` is the number of steps whose activations are kept; ``row`` and ``step`` are
        strides of the gradients w.r.t. the outputs.
        """
        layout, threads = self.layout, torch.get_num_threads()
        slots = tuple(chain.from_iterable(self.outputs))
        sizes = self.time, batch, layout.center, layout.memory, saved, row, step
        key = (self.replicas or 1, threads, *sizes, len(self.outputs), *slots)
        header = layout.headers.get(key)
        if header is None:
            if len(layout.headers) > MAX_HEADERS:
                layout.headers.clear()
            header = torch.tensor([*key, *layout.numbers], device="cpu")
            layout.headers[key] = header
        return header


class CppSequence(torch.autograd.Function):
    """The sequence and its gradients, computed by the kernel."""

    @staticmethod
    def forward(call: Call, *operands: Tensor | None) -> tuple[Tensor, ...]:
        """Return outputs, last center and last memory; all centers and activations to save.

        Operands are the lengths or None, center and memory, then those of the layout.
        """
        lengths, center, memory, *_ = operands
        assert center is not None and memory is not None
        lead, batch, time = center.shape[:-2], center.shape[-2], call.time
        saved = time if call.save_activations else min(time, 2)
        centers = center.new_empty(*lead, time, batch, call.layout.center)
        last = torch.empty_like(memory, memory_format=torch.contiguous_format)
        activations = empty([*lead, saved, batch, call.layout.columns], center)
        run = getattr(kernel(), f"forward_{TYPES[center.dtype]}")
        tensors = [*_contiguous(operands), centers, last, activations, None, None, None]
        header = call.header(batch, saved)
        run(header.data_ptr(), _pointers(tensors))
        slots = [centers.narrow(-1, *slot) for slot in call.outputs]
        ys = torch.cat([slot.transpose(-3, -2) for slot in slots], -1)
        if lengths is None:
            end = centers.select(-3, time - 1).clone()
        else:
            index = (lengths - 1)[..., None, :, None].expand(*lead, 1, batch, centers.shape[-1])
            end = centers.gather(-3, index).squeeze(-3)
        return ys, end, last, centers, activations

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.call, *operands = inputs
        _, _, _, centers, activations = output
        ctx.save_for_backward(*operands, centers, activations)
        ctx.mark_non_differentiable(centers, activations)
        ctx.set_materialize_grads(False)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        *operands, centers, activations = ctx.saved_tensors
        grad_outputs, *grad_state = grads[:3]
        replicas = ctx.call.replicas
        if grad_outputs is not None and (replicas or grad_outputs.stride(-1) != 1):
            grad_outputs = grad_outputs.contiguous()
        row, step = (0, 0) if grad_outputs is None else grad_outputs.stride()[-3:-1]
        if replicas and grad_outputs is not None:  # the stride of an axis of size 1 is arbitrary
            step = grad_outputs.shape[-1]
            row = step * ctx.call.time
        operands, grad_state = _contiguous(operands), _contiguous(grad_state)
        grad_operands = [
            torch.empty_like(tensor) if tensor is not None and needed else None
            for tensor, needed in zip(operands, ctx.needs_input_grad[1:], strict=True)
        ]
        run = getattr(kernel(), f"backward_{TYPES[centers.dtype]}")
        header = ctx.call.header(centers.shape[-2], ctx.call.time, row, step)
        run(
            header.data_ptr(),
            _pointers([*operands, centers, None, activations, grad_outputs, *grad_state]),
            _pointers([*grad_operands, *[None] * RESULT_TENSORS]),
        )
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
        outcome = CppSequence.apply(replace(call, replicas=info.batch_size), *stacked)
        return outcome, (0,) * len(outcome)


def _source(owner: nn.Module, name: str) -> Source:
    """Return the source of a tensor from its dotted name; ``gates`` is a method of a reading."""
    if not name:
        return None
    *path, name = name.split(".")
    owner = owner.get_submodule(".".join(path))
    return getattr(owner, name) if name == "gates" else (owner, name)


def _contiguous(tensors: Tensors) -> list[Tensor | None]:
    return [None if tensor is None else tensor.contiguous() for tensor in tensors]


def _pointers(tensors: Tensors) -> Any:
    return (ctypes.c_void_p * len(tensors))(*[None if t is None else t.data_ptr() for t in tensors])
