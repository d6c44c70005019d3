"""What fast sequences work out about modules before they run, once for each set of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from thalnet_mtl.models.designs import Design
from thalnet_mtl.models.readings.fast_gaussian import FastGaussianReading
from thalnet_mtl.models.readings.fast_softmax import FastSoftmaxReading
from thalnet_mtl.models.readings.linear import (
    LinearReading,
    WeightNormReading,
    WeightNormRowsReading,
)
from thalnet_mtl.ops.reference import Cell

Made = TypeVar("Made")

# How a reading is computed, by its own class: what derives from one may compute anything.
KINDS = {
    LinearReading: "linear",
    WeightNormReading: "weight_norm",
    WeightNormRowsReading: "weight_norm_rows",
    FastSoftmaxReading: "fast_softmax",
    FastGaussianReading: "fast_gaussian",
}


@dataclass(frozen=True)
class Layer:
    """A dense layer or a GRU of a module."""

    gru: bool
    width: int


@dataclass(frozen=True)
class CellPlan:
    """A module as numbers alone.

    ``places`` are the positions of the center that the columns of its reading see, -1 for those
    of modules that are not there. ``composed``: R is multiplied with the dense layer behind it.
    """

    name: str
    slot: slice
    keep: slice
    context: int
    inputs: int
    reading: str  # one of ``KINDS``, or "given": see ``reference.weights_of``
    places: tuple[int, ...]
    layers: tuple[Layer, ...]
    composed: bool


def cell_plan(cell: Cell, center: int) -> CellPlan:
    """The numbers of a module whose design is a stack of layers."""
    layers = tuple(
        Layer(isinstance(layer, nn.GRUCell), outputs_of(layer)) for layer in cell.design.stack
    )
    reading = KINDS.get(type(cell.reading), "given")
    sees = range(center) if cell.sees is None else cell.sees
    places = list(sees)
    if reading != "given" and cell.columns is not None:
        places = [-1] * cell.reading.center
        for place, column in zip(sees, cell.columns, strict=True):
            places[column] = place
    width = layers[0].width
    return CellPlan(
        name=cell.name,
        slot=cell.slot,
        keep=cell.keep,
        context=cell.context,
        inputs=cell.inputs,
        reading=reading,
        places=tuple(places),
        layers=layers,
        composed=not cell.reading.dynamic
        and not layers[0].gru
        and width * center < cell.context * (center + width),
    )


def outputs_of(layer: nn.Module) -> int:
    """The width of what a layer puts out."""
    if isinstance(layer, nn.GRUCell):
        return layer.hidden_size
    assert isinstance(layer, nn.Linear)
    return layer.out_features


def parameters_of(layer: nn.Module) -> list[Tensor]:
    """The parameters of a layer: one product and its bias, of a GRU those of input and state."""
    if isinstance(layer, nn.GRUCell):
        return [layer.weight_ih, layer.weight_hh, layer.bias_ih, layer.bias_hh]
    assert isinstance(layer, nn.Linear)
    return [layer.weight, layer.bias]


def cell_plans(cells: Sequence[Cell]) -> list[CellPlan]:
    """The numbers of all modules, in their order."""
    return [cell_plan(cell, cells[-1].slot.stop) for cell in cells]


def unsupported_design(cells: Sequence[Cell]) -> str | None:
    """Why modules are not all plain stacks of layers, if they are not."""
    for cell in cells:
        if not is_plain_stack(cell.design):
            return f"module '{cell.name}' has a design of its own, {type(cell.design).__name__}"
        if cell.reading.dynamic and type(cell.reading) not in KINDS:
            return f"module '{cell.name}' has a dynamic reading of its own"
    return None


def is_plain_stack(design: Any) -> bool:
    """Whether it is a stack of PyTorch's own layers, with biases, and nobody listens to it."""
    return (
        type(design).forward is Design.forward
        and not _has_hooks(design)
        and all(
            type(layer) in (nn.Linear, nn.GRUCell)
            and layer.bias is not None
            and layer.bias is not False
            and not _has_hooks(layer)
            for layer in design.stack
        )
    )


def _has_hooks(module: nn.Module) -> bool:
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )


def memoized(cells: Sequence[Cell], make: Callable[[Sequence[Cell]], Made]) -> Made:
    """What a function makes of some modules, remembered beside them while they are the same."""
    memo: dict[Any, Any] = getattr(cells, "memo", {})
    of = [(cell.reading, *cell.design.stack._modules.values()) for cell in cells]
    if make not in memo or memo[make][0] != of:
        memo[make] = of, make(cells)
    return memo[make][1]


def by_slot(
    rows: Float[Tensor, "*time batch slots"], modules: int
) -> Float[Tensor, "module *time batch width"]:
    """A view of equal slots that lie side by side."""
    return rows.unflatten(-1, (modules, -1)).movedim(-2, 0)


def gather(
    rows: Float[Tensor, "batch _"], places: Sequence[slice], span: slice | None = None
) -> Float[Tensor, "module batch width"]:
    """Equal parts of rows, of every module; a view where they are a span."""
    if span:
        return by_slot(rows[:, span], len(places))
    return torch.stack([rows[:, place] for place in places])


def scatter(
    parts: Float[Tensor, "module batch width"],
    rows: Float[Tensor, "batch _"],
    places: Sequence[slice],
    span: slice | None = None,
) -> None:
    """The other way round."""
    if span:
        by_slot(rows[:, span], len(places)).copy_(parts)
        return
    for part, place in zip(parts, places, strict=True):
        rows[:, place] = part
