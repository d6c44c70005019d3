"""Words on an exported network: how it is called, with its inputs and outputs."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

from torch import Tensor

from thalnet_mtl.models.programs import Program, Sequences
from thalnet_mtl.tasks.base import Task
from thalnet_mtl.tasks.description import WIDTH, class_names, input_names, output_names

MOST_NAMES = 6


def program_usage(task: Task, program: Program, form: str, path: Path) -> list[str]:
    """Return lines on a program: what goes in and out, and three lines of Python that call it.

    Args:
        task: the task of the program; its data need not be loaded.
        program: a step, or sequences with their lengths.
        form: ``torch`` or ``onnx``.
        path: the file.
    """
    x, *others = program.example(1)
    parts = dict(x) if isinstance(x, dict) else {"x": x}
    whole, lines = isinstance(program, Sequences), list[str]()
    for name, part in parts.items():
        columns = _columns(task, name if isinstance(x, dict) else "")
        about = f"tokens below {task.spec.input_width()}" if task.spec.tokens else listed(columns)
        lines += _entry(name, _shape(part, ["batch", *["time"] * whole]), about)
    states, outputs = program.names()
    for name, part in zip(states, others, strict=True):
        about = "number of steps of each sequence" if whole else "zeros before the first step"
        lines += _entry(name, _shape(part, ["batch"]), about)
    names = class_names(task) if task.target.name == "class" else output_names(task)
    kind = {
        "class": "a logit for each class (the largest is the answer): ",
        "labels": "a logit for each label (yes above 0): ",
        "numbers": "",
    }[task.target.name]
    every = ("time",) if task.spec.every_step and whole else ()
    shape = f"({', '.join(('batch', *every, str(task.spec.outputs)))})"
    lines += _entry("outputs", shape, kind + listed(names))
    lines += _notes(task)
    call = [*parts, *states]
    if form == "onnx":
        feed = ", ".join(f'"{name}": {name}' for name in call)
        code = [
            "import onnxruntime",
            f'session = onnxruntime.InferenceSession("{path}")',
            f"{_results(outputs)} = session.run(None, {{{feed}}})",
        ]
    else:
        first = f"{{{', '.join(f'{name!r}: {name}' for name in parts)}}}"
        words = [first if isinstance(x, dict) else "x", *states]
        code = [
            "import torch",
            f'program = torch.export.load("{path}").module()',
            f"{_results(outputs)} = program({', '.join(words)})",
        ]
    last = wrap(code.pop(), WIDTH - 2, subsequent_indent="    ", break_long_words=False)
    return [*lines, *(f"  {line}" for line in (*code, *last))]


def network_usage(task: Task, path: Path) -> list[str]:
    """Return lines on a folder with a whole network, and three lines of Python that call it."""
    scaled = [
        what for what, scaling in zip(("xs", "outputs"), task.scalings, strict=True) if scaling
    ]
    note = [f"{' and '.join(scaled)}: scaled as in training, see task.scalings"] if scaled else []
    return [
        *note,
        "  from thalnet_mtl import load_model",
        f'  network = load_model("{path}")',
        f'  outputs, state = network("{task.head_name}", xs)  # (batch, time, inputs)',
    ]


def listed(names: Sequence[str]) -> str:
    """Return names in a row, the first and the last of many with their number.

    >>> listed([f"y +{k}" for k in range(1, 9)])
    'y +1, y +2, y +3, y +4, y +5, …, y +8 (8)'
    """
    if len(names) <= MOST_NAMES:
        return ", ".join(names)
    return f"{', '.join(names[: MOST_NAMES - 1])}, …, {names[-1]} ({len(names)})"


def _columns(task: Task, name: str) -> list[str]:
    return input_names(task, 1 if task.spec.tokens else task.spec.input_width(name))


def _shape(part: Tensor, axes: Sequence[str]) -> str:
    """Return shape and type of a tensor whose first axes have names."""
    kind = str(part.dtype).removeprefix("torch.")
    names = [*axes, *map(str, part.shape[len(axes) :])]
    return f"({', '.join(names)}{',' * (part.ndim < 2)}) {kind}"


def _entry(name: str, shape: str, about: str) -> list[str]:
    return wrap(f"{name}: {shape}: {about}", WIDTH, subsequent_indent="    ")


def _results(outputs: Sequence[str]) -> str:
    return "outputs, *state" if len(outputs) > 1 else "(outputs,)"


def _notes(task: Task) -> list[str]:
    lines = []
    scale: Any = getattr(task, "scale", 1)
    if any(task.scalings):
        lines.append("Values go in and come out in the units of the data: scaling is inside.")
    elif scale != 1:
        lines.append(f"Divide inputs by {scale:g}, as in training: that is not inside.")
    if getattr(task, "order", None) is not None:
        lines.append("Inputs are in the order of the task: that is not inside.")
    return lines
