"""Numbers of a user as tensors: arrays, tensors, nested lists and data frames of any type.

Integers keep their type where PyTorch computes with it, and bool becomes uint8. Floating-point
numbers become float32, or the default type of PyTorch if it is another one.
"""

import math
import warnings
from collections.abc import Mapping, Sequence, Sized
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pad_sequence, unpack_sequence

from thalnet_mtl.errors import UserError
from thalnet_mtl.tasks.targets import floats

# Types with which PyTorch hardly computes, and those that take their place.
WIDER = {torch.bool: torch.uint8, torch.uint16: torch.int32, torch.uint32: torch.int64}
NUMBERS = (float, int, np.number, np.bool_)
WIDER_IN_NUMPY = {"b1": "u1", "u2": "i4", "u4": "i8", "u8": "i8", "f2": "f4", "f16": "f8"}


def as_tensor(
    data: Any, where: str, missing: float | None = None, for_text: str = "give tokens"
) -> Tensor:
    """Return numbers as a tensor, without a copy where the type allows it.

    Args:
        data: an array, a tensor, a list of numbers, a data frame, …
        where: what is converted, for errors.
        missing: stands for the masked entries of a masked array; without it they are an error.
        for_text: what to do if the data is text, for errors.

    Raises:
        UserError: these are no real numbers. The message names the first such row of a list.
    """
    try:
        tensor = _tensor(data) if isinstance(data, Tensor) else _from_array(data, missing, for_text)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"{where}: expected an array of numbers, got {describe(data)} ({reason})."
        ) from error
    return floats(tensor) if tensor.is_floating_point() else tensor


def pad(
    data: Any, value: float, where: str, rows: Sequence[int] = ()
) -> tuple[Tensor, Tensor | None]:
    """Return sequences as one padded tensor, and their lengths if they are unequal.

    Args:
        data: an array of equally long sequences, or a list of sequences.
        value: what stands after the end of a sequence.
        where: what is converted, for errors.
        rows: numbers of the sequences in errors, by default from 0.

    Raises:
        UserError: these are no numbers, or sequences differ in more than their lengths.
    """
    missing = value if value != 0 else None
    sequences = as_list(data)
    if sequences is None:
        return as_tensor(data, where, missing), None
    rows = rows or range(len(sequences))
    numbered = list(zip(rows, sequences, strict=True))
    parts = [as_tensor(part, f"{where}, row {row}", missing).cpu() for row, part in numbered]
    first, *_ = parts
    for row, part in zip(rows, parts, strict=True):
        if part.ndim and not len(part):
            raise UserError(f"{where}: row {row} is empty.")
        if part.ndim != first.ndim or part.shape[1:] != first.shape[1:]:
            raise UserError(
                f"{where}: row {row} has shape {tuple(part.shape)}, row {rows[0]} "
                f"{tuple(first.shape)}; the first axis, time, may differ."
            )
    dtype = first.dtype
    for kind in {part.dtype for part in parts}:
        dtype = torch.promote_types(dtype, kind)
    if len({part.shape for part in parts}) == 1:
        return torch.stack([part.to(dtype) for part in parts]), None
    if math.isnan(value):
        dtype = torch.promote_types(dtype, torch.get_default_dtype())
    elif value < 0 and not dtype.is_floating_point:
        dtype = torch.int64
    lengths = torch.tensor([len(part) for part in parts])
    padded = pad_sequence([part.to(dtype) for part in parts], True, padding_value=value)
    return padded, lengths


def as_list(data: Any) -> list[Any] | None:
    """Return data that is a list of sequences as such; None if it is one array, or numbers."""
    if isinstance(data, PackedSequence):
        return list(unpack_sequence(data))
    if isinstance(data, Tensor):
        return list(data.unbind()) if data.is_nested else None
    if getattr(getattr(data, "dtype", None), "kind", "") == "O" and data.ndim == 1:
        data = list(data)  # an array of objects, or a column of a data frame
    if not isinstance(data, list | tuple) or not data:
        return None
    listed = [isinstance(part, Sized) and getattr(part, "ndim", 1) > 0 for part in data]
    return list(data) if all(listed) and not isinstance(data[0], str | bytes) else None


