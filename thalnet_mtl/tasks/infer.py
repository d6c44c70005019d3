"""The shape of a task, read from its data."""

from collections.abc import Mapping, Sequence
from typing import Any

from thalnet_mtl.errors import UserError
from thalnet_mtl.tasks.splits import as_tensor, describe, first_input, pad
from thalnet_mtl.tasks.targets import Target
from thalnet_mtl.topology.spec import TaskSpec

MOST_CLASSES = 100_000


def infer_spec(splits: Mapping[str, Any], target: Target, where: str) -> TaskSpec:
    """Return the shape that the data of all splits has.

    Inputs of two axes (N, time) are tokens if they are whole numbers, else one number a step. A
    target with an axis of time of the same length as the inputs is one at every step; for labels
    and numbers that takes three axes.

    Raises:
        UserError: the data has no shape that a task can have.
    """
    shapes = [_split_spec(split, target, f"{where}, {name}") for name, split in splits.items()]
    if not shapes:
        raise UserError(f"{where}: there is no split.")
    first = shapes[0]
    return TaskSpec(
        max(spec.input_width() for spec in shapes) if first.tokens else first.inputs,
        max(spec.outputs for spec in shapes),
        tokens=first.tokens,
        every_step=first.every_step,
        steps=max(spec.steps for spec in shapes),
    )


def _split_spec(split: Any, target: Target, where: str) -> TaskSpec:
    if not isinstance(split, tuple | list) or len(split) not in (2, 3):
        raise UserError(
            f"{where}: expected a pair of sequences and targets, or three with their lengths, got "
            f"{describe(split)}."
        )
    xs, ys = split[:2]
    if isinstance(xs, Mapping):
        xs = {name: pad(part, 0, f"{where}, input '{name}'")[0] for name, part in xs.items()}
    else:
        xs = pad(xs, 0, where)[0]
    first = first_input(xs)
    if first.ndim not in (2, 3):
        raise UserError(
            f"{where}: sequences have shape {tuple(first.shape)}; expected (N, time, inputs), or "
            f"(N, time) for tokens."
        )
    tokens = first.ndim == 2
    if tokens and first.is_floating_point():
        raise UserError(
            f"{where}: sequences have shape {tuple(first.shape)}; numbers need a third axis, "
            f"(N, time, inputs), of width 1 for one number a step."
        )
    listed = isinstance(ys, Sequence) and len(ys) and hasattr(ys[0], "__len__")
    ys = pad(ys, target.missing, f"{where}, targets")[0] if listed else as_tensor(ys, where)
    every_step = ys.ndim == (2 if target.name == "class" else 3)
    if target.name == "class":
        classes = ys.double().nan_to_num(0, 0, 0)
        outputs = int(classes.max()) + 1 if len(ys) else 1
        if outputs > max(MOST_CLASSES, len(ys)):
            raise UserError(
                f"{where}: class {outputs - 1:,} means a head of that size; number classes from 0 "
                f"without gaps."
            )
    else:
        outputs = ys.shape[-1] if ys.ndim > 1 else 1
    widths = {name: part.shape[-1] for name, part in xs.items()} if isinstance(xs, dict) else None
    inputs: Any = widths or (int(first.max()) + 1 if tokens else first.shape[-1])
    return TaskSpec(inputs, max(1, outputs), tokens, every_step, first.shape[1])
