"""Checks of what a network or a body is called with: each mistake is one line."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor

from thalnet_mtl.errors import UserError, unknown
from thalnet_mtl.ops.lengths import are_hidden, check_range
from thalnet_mtl.topology.spec import TaskSpec


def check_sequence(xs: Tensor, inputs: int, label: str = "input", *, batched: bool = True) -> None:
    """Raise unless ``xs`` is (batch, time ≥ 1, inputs), or (time, inputs) if not ``batched``."""
    dims = (3,) if batched else (2, 3)
    if xs.ndim not in dims or xs.shape[-2] < 1 or xs.shape[-1] != inputs:
        raise UserError(
            f"{label} has shape {tuple(xs.shape)}; expected (batch, time, {inputs}), time ≥ 1."
        )


def check_inputs(name: str, task: TaskSpec, xs: Any) -> None:
    """Raise unless ``xs`` are the inputs of a task: one tensor, or one by name."""
    names = task.input_names
    if not names:
        if not isinstance(xs, Tensor):
            raise UserError(f"task '{name}' has a single input: one tensor, not {kind_of(xs)}.")
        return _check_input(
            f"task '{name}'", f"input of task '{name}'", task, xs, task.input_width()
        )
    if not isinstance(xs, Mapping):
        raise UserError(
            f"task '{name}' has the inputs {', '.join(names)}: a mapping of tensors by these "
            f"names, not {kind_of(xs)}."
        )
    for key, x in xs.items():
        if key not in names:
            raise unknown(f"input of task '{name}'", key, names)
        label = f"input '{key}' of task '{name}'"
        if not isinstance(x, Tensor):
            raise UserError(f"{label}: expected a tensor, not {kind_of(x)}.")
        _check_input(label, label, task, x, task.input_width(key))
    missing = [key for key in names if key not in xs]
    if missing:
        raise UserError(f"task '{name}': input '{missing[0]}' is missing.")
    first = next(iter(xs.values()))
    if any(x.shape[:2] != first.shape[:2] for x in xs.values()):
        raise UserError(f"the inputs of task '{name}' must have the same batch and time.")


def _check_input(subject: str, label: str, task: TaskSpec, xs: Tensor, width: int) -> None:
    if not task.tokens:
        check_sequence(xs, width, label)
    elif xs.ndim != 2:
        raise UserError(f"{subject}: expected tokens (batch, time), got {tuple(xs.shape)}.")


def check_lengths(lengths: Any, xs: Shaped[Tensor, "batch time *_"]) -> Tensor | None:
    """Return lengths from 1 to the number of steps, one a sequence; None if all have all steps.

    The numbers themselves are read on a CPU alone: that would make a GPU wait. They are taken as
    they are where PyTorch has none to read, as in a trace.
    """
    if lengths is None:
        return None
    batch, time = xs.shape[:2]
    if not isinstance(lengths, Tensor) or lengths.dtype != torch.int64:
        kind = lengths.dtype if isinstance(lengths, Tensor) else kind_of(lengths)
        raise UserError(f"lengths must be a tensor of int64, not {kind}.")
    if lengths.shape != (batch,):
        raise UserError(
            f"lengths has shape {tuple(lengths.shape)}; expected ({batch},), one a sequence."
        )
    if lengths.device != xs.device:
        raise UserError(f"lengths is on device {lengths.device} and its inputs on {xs.device}.")
    if torch.compiler.is_compiling():  # a check for the program, which gets other numbers
        within = ((lengths >= 1) & (lengths <= time)).all()
        torch._assert_async(within, f"lengths: a sequence of this batch has 1 to {time} steps.")
    readable = lengths.device.type == "cpu" and not are_hidden(lengths)
    if readable and check_range(lengths, time) == time:
        return None
    return lengths


def check_sub_steps(sub_steps: int, extra_steps: int, recurrent: bool = True) -> None:
    """Raise unless every input is shown at least once, and exactly once to a body without steps."""
    if not recurrent and (sub_steps, extra_steps) != (1, 0):
        raise UserError("a body without steps takes sub_steps 1 and extra_steps 0 only.")
    if sub_steps < 1 or extra_steps < 0:
        raise UserError(
            f"sub_steps must be at least 1 and extra_steps at least 0, got {sub_steps} and "
            f"{extra_steps}."
        )


def kind_of(value: Any) -> str:
    """Return the name of the type of a value."""
    return type(value).__name__
