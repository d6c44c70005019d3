"""The definition of a ThalNet's sequence in plain PyTorch, one module and one step at a time.

For every module i and step t (Hafner et al., NIPS 2017)::

    c_t^i = R^i(φ_{t-1}^i) Φ_{t-1}            context: what the module reads of the center
    φ_t^i = f^i([c_t^i, x_t^i])               features: what it writes to its slot
    Φ_t   = [φ_t^1, …, φ_t^I]                 center, Φ_0 = 0

All modules of a step read the center of the previous step, so information needs one step from a
module to the next. Modules with the option ``same_step`` read Φ_{t-1} with the φ_t of the modules
that have a task input, which run first. Every faster backend has the signature of ``sequence`` and
is tested against it.
A sequence that has ended keeps its Φ and its memories, see ``lengths``.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from einops import einsum
from jaxtyping import Bool, Float
from torch import Tensor

from thalnet_mtl.ops.cell import PlacedCell, Placement
from thalnet_mtl.ops.layout import has_hooks
from thalnet_mtl.ops.lengths import Lengths, past_end, zero_past_end

Outcome = tuple[
    Float[Tensor, "batch time outputs"],
    Float[Tensor, "batch center"],
    Float[Tensor, "batch memory"],
]


def unsupported(placement: Placement, like: Tensor) -> str | None:
    """Return None: the reference runs every module."""
    return None


def sequence(
    placement: Placement,
    xs: Mapping[str, Float[Tensor, "batch time _"]],
    center: Float[Tensor, "batch center"],
    memory: Float[Tensor, "batch memory"],
    outputs: Sequence[slice],
    lengths: Lengths | None = None,
) -> Outcome:
    """Run the modules over all steps.

    Args:
        placement: the modules that run.
        xs: task inputs by name of the module.
        center, memory: the state before the first step, Φ_0 and the recurrent states.
        outputs: slots of the center to return.
        lengths: number of steps of every sequence, from 1 to T; None if all have T. What ``xs``
            holds past the end of a sequence has no effect.

    Returns:
        The slots ``outputs`` of Φ_1 … Φ_T, zero past the end of a sequence; then the center and
        the memory after the last step of every sequence.
    """
    cells = placement.cells
    static = {cell.name: None if cell.reading.dynamic else matrix(cell) for cell in cells}
    time = next(iter(xs.values())).shape[1]
    xs = {name: zero_past_end(x, lengths) for name, x in xs.items()}
    past = None if lengths is None else past_end(lengths, time)
    centers = []
    for t in range(time):
        features: dict[str, Tensor] = {}
        memories: dict[str, Tensor] = {}
        for phase in placement.phases:
            seen = center if not features else with_input_features(cells, center, features)
            for cell in phase:
                x = xs[cell.name][:, t] if cell.inputs else None
                features[cell.name], memories[cell.name] = advance(
                    cell, static[cell.name], x, seen, memory[:, cell.memory]
                )
        # Under autocast products have low precision; the state keeps its own.
        phi, state = (
            torch.cat([values[cell.name] for cell in cells], -1) for values in (features, memories)
        )
        center = keep(past, t, center, phi.to(center.dtype))
        memory = keep(past, t, memory, state.to(memory.dtype))
        centers.append(center)
    ys = torch.stack([select_slots(center, outputs) for center in centers], dim=1)
    return zero_past_end(ys, lengths), center, memory


def with_input_features(
    cells: Sequence[PlacedCell], center: Tensor, features: Mapping[str, Tensor]
) -> Float[Tensor, "batch center"]:
    """Return a center with the new features of modules that have a task input.

    The center itself if no module reads them in the same step.
    """
    if not any(cell.same_step for cell in cells):
        return center
    parts = [
        features[cell.name].to(center.dtype) if cell.takes_input else center[:, cell.slot]
        for cell in cells
    ]
    return torch.cat(parts, dim=-1)


def keep(
    past: Bool[Tensor, "batch time"] | None, t: int, before: Tensor, after: Tensor
) -> Float[Tensor, "*modules batch _"]:
    """Return a state after step ``t``: unchanged where that step is past the end."""
    return after if past is None else torch.where(past[:, t, None], before, after)


def select_slots(center: Float[Tensor, "batch center"], slots: Sequence[slice]) -> Tensor:
    """Return some slots of a center, side by side."""
    return torch.cat([center[:, slot] for slot in slots], dim=-1)


def advance(
    cell: PlacedCell,
    weights: Float[Tensor, "context visible"] | None,
    x: Float[Tensor, "batch inputs"] | None,
    center: Float[Tensor, "batch center"],
    memory: Float[Tensor, "batch _"],
) -> tuple[Float[Tensor, "batch features"], Float[Tensor, "batch _"]]:
    """Run one module for one step and return its features and its next memory.

    ``weights`` is R of a static reading, None for a dynamic one.
    """
    context = read(cell, weights, center)
    return cell.design(context if x is None else torch.cat([context, x], dim=-1), memory)


def read(
    cell: PlacedCell, weights: Tensor | None, center: Float[Tensor, "batch center"]
) -> Float[Tensor, "batch context"]:
    """Return the context of one module, R Φ over the positions that it may read."""
    visible = center if cell.visible is None else center[:, cell.visible]
    if weights is not None:
        return visible @ weights.T
    weights = matrix(cell, center[:, cell.slot])
    return einsum(weights, visible, "batch context center, batch center -> batch context")


def matrix(
    cell: PlacedCell, features: Tensor | None = None
) -> Float[Tensor, "*batch context visible"]:
    """Return R without the columns of modules that do not run, whose features count as zero."""
    weights = reading_matrix(cell.reading, features)
    return weights if cell.columns is None else weights[..., cell.columns]


def reading_matrix(reading: Any, features: Tensor | None = None) -> Tensor:
    """Return R of a reading; it is called as a module where that does more, as with pruning."""
    return reading(features) if has_hooks(reading) else reading.weights(features)
