"""Modules of any design and reading that run as one, with their parameters stacked.

``torch.func.functional_call`` calls the design of one module with the parameters of another, and
``torch.vmap`` does so for all of them at once. ``stacking`` says which modules can run so.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from thalnet_mtl.ops.cell import PlacedCell
from thalnet_mtl.ops.lengths import Packing
from thalnet_mtl.ops.reference import matrix, read

LARGEST = 2**18  # numbers of all R of a dynamic reading at a step; more do not fit a cache


class StackedCells:
    """Equal modules, their parameters stacked for one sequence; in the form of ``BatchedCells``.

    ``cache`` keeps tensors of positions, which cannot be made while a CUDA graph is captured.
    """

    def __init__(
        self,
        cells: Sequence[PlacedCell],
        xs: Mapping[str, Tensor],
        center: int,
        packing: Packing,
        cache: dict[Any, Any],
    ):
        self.cells = cells
        self.design = _Stack([cell.design for cell in cells])
        self.xs = None
        if cells[0].inputs:
            self.xs = packing.split(torch.stack([xs[cell.name] for cell in cells]))
        self.reading = self.weights = None
        if not cells[0].reading.dynamic:
            self.weights = torch.stack([full_matrix(cell, center) for cell in cells]).mT
            return
        columns = positions(cells[0], center)
        if len(cells) * packing.batch * cells[0].context * len(columns) > LARGEST:
            return
        self.reading = _Stack([cell.reading for cell in cells])
        device = next(iter(xs.values())).device
        key = "positions", tuple(cell.name for cell in cells), device
        if key not in cache:
            read_from = [positions(cell, center) for cell in cells]
            slots = [list(range(cell.slot.start, cell.slot.stop)) for cell in cells]
            cache[key] = [torch.tensor(index, device=device) for index in (read_from, slots)]
        self.index, self.slots = cache[key]

    def step(
        self, t: int, center: Float[Tensor, "batch center"], memory: Float[Tensor, "module batch m"]
    ) -> tuple[Float[Tensor, "module batch features"], Float[Tensor, "module batch m"]]:
        """Return features and memories of the modules after step ``t``."""
        if self.weights is not None:
            x = center @ self.weights
        elif self.reading is None:
            x = torch.stack([read(cell, None, center) for cell in self.cells])
        else:
            padded = nn.functional.pad(center, (0, 1))  # what an absent module writes is 0
            visible = padded[:, self.index].movedim(1, 0)
            weights = self.reading(center[:, self.slots].movedim(1, 0))
            x = (weights @ visible[..., None]).squeeze(-1)
        if self.xs is not None:
            x = torch.cat([x, self.xs[t]], -1)
        features, state = self.design(x, memory)
        return features, state


class _Stack:
    """Equal modules, called with stacked inputs."""

    def __init__(self, modules: Sequence[nn.Module]):
        template, tensors = modules[0], [_tensors(module) for module in modules]
        stacked = {name: torch.stack([each[name] for each in tensors]) for name in tensors[0]}

        def call(tensors: dict[str, Tensor], *xs: Tensor) -> Any:
            return functional_call(template, tensors, xs)

        self.stacked, self.call = stacked, torch.vmap(call)

    def __call__(self, *xs: Tensor) -> Any:
        return self.call(self.stacked, *xs)


def full_matrix(cell: PlacedCell, center: int) -> Float[Tensor, "context center"]:
    """Return R over the full center, zero at positions that the module may not read."""
    weights = matrix(cell)
    if cell.visible is None:
        return weights
    visible = torch.tensor(cell.visible, dtype=torch.long, device=weights.device)
    return weights.new_zeros(len(weights), center).index_copy(1, visible, weights)


def positions(cell: PlacedCell, center: int) -> list[int]:
    """Return for every column of a reading its position in the center; -1: absent."""
    visible = list(range(center)) if cell.visible is None else cell.visible
    if cell.columns is None:
        return visible
    positions = [-1] * cell.reading.center
    for position, column in zip(visible, cell.columns, strict=True):
        positions[column] = position
    return positions


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers by name."""
    return dict((*module.named_parameters(), *module.named_buffers()))
