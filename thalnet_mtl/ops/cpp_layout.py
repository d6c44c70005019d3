"""Sizes of modules and tensors of a call, in the form in which the C++ kernel reads them."""

import ctypes
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from thalnet_mtl.ops.cell import Placement
from thalnet_mtl.ops.cpp_library import kernel
from thalnet_mtl.ops.layout import cell_plans
from thalnet_mtl.ops.reference import matrix

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
# Tensors after all operands: centers, last center and memory, activations, three gradients.
RESULT_TENSORS = 7
MAX_HEADERS = 64  # cached headers, one for each shape of a call

Tensors = Sequence[Tensor | None]
# Where an operand comes from: the name of a task input, an attribute of a module, or a function.
Source = str | tuple[nn.Module, str] | Callable[[], Tensor | None] | None


class KernelLayout:
    """The sizes of a placement as the kernel reads them, and the sources of its operands.

    Attributes:
        numbers: integers that describe all modules; ``Net::describe`` in net.h parses them.
        sources: for every operand of a module where its tensor comes from, None if absent.
        inputs: indices of center, memory and task inputs among the arguments of ``CppSequence``.
        columns: width of a row of activations.
    """

    def __init__(self, placement: Placement):
        self.center, self.memory = placement.center_width, placement.memory_width
        self.numbers = [len(placement.cells)]
        self.headers: dict[Any, Tensor] = {}
        self.sources: list[Source] = []
        self.inputs = [1, 2]
        for cell, plan in zip(placement.cells, cell_plans(placement), strict=True):
            kind, names = READINGS[plan.kernel]
            self.numbers += [plan.slot.start, plan.slot.stop - plan.slot.start, plan.context]
            self.numbers += [plan.inputs, plan.composed, kind]
            self.numbers += [len(plan.positions), len(plan.layers)]
            for shape in plan.layers:
                self.numbers += [shape.gru, shape.width]
            self.numbers += plan.positions
            if cell.inputs:
                self.inputs.append(3 + len(self.sources))
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
        self.columns: int = kernel().forward_float(query.header(1, 1).data_ptr(), pointers(absent))

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


def _source(owner: nn.Module, name: str) -> Source:
    """Return the source of a tensor from its dotted name; ``gates`` is a method of a reading."""
    if not name:
        return None
    *path, name = name.split(".")
    owner = owner.get_submodule(".".join(path))
    return getattr(owner, name) if name == "gates" else (owner, name)


def pointers(tensors: Tensors) -> Any:
    """Return the addresses of tensors, null for absent ones."""
    return (ctypes.c_void_p * len(tensors))(*[None if t is None else t.data_ptr() for t in tensors])
