"""Operands of the C++ kernel of which most are views of rows; see ``parameter_rows``."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from thalnet_mtl.ops.derivatives import Tensors
from thalnet_mtl.ops.parameter_rows import ParameterRows, has_hooks


class RowOperands:
    """The places of the operands of a layout: in rows, or tensors on their own.

    A call has fewer arguments then: lengths, center, memory, the tensors on their own and the rows.

    Attributes:
        leaves: the rows that hold an operand.
        inputs: indices of center, memory and task inputs among the arguments of ``CppSequence``.

    Args:
        operands: those of the layout.
        inputs: indices of center, memory and task inputs, with all operands as arguments.
    """

    def __init__(self, operands: Tensors, rows: ParameterRows, inputs: Sequence[int]):
        places = [rows.place(tensor) for tensor in operands]
        # Memory for gradients is written to, not added to: one place for a shared parameter.
        first = {tensor: k for k, tensor in reversed([*enumerate(operands)])}
        places = [place if first[operands[k]] == k else None for k, place in enumerate(places)]
        used = sorted({place[0] for place in places if place})
        self.rows, self.count = rows, len(operands)
        self.leaves = [rows.leaves[row] for row in used]
        self.parameters = [(k, operands[k]) for k, place in enumerate(places) if place]
        self.separate = [k for k, place in enumerate(places) if not place]
        arguments = [0, 1, 2, *(3 + k for k in self.separate)]
        self.inputs = [arguments.index(k) for k in inputs]
        in_rows = [place for place in places if place]
        itemsize = self.leaves[0].element_size() if self.leaves else 0
        self._starts = [start for _, start in in_rows]
        self._rows = np.array([used.index(row) for row, _ in in_rows], np.int64)
        self._bytes = np.array(self._starts, np.int64) * itemsize
        self._in_rows = np.array([3 + k for k, _ in self.parameters], np.int64)
        self._arguments = np.array(arguments, np.int64)

    def fits(self, dtype: torch.dtype, operands: Tensors, rows: ParameterRows) -> bool:
        """Return whether these operands are in the same places, and have no hooks."""
        return (
            rows is self.rows
            and all(row.dtype == dtype for row in self.leaves)
            and all(
                operands[k] is tensor and tensor.requires_grad and not has_hooks(tensor)
                for k, tensor in self.parameters
                if tensor is not None
            )
        )

    def arguments(self, operands: Tensors) -> list[Tensor | None]:
        """Return the tensors on their own, then the rows."""
        return [*(operands[k] for k in self.separate), *self.leaves]

    def addresses(self, arguments: Tensors) -> np.ndarray:
        """Return the addresses of all operands, or of their gradients, from those of a call."""
        pointers = [0 if x is None else x.data_ptr() for x in arguments]
        bases = np.array(pointers[len(self._arguments) :], np.int64)
        result = np.zeros(3 + self.count, np.int64)
        result[self._arguments] = pointers[: len(self._arguments)]
        result[self._in_rows] = np.where(bases[self._rows] == 0, 0, bases[self._rows] + self._bytes)
        return result

    def operands(self, arguments: Tensors) -> list[Tensor | None]:
        """Return lengths, center, memory and all operands, as differentiable views of the rows."""
        result: list[Tensor | None] = [None] * (3 + self.count)
        for k, tensor in zip(self._arguments, arguments, strict=False):
            result[k] = tensor
        leaves = arguments[len(self._arguments) :]
        for (k, like), row, start in zip(self.parameters, self._rows, self._starts, strict=True):
            leaf = leaves[row]
            assert leaf is not None and like is not None
            result[3 + k] = leaf[start : start + like.numel()].view(like.shape)
        return result
