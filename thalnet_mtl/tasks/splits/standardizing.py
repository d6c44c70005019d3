"""The scaling of sequences and targets to mean 0 and deviation 1, fitted block by block."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from thalnet_mtl.errors import UserError
from thalnet_mtl.ops.lengths import past_end
from thalnet_mtl.tasks.splits.checks import BLOCK_BYTES
from thalnet_mtl.tasks.splits.review import pieces
from thalnet_mtl.tasks.splits.sequences import SPLITS, Split
from thalnet_mtl.topology.scaling import Scaling
from thalnet_mtl.topology.spec import TaskSpec

Scalings = tuple[Scaling | None, Scaling | None]  # of the inputs, and of the targets
COARSE = 0.01  # rounding of a number, relative to the deviation, above which it is told


def check_can_standardize(spec: TaskSpec, target: str, where: str) -> None:
    """Raise unless a task has one input of numbers, or targets that are numbers."""
    if spec.input_names:
        raise UserError(f"{where}: standardize is for a single input; scale several beforehand.")
    if spec.tokens and target != "numbers":
        raise UserError(
            f"{where}: standardize scales numbers; the inputs are tokens, the targets {target}."
        )


def standardized(
    splits: Mapping[str, Split], to_inputs: Callable[[Any], Tensor] | None, scales_targets: bool
) -> tuple[Scalings, dict[str, Split]]:
    """Return the scalings of the training part, and all splits with their targets scaled.

    Inputs stay as they are stored, and are scaled when they are read.

    Args:
        splits: the splits by name, ``train`` first.
        to_inputs: returns stored inputs as numbers (n, time, inputs); None if they are tokens.
        scales_targets: whether targets are numbers.
    """
    training = splits[SPLITS[0]]
    of_inputs = input_scaling(training, to_inputs) if to_inputs else None
    if not scales_targets:
        return (of_inputs, None), dict(splits)
    of_targets = target_scaling(training.ys)
    return (of_inputs, of_targets), {name: scaled(d, of_targets) for name, d in splits.items()}


def input_scaling(data: Split, to_inputs: Callable[[Any], Tensor]) -> Scaling:
    """Return the scaling of all steps within the lengths of sequences.

    Args:
        data: sequences with a single input.
        to_inputs: returns stored inputs as numbers (n, time, inputs).
    """

    def blocks() -> Iterator[np.ndarray]:
        for block in data.split(max(1, BLOCK_BYTES // max(1, data.bytes_per_sequence()))):
            xs = to_inputs(block.xs).cpu()
            if block.lengths is None:
                yield xs.flatten(0, 1).double().numpy()
            else:
                yield xs[~past_end(block.lengths.cpu(), xs.shape[1])].double().numpy()

    return Scaling.fit_blocks(blocks())


def target_scaling(ys: Tensor) -> Scaling:
    """Return the scaling of targets (N, outputs) or (N, time, outputs); NaN is missing."""
    return Scaling.fit_blocks(part.flatten(0, -2).double().cpu().numpy() for part in pieces(ys))


def scaled(data: Split, scaling: Scaling) -> Split:
    """Return sequences with their targets scaled, in the type in which they are stored."""
    parts = [scaling.apply(part.double()).to(part.dtype) for part in pieces(data.ys)]
    return data.with_targets(torch.cat(parts), data.lengths)


def precision_notices(scalings: Scalings) -> list[str]:
    """Return the columns of inputs and targets that vary hardly more than they are rounded."""
    dtype, notices = torch.get_default_dtype(), []
    for kind, scaling in zip(("input", "output"), scalings, strict=True):
        columns = zip(scaling.mean, scaling.deviation, strict=True) if scaling else ()
        for k, (mean, deviation) in enumerate(columns):
            if abs(mean) * torch.finfo(dtype).eps <= COARSE * deviation:
                continue
            varies = f"has mean {mean:.6g} and deviation {deviation:.4g}"
            if deviation == 1:  # that of a column that is constant
                varies = f"is always {mean:.6g}"
            notices.append(
                f"{kind} {k} {varies} in {dtype}, which rounds it coarsely; subtract the mean "
                f"before the numbers are stored."
            )
    return notices
