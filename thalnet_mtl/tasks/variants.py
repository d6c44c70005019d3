"""Variants of a task: fewer sequences, other labels, other inputs, another width of the inputs.

Streams of them have known right answers: what of an earlier task helps with a variant of it. Their
sizes and names follow the streams of CTrL (Veniat et al., ICLR 2021, arXiv:2012.12631).
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from thalnet_mtl.config.options import task_options
from thalnet_mtl.errors import UserError
from thalnet_mtl.registry import lookup, register
from thalnet_mtl.tasks.sequences import SequenceTask
from thalnet_mtl.tasks.splits.reading import read_split
from thalnet_mtl.tasks.splits.sequences import SPLITS, Split
from thalnet_mtl.topology.spec import TaskSpec


@dataclass(frozen=True)
class Change:
    """What a variant changes of a task; see ``variant``."""

    train_per_class: int
    validation_per_class: int
    sample_seed: int
    label_order: int
    random_labels: int
    input_order: int
    gains: int
    inputs_averaged: int
    steps_joined: int


@register("task", "variant")
def variant(
    of: str | dict[str, Any],
    train_per_class: int = 0,
    validation_per_class: int = 0,
    sample_seed: int = 0,
    label_order: int = 0,
    random_labels: int = 0,
    input_order: int = 0,
    gains: int = 0,
    inputs_averaged: int = 1,
    steps_joined: int = 1,
) -> SequenceTask:
    """Another task with fewer sequences, other labels, or its inputs in another order or width.

    Args:
        of: the other task, which has one class a sequence: its name, or a mapping of its ``name``
            and options.
        train_per_class: training sequences of each class; 0 for all.
        validation_per_class: validation sequences of each class; 0 for all.
        sample_seed: seed of the choice of these sequences.
        label_order: seed of a permutation of the classes; 0 for none.
        random_labels: seed of classes drawn by chance in all splits, so that there is nothing to
            learn; 0 for the classes as they are.
        input_order: seed of a permutation of the numbers of a step, the same at all steps; 0 for
            none.
        gains: seed of a gain and an offset for each number of a step, the same at all steps, as
            after another calibration of sensors: x becomes g x + o with log₂ g uniform in [-2, 2]
            and o uniform in [-1, 1] times the scale of the task; 0 for none.
        inputs_averaged: neighboring numbers of a step that are averaged into one.
        steps_joined: steps that are read at once, side by side.
    """
    name, options = task_options(of, "variant")
    whole = lookup("task", name)(**options)
    change = Change(
        train_per_class, validation_per_class, sample_seed, label_order, random_labels,
        input_order, gains, inputs_averaged, steps_joined,
    )  # fmt: skip
    _check(change, whole, name)
    spec = whole.spec
    width = spec.input_width() // inputs_averaged * steps_joined
    task = SequenceTask(
        "variant",
        partial(_read_splits, whole, change),
        TaskSpec(width, spec.outputs, steps=-(-spec.steps // steps_joined)),
        scale=whole.scale,
        standardize=whole.standardize,
        class_names=whole.class_names if not (label_order or random_labels) else (),
        source=whole.source,
    )
    if whole.meaning and not random_labels:
        task.meaning = f"{whole.meaning}, order {label_order}" if label_order else whole.meaning
    return task


def _check(change: Change, whole: Any, name: str) -> None:
    """Raise unless a task can be changed in this way."""
    where = f"variant of '{name}'"
    spec = whole.spec
    if not isinstance(whole, SequenceTask) or whole.target.name != "class" or spec.every_step:
        raise UserError(f"{where}: expected a task with one class a sequence.")
    if spec.tokens or spec.input_names:
        raise UserError(f"{where}: expected a task with one input of numbers.")
    for option, value in vars(change).items():
        least = 1 if option in ("inputs_averaged", "steps_joined") else 0
        if not least <= value < 2**32:
            raise UserError(f"{where}: {option} is {value}; expected {least} or more.")
    if spec.input_width() % change.inputs_averaged:
        raise UserError(
            f"{where}: inputs_averaged {change.inputs_averaged} does not divide its "
            f"{spec.input_width()} inputs."
        )
    if spec.steps % change.steps_joined:
        raise UserError(
            f"{where}: steps_joined {change.steps_joined} does not divide its {spec.steps} steps."
        )


def _read_splits(whole: SequenceTask, change: Change) -> dict[str, Split]:
    """Return the changed data of a task by split."""
    return {
        split: _changed(data, split, whole, change) for split, data in whole.read_splits().items()
    }


def _changed(data: Any, split: str, whole: SequenceTask, change: Change) -> Split:
    where = f"variant of '{whole.name}', {split}"
    part = read_split(data, whole.target, whole.columns, where)
    counts = {"train": change.train_per_class, "validation": change.validation_per_class}
    if counts.get(split):
        part = part.select(_choose(part.ys, counts[split], change.sample_seed, where))
    if change.steps_joined > 1 and part.lengths is not None:
        raise UserError(f"{where}: steps of sequences of unequal lengths cannot be joined.")
    part = part.map_xs(partial(_rearrange, whole=whole, change=change))
    outputs, ys = whole.spec.outputs, part.ys
    if change.label_order:
        permutation = np.random.RandomState(change.label_order).permutation(outputs)
        ys = torch.from_numpy(permutation)[ys.long()]
    if change.random_labels:
        seed = [change.random_labels, SPLITS.index(split)]
        ys = torch.from_numpy(np.random.RandomState(seed).randint(outputs, size=len(ys)))
    return part.with_targets(ys, part.lengths)


def _choose(ys: Tensor, per_class: int, seed: int, where: str) -> Tensor:
    """Return the places of some sequences of each class, chosen by chance, in ascending order."""
    order = np.random.RandomState(seed).permutation(len(ys))
    shuffled = ys.numpy()[order]
    places = []
    for label in np.unique(shuffled):
        of_class = order[shuffled == label]
        if len(of_class) < per_class:
            raise UserError(
                f"{where}: class {label} has {len(of_class)} sequences; expected {per_class}."
            )
        places.append(of_class[:per_class])
    return torch.from_numpy(np.sort(np.concatenate(places)))


def _rearrange(xs: Tensor, whole: SequenceTask, change: Change) -> Tensor:
    """Return inputs (N, time, inputs) in another order, with other gains, or of another width."""
    xs = xs if xs.ndim == 3 else xs[..., None]  # one number a step
    if whole.order is not None:
        xs = xs.flatten(1).index_select(1, whole.order).view_as(xs)
    if change.input_order:
        permutation = np.random.RandomState(change.input_order).permutation(xs.shape[2])
        xs = xs[:, :, torch.from_numpy(permutation)]
    if change.gains:
        random = np.random.RandomState(change.gains)
        gains = torch.from_numpy(2 ** random.uniform(-2, 2, xs.shape[2])).float()
        offsets = torch.from_numpy(random.uniform(-1, 1, xs.shape[2])).float()
        xs = gains * xs + offsets * whole.scale
    if change.inputs_averaged > 1:
        xs = xs.float().unflatten(2, (-1, change.inputs_averaged)).mean(3)
    return xs.reshape(len(xs), -1, xs.shape[2] * change.steps_joined)
