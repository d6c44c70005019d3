"""Sizes of modules and tensors of a call, in the form in which the C++ kernel reads them."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from thalnet_mtl.errors import UserError
from thalnet_mtl.ops import batched
from thalnet_mtl.ops.cell import Placement
from thalnet_mtl.ops.cpp_library import kernel
from thalnet_mtl.ops.cpp_rows import RowOperands
from thalnet_mtl.ops.derivatives import Key, Tensors, layer_names, reading_keys, with_tensors
from thalnet_mtl.ops.layout import KERNELS, CellPlan, cell_plans
from thalnet_mtl.ops.parameter_rows import ParameterRows
from thalnet_mtl.ops.reference import matrix

READING_TENSORS = 6  # tensors that the kernel expects for a reading, absent ones included
# After all operands: centers, last center and memory, outputs, activations, three gradients.
RESULT_TENSORS = 8
MAX_HEADERS = 64  # cached headers, one for each shape of a call

# Where an operand comes from: the name of a task input, an attribute of a module, or a function.
Source = str | Key | Callable[[], Tensor | None] | None


class KernelLayout:
    """The sizes of a placement as the kernel reads them, and the sources of its operands.

    Attributes:
        numbers: integers that describe all modules; ``Net::describe`` in net.h parses them.
        keys: for every operand of a module its task input or its ``Key``, None if absent.
        sources: the same with a function in the place of a method's key.
        shapes: the shape of every operand, None if absent or checked elsewhere.
        inputs: indices of center, memory and task inputs among the arguments of ``CppSequence``.
        columns: width of a row of activations.
    """

    def __init__(self, placement: Placement):
        self.center, self.memory = placement.center_width, placement.memory_width
        self.numbers = [len(placement.cells)]
        self.headers: dict[Any, Tensor] = {}
        self.keys: list[str | Key | None] = []
        self.sources: list[Source] = []
        self.shapes: list[tuple[int, ...] | None] = []
        self.inputs = [1, 2]
        self._row_operands: RowOperands | None = None
        for cell, plan in zip(placement.cells, cell_plans(placement), strict=True):
            # ``ReadingKind`` in net.h has their order. R from PyTorch is used like a linear one.
            kind = 0 if plan.kernel is None else list(KERNELS).index(plan.kernel)
            self.numbers += [plan.slot.start, plan.slot.stop - plan.slot.start, plan.context]
            self.numbers += [plan.inputs, plan.composed, kind]
            self.numbers += [len(plan.positions), len(plan.layers)]
            for shape in plan.layers:
                self.numbers += [shape.gru, shape.width]
            self.numbers += plan.positions
            if cell.inputs:
                self.inputs.append(3 + len(self.sources))
            reading: list[Key | None] = [(cell.reading, "weights")]
            if plan.kernel is not None:
                reading = reading_keys(cell.reading, plan.kernel)
            self.keys += [cell.name if cell.inputs else None, *reading]
            self.keys += [None] * (READING_TENSORS - len(reading))
            for layer in cell.design.stack:
                self.keys += [(layer, name) if name else None for name in layer_names(layer)]
            self.shapes += [None, *_reading_shapes(plan), *_layer_shapes(plan)]
            methods = {
                "weights": partial(matrix, cell),
                "gates": getattr(cell.reading, "gates", None),
            }
            self.sources += [
                methods.get(key[1], key) if isinstance(key, tuple) else key
                for key in self.keys[len(self.sources) :]
            ]
        # Called without tensors the kernel only returns the width of a row of activations.
        absent = pointers([None] * (3 + len(self.sources) + RESULT_TENSORS))
        query = Call(placement, self, (), time=1, save_activations=False)
        header = query.header(1, 1)
        self.columns: int = kernel().forward_float(header.data_ptr(), absent.ctypes.data)

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

    def check(self, center: Tensor, operands: Tensors, only: Iterable[int] = ()) -> None:
        """Raise unless all operands have the type and device of the center, and their shapes.

        The kernel reads raw memory and could not tell.

        Args:
            only: indices of operands to check; all by default.
        """
        dtype = center.dtype
        for k in only or range(len(operands)):
            tensor, shape = operands[k], self.shapes[k]
            if tensor is None:
                continue
            if tensor.dtype != dtype or not tensor.is_cpu:
                raise UserError(
                    f"all tensors must have the same type and device, but one is {tensor.dtype} on "
                    f"{tensor.device} and the center {dtype} on {center.device}."
                )
            if shape is not None and tensor.shape != shape:
                raise UserError(
                    f"a weight has shape {tuple(tensor.shape)}; expected {shape} in its place."
                )

    def in_rows(self, center: Tensor, operands: Tensors, rows: ParameterRows) -> RowOperands:
        """Return where the operands are that belong to rows, and check them as ``check`` does."""
        known = self._row_operands
        if known is None or not known.fits(center.dtype, operands, rows):
            self.check(center, operands)
            known = self._row_operands = RowOperands(operands, rows, self.inputs)
        self.check(center, operands, known.separate)
        return known

    def compute(self, call: "Call", lengths: Tensor | None, *operands: Tensor | None) -> Tensors:
        """Return outputs, last center and last memory, as the kernel does, in plain PyTorch.

        Args:
            operands: center and memory, then those of the layout.
        """
        center, memory, *tensors = operands
        assert center is not None and memory is not None
        pairs = list(zip(self.keys, tensors, strict=True))
        xs = {key: x for key, x in pairs if isinstance(key, str) and x is not None}
        weights = {key: tensor for key, tensor in pairs if isinstance(key, tuple)}
        outputs = [slice(start, start + width) for start, width in call.outputs]
        placement = with_tensors(call.placement, weights)
        return batched.sequence(placement, xs, center, memory, outputs, lengths)


@dataclass(frozen=True)
class Call:
    """The shape of one call of the kernel.

    Args:
        placement: the modules that run.
        outputs: slots of the center to return, each with its start and width.
        save_activations: whether to keep the activations of all steps, for a backward pass.
        replicas: number of independent networks of the same layout; if not 0, all tensors have a
            leading axis of this size.
        rows: where the operands are, if autograd knows rows in the place of parameters.
    """

    placement: Placement
    layout: KernelLayout
    outputs: tuple[tuple[int, int], ...]
    time: int
    save_activations: bool
    replicas: int = 0
    rows: RowOperands | None = None

    @property
    def inputs(self) -> Sequence[int]:
        """Indices of center, memory and task inputs among the arguments of ``CppSequence``."""
        return self.layout.inputs if self.rows is None else self.rows.inputs

    def compute(self, *arguments: Tensor | None) -> Tensors:
        """Return what the kernel does for the arguments of ``CppSequence``, in plain PyTorch."""
        operands = arguments if self.rows is None else self.rows.operands(arguments)
        return self.layout.compute(self, *operands)

    def addresses(self, arguments: Tensors, results: Tensors) -> np.ndarray:
        """Return the addresses of operands and results, or of their gradients; 0: absent."""
        if self.rows is None:
            return pointers([*arguments, *results])
        return np.concatenate([self.rows.addresses(arguments), pointers(results)])

    def empty_gradients(self, arguments: Tensors, needed: Sequence[bool]) -> list[Tensor | None]:
        """Return memory for the gradients that are needed; rows are zero, as they hold more."""
        first_row = len(arguments) - (0 if self.rows is None else len(self.rows.leaves))
        return [
            None
            if x is None or not need
            else torch.empty_like(x)
            if k < first_row
            else torch.zeros_like(x)
            for k, (x, need) in enumerate(zip(arguments, needed, strict=True))
        ]

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


def _reading_shapes(plan: CellPlan) -> list[tuple[int, ...] | None]:
    """Return the shapes of the tensors of a reading, in the order of ``KERNELS``."""
    context, center = plan.context, len(plan.positions)
    features = plan.slot.stop - plan.slot.start
    shapes: dict[str | None, list[tuple[int, ...]]] = {
        "weight_norm": [(context, center), ()],
        "weight_norm_rows": [(context, center), (context, 1)],
        "fast_softmax": [(context, center, features), (context, center)],
        "fast_gaussian": [(context, features), (context,)] * 2,
    }
    of_kernel = shapes.get(plan.kernel, [(context, center)])
    return [*of_kernel, *[None] * (READING_TENSORS - len(of_kernel))]


def _layer_shapes(plan: CellPlan) -> Iterator[tuple[int, ...] | None]:
    """Yield the shapes of the tensors of the layers, in the order of ``layer_names``."""
    inputs = plan.context + plan.inputs
    for layer in plan.layers:
        width = layer.width
        if layer.gru:
            yield from [(3 * width, inputs), (3 * width, width), (3 * width,), (3 * width,)]
        else:
            yield from [(width, inputs), None, (width,), None]
        inputs = width


def pointers(tensors: Tensors) -> np.ndarray:
    """Return the addresses of tensors, 0 for absent ones."""
    return np.array([0 if t is None else t.data_ptr() for t in tensors], np.int64)
