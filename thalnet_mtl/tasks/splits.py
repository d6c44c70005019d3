"""The data of a split: sequences with their targets and lengths, checked and on a device."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from thalnet_mtl.errors import UserError
from thalnet_mtl.tasks.targets import Target, first_row, out_of_range
from thalnet_mtl.topology.spec import TaskSpec

Inputs = Tensor | dict[str, Tensor]  # by name, where a sample has several inputs


class Sequences(NamedTuple):
    """N sequences: ``xs`` (N, time, inputs), or (N, time) for tokens, padded with zeros.

    ``ys`` is (N,) for a class, (N, outputs) for labels or numbers, with an axis of time after N
    where there is a target at every step. ``lengths`` (N,), or None if all sequences are equally
    long.
    """

    xs: Any  # Inputs
    ys: Tensor
    lengths: Tensor | None = None

    def __len__(self) -> int:
        return len(self.ys)

    def map(self, function: Callable[[Tensor], Tensor]) -> "Sequences":
        """Apply a function to all tensors."""
        lengths = None if self.lengths is None else function(self.lengths)
        return Sequences(map_inputs(function, self.xs), function(self.ys), lengths)

    def select(self, places: Tensor) -> "Sequences":
        """Return the sequences at some places, (n,) indices."""
        return self.map(lambda part: part.index_select(0, places.to(part.device)))

    def slice(self, start: int, stop: int) -> "Sequences":
        """Return the sequences from ``start`` up to, not including, ``stop``, without a copy."""
        return self.map(lambda part: part[start:stop])

    def split(self, size: int) -> "Iterator[Sequences]":
        """Yield all sequences in order, ``size`` at a time."""
        for start in range(0, len(self), size):
            yield self.slice(start, start + size)

    def to(self, device: torch.device) -> "Sequences":
        """Return the sequences on a device; lengths stay on the CPU."""
        xs = map_inputs(lambda part: part.to(device), self.xs)
        return Sequences(xs, self.ys.to(device), self.lengths)


def map_inputs(function: Callable[[Tensor], Tensor], xs: Any) -> Any:
    """Apply a function to the inputs of a batch: a tensor, or tensors by name."""
    if isinstance(xs, Mapping):
        return {name: function(part) for name, part in xs.items()}
    return function(xs)


def first_input(xs: Any) -> Tensor:
    """Return the inputs of a batch, or one of several that go by name."""
    return next(iter(xs.values())) if isinstance(xs, Mapping) else xs


def read_sequences(data: Any, spec: TaskSpec, target: Target, where: str) -> Sequences:
    """Return the checked data of a split.

    Args:
        data: ``(xs, ys)`` or ``(xs, ys, lengths)``. ``xs`` is an array (N, time, inputs), a list
            of sequences of unequal length, or a mapping of such by the name of the input. A target
            at every step comes in the same form.
        spec: shape of the task.
        target: kind of target.
        where: task and split, for errors.

    Raises:
        UserError: something does not fit; the message names the row.
    """
    if not isinstance(data, tuple | list) or len(data) not in (2, 3):
        raise UserError(
            f"{where}: expected a pair of sequences and targets, or three with their lengths, got "
            f"{describe(data)}."
        )
    xs, ys, lengths = (*data, None)[:3]
    if isinstance(xs, Mapping):
        parts = {name: pad(part, 0, f"{where}, input '{name}'") for name, part in xs.items()}
        xs = {name: part for name, (part, _) in parts.items()}
        counts = [part_lengths for _, part_lengths in parts.values()]
    else:
        xs, count = pad(xs, 0, where)
        counts = [count]
    if lengths is None:
        lengths = next((count for count in counts if count is not None), None)
    if any(count is not None and not torch.equal(count, lengths) for count in counts):
        raise UserError(f"{where}: the inputs of a sequence differ in their lengths.")
    checked_inputs(xs, spec, where)
    first = first_input(xs)
    if spec.every_step:
        ys, _ = pad(ys, target.missing, f"{where}, targets")
    else:
        ys = as_tensor(ys, f"{where}, targets")
    if len(ys) != len(first):
        raise UserError(f"{where}: {len(first)} sequences but {len(ys)} targets.")
    if len(ys) == 0:
        raise UserError(f"{where}: there is no sequence.")
    ys = target.checked(ys, spec.outputs, where)
    axes = 1 + spec.every_step + (target.name != "class")
    if ys.ndim != axes or (spec.every_step and ys.shape[1] != first.shape[1]):
        steps = f", {first.shape[1]}" if spec.every_step else ""
        width = f", {spec.outputs}" if target.name != "class" else ""
        each = "a target at every step" if spec.every_step else "one target a sequence"
        raise UserError(
            f"{where}: targets have shape {tuple(ys.shape)}; expected "
            f"({len(first)}{steps}{width or ','}) for {each}."
        )
    return with_lengths(Sequences(xs, ys), lengths, spec, target, where)


def checked_inputs(xs: Any, spec: TaskSpec, where: str) -> None:
    """Raise unless the inputs of all sequences have the shape of a task and finite values."""
    widths: Any = spec.inputs
    if isinstance(xs, Mapping) != isinstance(widths, Mapping) or (
        isinstance(xs, Mapping) and set(xs) != set(widths)
    ):
        raise UserError(f"{where}: the inputs are {describe(xs)}; expected {widths}.")
    for name, part in xs.items() if isinstance(xs, Mapping) else [("", xs)]:
        place = f"{where}, input '{name}'" if name else where
        width = widths[name] if name else widths
        steps = spec.steps or (part.shape[1] if part.ndim > 1 else 1)
        shape = (len(part), steps) if spec.tokens else (len(part), steps, width)
        if tuple(part.shape) != shape and not (
            part.ndim == len(shape) and part.shape[1] <= steps and part.shape[2:] == shape[2:]
        ):
            raise UserError(f"{place}: sequences have shape {tuple(part.shape)}; expected {shape}.")
        if part.is_floating_point() and (row := first_row(~part.isfinite())):
            raise UserError(f"{place}: the input of row {row} holds NaN or an infinite number.")
        if spec.tokens:
            if part.is_floating_point():
                raise UserError(f"{place}: tokens must be whole numbers, got {part.dtype}.")
            if row := out_of_range(part, width):
                raise UserError(
                    f"{place}: token {row.value(part)} of row {row} is not below {width}."
                )


def with_lengths(
    data: Sequences, lengths: Any, spec: TaskSpec, target: Target, where: str
) -> Sequences:
    """Return sequences with checked lengths; what is after the end of one counts as missing."""
    time = first_input(data.xs).shape[1]
    if lengths is None:
        if spec.steps and time != spec.steps:
            raise UserError(f"{where}: sequences have {time} steps; expected {spec.steps}.")
        return data
    lengths = as_tensor(lengths, f"{where}, lengths")
    if lengths.shape != (len(data),) or lengths.is_floating_point():
        raise UserError(
            f"{where}: lengths have shape {tuple(lengths.shape)} and type {lengths.dtype}; "
            f"expected ({len(data)},) whole numbers."
        )
    lengths = lengths.long().cpu()
    if row := first_row((lengths < 1) | (lengths > time)):
        raise UserError(
            f"{where}: length {row.value(lengths)} of row {row} is not within 1 … {time}."
        )
    over = torch.arange(time) >= lengths[:, None]  # steps after the end
    xs = map_inputs(lambda part: fill(part, over, 0), data.xs)
    ys = data.ys
    if spec.every_step:
        ys = fill(ys if target.name != "class" else ys.long(), over, target.missing)
    return Sequences(xs, ys, lengths)


def fill(part: Tensor, mask: Tensor, value: float) -> Tensor:
    """Return a tensor (N, time, …) with a value where a mask (N, time) is true."""
    return part.masked_fill(mask.view(*mask.shape, *[1] * (part.ndim - 2)), value)


def pad(data: Any, value: float, where: str) -> tuple[Tensor, Tensor | None]:
    """Return sequences as one padded tensor, and their lengths if they were given as a list."""
    if not isinstance(data, Sequence) or isinstance(data, str):
        return as_tensor(data, where), None
    if not len(data):
        raise UserError(f"{where}: there is no sequence.")
    parts = [as_tensor(part, f"{where}, row {k}") for k, part in enumerate(data)]
    if len({part.shape for part in parts}) == 1:
        return torch.stack(parts), None
    ranks = {(part.ndim, part.shape[1:]) for part in parts}
    if len(ranks) > 1 or parts[0].ndim == 0:
        row = next(k for k, part in enumerate(parts) if part.shape[1:] != parts[0].shape[1:])
        raise UserError(
            f"{where}: row {row} has shape {tuple(parts[row].shape)}, row 0 "
            f"{tuple(parts[0].shape)}; only the first axis, time, may differ."
        )
    lengths = torch.tensor([len(part) for part in parts])
    return torch.nn.utils.rnn.pad_sequence(parts, batch_first=True, padding_value=value), lengths


def as_tensor(data: Any, where: str) -> Tensor:
    """Return numbers as a tensor; a UserError says what is no number."""
    try:
        if isinstance(data, Tensor):
            return data.detach()
        array = np.asarray(data)
        if array.dtype.kind not in "biuf":
            raise TypeError(f"type {array.dtype}")
        if array.dtype == np.uint32 or array.dtype == np.uint64 or array.dtype == np.uint16:
            array = array.astype(np.int64)
        return torch.as_tensor(array)
    except (TypeError, ValueError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"{where}: expected an array of numbers, got {describe(data)} ({reason})."
        ) from error


def describe(data: Any) -> str:
    """Describe a value in a few words, for errors."""
    if isinstance(data, Mapping):
        return f"a mapping of {', '.join(map(str, data)) or 'nothing'}"
    shape = getattr(data, "shape", None)
    kind = type(data).__name__
    if shape is not None:
        return f"{kind} of shape {tuple(shape)}"
    return f"{kind} of {len(data)}" if hasattr(data, "__len__") else kind
