"""The sequence as it is defined, one module and one step at a time, in plain PyTorch.

For every module i and step t (Hafner et al., NIPS 2017)::

    c_t^i = R^i(φ_{t-1}^i) Φ_{t-1}            context: what the module reads of the center
    φ_t^i = f^i([c_t^i, x_t^i])               features: what it writes to its slot
    Φ_t   = [φ_t^1, …, φ_t^I]                 center, Φ_0 = 0

All modules of a step see the center of the step before, so that one hop costs one step. Whatever
computes the same thing faster has the signature of ``sequence`` and is tested against it.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from thalnet_mtl.models.designs import Design
from thalnet_mtl.models.readings.base import Reading

Outcome = tuple[
    Float[Tensor, "batch time outputs"],
    Float[Tensor, "batch center"],
    Float[Tensor, "batch memory"],
]


@runtime_checkable
class Cell(Protocol):
    """A module of the net as the sequence needs it."""

    name: str
    slot: slice  # of the center: where it writes, and its own features
    keep: slice  # of the memory: its recurrent state
    sees: list[int] | None  # positions of the center that it may read, None for all
    columns: list[int] | None  # of its reading, for those positions, None for all
    inputs: int  # width of its task input, 0 for none
    context: int  # width of what it reads
    reading: Reading
    design: Design


def sequence(
    cells: Sequence[Cell],
    xs: Mapping[str, Float[Tensor, "batch time _"]],
    center: Float[Tensor, "batch center"],
    memory: Float[Tensor, "batch memory"],
    outputs: Sequence[slice],
) -> Outcome:
    """Some slots of the centers Φ_1 … Φ_T, Φ_T and the last memory, from inputs by module name."""
    static = [None if cell.reading.dynamic else weights_of(cell) for cell in cells]
    time = next(iter(xs.values())).shape[1]
    centers = []
    for t in range(time):
        features, memories = [], []
        for cell, weights in zip(cells, static, strict=True):
            x = xs[cell.name][:, t] if cell.inputs else None
            phi, kept = advance(cell, weights, x, center, memory[:, cell.keep])
            features.append(phi)
            memories.append(kept)
        # Under autocast products are narrow; what is carried on is not.
        center = torch.cat(features, dim=-1).to(center.dtype)
        memory = torch.cat(memories, dim=-1).to(memory.dtype)
        centers.append(center)
    return torch.stack([at(center, outputs) for center in centers], dim=1), center, memory


def at(center: Float[Tensor, "batch center"], places: Sequence[slice]) -> Tensor:
    """Some slots of a center."""
    return torch.cat([center[:, place] for place in places], dim=-1)


def unsupported(cells: Sequence[Cell], like: Tensor) -> str | None:
    """Why these modules cannot run here: they always can."""
    return None


def advance(
    cell: Cell,
    weights: Float[Tensor, "context seen"] | None,
    x: Float[Tensor, "batch inputs"] | None,
    center: Float[Tensor, "batch center"],
    memory: Float[Tensor, "batch _"],
) -> tuple[Float[Tensor, "batch features"], Float[Tensor, "batch _"]]:
    """One step of one module: its features and its next memory."""
    context = read(cell, weights, center)
    return cell.design(context if x is None else torch.cat([context, x], dim=-1), memory)


def read(
    cell: Cell, weights: Tensor | None, center: Float[Tensor, "batch center"]
) -> Float[Tensor, "batch context"]:
    """The context of one module: R Φ over what it may see."""
    seen = center if cell.sees is None else center[:, cell.sees]
    if weights is not None:
        return seen @ weights.T
    weights = weights_of(cell, center[:, cell.slot])
    return einsum(weights, seen, "batch context center, batch center -> batch context")


def weights_of(cell: Cell, features: Tensor | None = None) -> Float[Tensor, "*batch context seen"]:
    """R over what is there to be read; what is absent from the center is zero there."""
    weights = cell.reading.weights(features)
    return weights if cell.columns is None else weights[..., cell.columns]
