"""Metadata of an exported program: all that is needed to call it, readable without this package.

An ONNX model has it as metadata properties, a ``torch.export`` program as its extra file
``metadata.json``. Every value is a text, and these are in JSON:

``inputs``    a list: ``name``, ``kind`` (rows, tokens, lengths), ``type``, ``shape``. Rows are raw
              data, of which ``columns`` are the names, divided by ``divide_by``. With ``order``,
              number k of a flattened sequence is number ``order[k]`` of the raw one.
``states``    a list, of a step: ``name``, ``next`` (the output that is the next state), ``type``,
              ``shape`` and ``start``, the value before the first step.
``outputs``   a list: ``name``, ``kind``, ``type``, ``shape``, ``columns`` (names of classes, labels
              or numbers) and ``answer``: largest (class), above 0 (labels) or value (numbers).
``scaling``   mean and deviation by which the program scales inputs and outputs itself, or null.
``versions``  of packages.

The others are ``program`` (step or sequences), ``task``, ``head``, ``target`` and ``license``.
"""

import json
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

import thalnet_mtl
from thalnet_mtl.models.model_card import UNKNOWN_LICENSE
from thalnet_mtl.models.programs import Program, Sequences, Step
from thalnet_mtl.tasks.base import Task
from thalnet_mtl.tasks.description import class_names, input_names, output_names
from thalnet_mtl.training.environment import scalings_as_json

KINDS = {
    "class": ("a logit for each class", "largest"),
    "labels": ("a logit for each label", "above 0"),
    "numbers": ("a value for each number", "value"),
}


def metadata(task: Task, program: Program, license: str = UNKNOWN_LICENSE) -> dict[str, str]:
    """Return the facts that an exported file holds, each as a text.

    Args:
        task: with its data loaded, where scalings or names of classes follow from it.
        program: a step, or sequences with their lengths.
        license: of the weights, an identifier of the Hugging Face Hub such as 'mit'.
    """
    whole = isinstance(program, Sequences)
    x, *others = program.example(1)
    parts = x if isinstance(x, dict) else {"x": x}
    inputs = [_input(task, name, part, whole) for name, part in parts.items()]
    if whole:
        inputs.append({"name": "lengths", "kind": "lengths", **_type(others[0], False)})
    kind, answer = KINDS[task.target.name]
    shape = ["batch", *["time"] * (whole and task.spec.every_step), task.spec.outputs]
    names = class_names(task) if task.target.name == "class" else output_names(task)
    outputs = {"name": "outputs", "kind": kind, "type": "float32", "shape": shape}
    scalings = dict(zip(("inputs", "outputs"), scalings_as_json(task), strict=True))
    facts: dict[str, Any] = {
        "program": "sequences" if whole else "step",
        "task": task.name,
        "head": task.head_name,
        "target": task.target.name,
        "inputs": inputs,
        "states": _states(program) if isinstance(program, Step) else [],
        "outputs": [outputs | {"columns": list(names), "answer": answer}],
        "scaling": scalings,
        "versions": {"thalnet_mtl": thalnet_mtl.__version__, "torch": version("torch")},
        "license": license,
    }
    return {
        name: fact if isinstance(fact, str) else json.dumps(fact, ensure_ascii=False)
        for name, fact in facts.items()
    }


def _input(task: Task, name: str, part: Tensor, whole: bool) -> dict[str, Any]:
    """Return what a program and its caller have to know of an input."""
    about: dict[str, Any] = {"name": name, **_type(part, whole)}
    width = task.spec.input_width(name if task.spec.input_names else "")
    if task.spec.tokens:
        return about | {"kind": "tokens", "vocabulary": width}
    about |= {"kind": "rows", "columns": input_names(task, width)}
    about["divide_by"] = getattr(task, "scale", 1)
    order = getattr(task, "order", None)
    return about if order is None else about | {"order": order.tolist()}


def _states(program: Step) -> list[dict[str, Any]]:
    """Return the states of a step, with their values before the first step."""
    states = []
    for name, part in zip(program.names()[0], program.start(1), strict=True):
        values = part.flatten().tolist() or [0.0]  # a design without a state has a width of 0
        constant = all(value == values[0] for value in values)
        start = values[0] if constant else part[0].tolist()
        states.append({"name": name, "next": f"{name}_next", **_type(part, False), "start": start})
    return states


def _type(part: Tensor, whole: bool) -> dict[str, Any]:
    """Return type and shape of a tensor (1, …), or (1, time, …) of whole sequences."""
    axes = ["batch", *["time"] * whole]
    kind = str(part.dtype).removeprefix(f"{torch.__name__}.")
    return {"type": kind, "shape": [*axes, *part.shape[len(axes) :]]}
