"""Answers of a trained network to new sequences, in the form and the units of the targets."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from thalnet_mtl.errors import UserError
from thalnet_mtl.models.modes import evaluation_mode
from thalnet_mtl.models.network import Network
from thalnet_mtl.ops.inputs import first_input, map_inputs
from thalnet_mtl.ops.lengths import past_end, zero_past_end
from thalnet_mtl.tasks.base import Task
from thalnet_mtl.tasks.splits.arrays import on_disk
from thalnet_mtl.tasks.splits.items import Columns
from thalnet_mtl.tasks.splits.reading import read_split
from thalnet_mtl.tasks.splits.sequences import Sequences, fill


@torch.no_grad()
def predict(network: Network, task: Task, inputs: Any, lengths: Any = None) -> Tensor:
    """Return the answers of a network to sequences as they stand in the source of a task.

    Args:
        network: with a head for the task.
        task: scales the inputs, and says what the outputs mean; see ``Task.scalings``.
        inputs: see ``TrainedRun.predict``.
        lengths: (batch,) steps of each sequence, if they differ.

    Raises:
        UserError: these are no sequences of numbers, or do not fit the task.
    """
    spec, where = task.spec, "predict"
    inputs = map_inputs(_in_memory, inputs)
    try:
        count = len(first_input(inputs))
    except TypeError:
        raise UserError(f"{where}: expected sequences, got {type(inputs).__name__}.") from None
    given = (inputs, torch.zeros(count), *([] if lengths is None else [lengths]))
    data = read_split(given, task.target, Columns(), where)
    assert isinstance(data, Sequences)  # in memory
    xs = data.xs if spec.tokens else map_inputs(_with_columns, data.xs)
    _check_widths(xs, task, where)
    time = first_input(xs).shape[1]
    ys = torch.zeros(count, time) if spec.every_step else torch.zeros(count)
    batch = task.to_batch(Sequences(xs, ys, data.lengths))
    xs, steps = batch.xs, batch.lengths
    if (scaling := task.scalings[0]) and not getattr(task, "input_scaling", None):
        xs = map_inputs(scaling.apply, xs)  # its data is stored scaled
        xs = xs if steps is None else zero_past_end(xs, steps)
    device = next(network.parameters()).device
    xs = map_inputs(lambda part: part.to(device), xs)
    steps = None if steps is None else steps.to(device)
    with evaluation_mode(network):
        outputs, _ = network(task.head_name, xs, None, steps)
    answers = task.target.answers(task.in_units(task.floats(outputs)))
    if steps is None or not spec.every_step:
        return answers
    return fill(answers, past_end(steps, answers.shape[1]), task.target.missing)


def _in_memory(part: Any) -> Any:
    """Return what a user gave, with arrays that are mapped from a file read."""
    return np.array(part) if on_disk(part) else part


def _with_columns(xs: Tensor) -> Tensor:
    """Return sequences with an axis of columns, which those of one number a step may lack."""
    return xs[..., None] if xs.ndim == 2 else xs


def _check_widths(xs: Any, task: Task, where: str) -> None:
    """Raise unless sequences have the axes and the columns of a task."""
    spec = task.spec
    parts = xs if isinstance(xs, dict) else {"": xs}
    if set(parts) != set(spec.input_names or ("",)):
        names = ", ".join(spec.input_names) or "one array, no mapping"
        raise UserError(f"{where}: task '{task.name}' has the inputs {names}.")
    for name, part in parts.items():
        about = f"{where}: input '{name}'" if name else f"{where}: inputs"
        shape = "(batch, time)" if spec.tokens else f"(batch, time, {spec.input_width(name)})"
        fits = part.ndim == 2 if spec.tokens else part.shape[2:] == (spec.input_width(name),)
        if not fits:
            raise UserError(f"{about} of task '{task.name}' are {shape}, got {tuple(part.shape)}.")