def describe(data: Any) -> str:
    """Describe a value in a few words, for errors."""
    if isinstance(data, Mapping):
        return f"a mapping of {', '.join(map(str, data)) or 'nothing'}"
    shape, kind = getattr(data, "shape", None), type(data).__name__
    if isinstance(shape, tuple):
        dtype = getattr(data, "dtype", None)
        return f"{kind} of shape {tuple(shape)}" + (f" and type {dtype}" if dtype else "")
    return f"{kind} of length {len(data)}" if isinstance(data, Sized) else kind


def on_disk(data: Any) -> bool:
    """Return whether an array is mapped from a file, whatever view of it."""
    while isinstance(data, np.ndarray):
        if isinstance(data, np.memmap):
            return True
        data = data.base
    return False


def _tensor(data: Tensor) -> Tensor:
    """Return a dense tensor of a type with which PyTorch computes."""
    if data.is_meta:
        raise TypeError("a meta tensor has no data")
    if data.is_complex() or data.is_quantized:
        raise TypeError(f"type {data.dtype}; give the parts of complex numbers as two inputs")
    if data.is_nested:
        raise TypeError("a nested tensor is a list of sequences, not an array")
    if data.layout != torch.strided:
        data = data.to_dense()
    data = data.detach()
    if data.dtype == torch.uint64:
        data = data.to(torch.int64)
        if bool((data < 0).any()):
            raise OverflowError("a number above 2**63 - 1")
    return data.to(WIDER.get(data.dtype, data.dtype))


def _from_array(data: Any, missing: float | None, for_text: str) -> Tensor:
    if isinstance(data, list | tuple) and any(isinstance(part, Tensor) for part in data):
        parts = [_tensor(torch.as_tensor(part)).cpu() for part in data]
        return torch.stack(parts)
    if hasattr(data, "toarray"):  # a sparse array of SciPy
        data = data.toarray()
    elif hasattr(data, "to_numpy"):  # a data frame
        data = data.to_numpy()
    if isinstance(data, np.ma.MaskedArray):
        data = _without_mask(data, missing)
    if isinstance(data, Mapping | set | frozenset):
        raise TypeError("not an array")
    array = np.asarray(data)
    if array.dtype == object:
        array = _from_objects(array, for_text)
    if array.dtype.kind not in "biuf":
        kinds = {"c": "complex", "U": "text", "S": "text", "M": "dates", "m": "times"}
        hints = {
            "c": "; give real and imaginary parts as two inputs",
            "U": f"; {for_text}",
            "S": f"; {for_text}",
        }
        kind = array.dtype.kind
        raise TypeError(f"{kinds.get(kind, array.dtype)}{hints.get(kind, '')}")
    if array.dtype == np.uint64 and array.size and array.max() >= 2**63:
        raise OverflowError("a number above 2**63 - 1")
    wider = WIDER_IN_NUMPY.get(f"{array.dtype.kind}{array.dtype.itemsize}")
    array = array.astype(wider or array.dtype.newbyteorder("="), copy=False)
    if any(stride < 0 for stride in array.strides):
        array = array.copy()
    with warnings.catch_warnings():  # nobody writes to it
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(array) if array.ndim else torch.as_tensor(array)


def _from_objects(array: np.ndarray, for_text: str) -> np.ndarray:
    """Return an array of Python numbers as one of numbers."""
    values = array.reshape(len(array), -1) if array.ndim else array.reshape(1, 1)
    for row, entries in enumerate(values):
        for entry in entries:
            if isinstance(entry, str | bytes) or not isinstance(entry, NUMBERS):
                hint = f"; {for_text}" if isinstance(entry, str | bytes) else ""
                kind = type(entry).__name__
                raise TypeError(f"row {row} holds {kind} {str(entry)[:20]!r}{hint}")
    whole = all(isinstance(entry, int | np.integer) for entry in values.flat)
    return array.astype(np.int64 if whole else np.float64)


def _without_mask(data: Any, missing: float | None) -> np.ndarray:
    """Return a masked array with a value in place of the masked entries."""
    mask = np.ma.getmaskarray(data)
    if not mask.any():
        return np.asarray(data.data)
    if missing is None:
        raise ValueError(f"row {mask.nonzero()[0][0]} is masked in part")
    wide = np.float64 if math.isnan(missing) or data.dtype.kind == "f" else np.int64
    return np.asarray(data.astype(wide).filled(missing))


def is_sequence(data: Any) -> bool:
    """Return whether data is a list or tuple, and not a text."""
    return isinstance(data, Sequence) and not isinstance(data, str | bytes)
