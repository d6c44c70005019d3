"""Sizes and positions that fast backends derive from the modules, once for every placement."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from thalnet_mtl.errors import unknown
from thalnet_mtl.ops.cell import PlacedCell, Placement

Result = TypeVar("Result")

# Readings that backends compute themselves, see ``Reading.kernel``, and the names of the tensors
# that a kernel reads, "" where it reads none.
KERNELS: dict[str, tuple[str, ...]] = {
    "linear": ("weight",),
    "weight_norm": ("weight", "scale"),
    "weight_norm_rows": ("weight", "scale"),
    "fast_softmax": ("weight", "bias", "", "", "gates"),
    "fast_gaussian": (
        "mean.weight", "mean.bias", "variance.weight", "variance.bias", "gates", "positions",
    ),
}  # fmt: skip

# The types of tensors whose memory a kernel may read: subclasses may mean other numbers.
PLAIN = frozenset({Tensor, nn.Parameter})
PLAIN_OR_ABSENT = PLAIN | {type(None)}


@dataclass(frozen=True)
class Layer:
    """A dense layer or a GRU of a module."""

    gru: bool
    width: int


@dataclass(frozen=True)
class CellPlan:
    """The sizes and positions of a module, without its parameters.

    Args:
        slot, memory: columns of the center and of the memory; see ``PlacedCell``.
        context: width of what the module reads.
        inputs: width of its task input; 0: none.
        kernel: one of ``KERNELS``; None: a static reading whose matrix R PyTorch computes.
        positions: for every column of the reading its position in the center; -1: absent, since
            the module of that slot does not run.
        composed: whether R is multiplied with the dense layer that reads the context.
    """

    slot: slice
    memory: slice
    context: int
    inputs: int
    kernel: str | None
    positions: tuple[int, ...]
    layers: tuple[Layer, ...]
    composed: bool


def cell_plans(placement: Placement) -> list[CellPlan]:
    """Return the plan of every module, in order."""
    return [_cell_plan(cell, placement.center_width) for cell in placement.cells]


def _cell_plan(cell: PlacedCell, center: int) -> CellPlan:
    layers = tuple(
        Layer(isinstance(layer, nn.GRUCell), layer_width(layer)) for layer in cell.design.stack
    )
    kernel = kernel_of(cell.reading)
    visible = range(center) if cell.visible is None else cell.visible
    positions = list(visible)
    if kernel is not None and cell.columns is not None:
        positions = [-1] * cell.reading.center
        for position, column in zip(visible, cell.columns, strict=True):
            positions[column] = position
    width = layers[0].width
    return CellPlan(
        slot=cell.slot,
        memory=cell.memory,
        context=cell.context,
        inputs=cell.inputs,
        kernel=kernel,
        positions=tuple(positions),
        layers=layers,
        composed=not cell.reading.dynamic
        and not layers[0].gru
        and width * center < cell.context * (center + width),
    )


def kernel_of(reading: nn.Module) -> str | None:
    """Return the name of the kernel for a reading, None if only PyTorch can compute it.

    The class of the reading must name the kernel itself: a subclass may compute something else.
    """
    kernel = vars(type(reading)).get("kernel")
    if kernel is None:
        return None
    if kernel not in KERNELS:
        raise unknown(f"kernel of {type(reading).__name__}", kernel, KERNELS)
    if has_hooks(reading) or not PLAIN_OR_ABSENT.issuperset(
        map(type, reading._parameters.values())
    ):
        return None
    for layer in reading._modules.values():
        if type(layer) is not nn.Linear or not is_plain_layer(layer):
            return None
    return kernel


def layer_width(layer: nn.Module) -> int:
    """Return the number of outputs of a layer."""
    if isinstance(layer, nn.GRUCell):
        return layer.hidden_size
    assert isinstance(layer, nn.Linear)
    return layer.out_features


def layer_parameters(layer: nn.Module) -> list[Tensor]:
    """Return weight and bias; of a GRU both weights, for input and state, then both biases."""
    if isinstance(layer, nn.GRUCell):
        return [layer.weight_ih, layer.weight_hh, layer.bias_ih, layer.bias_hh]
    assert isinstance(layer, nn.Linear)
    return [layer.weight, layer.bias]


def unsupported_design(placement: Placement) -> str | None:
    """Return why a module is no plain stack of layers under a known reading, None if all are."""
    for cell in placement.cells:
        if cell.same_step:
            return f"module '{cell.name}' reads input modules in the same step"
        if not is_plain_stack(cell.design):
            custom = f"a custom design, {type(cell.design).__name__}"
            return f"module '{cell.name}' has {getattr(cell.design, 'about', custom)}"
        if cell.reading.dynamic and kernel_of(cell.reading) is None:
            return (
                f"module '{cell.name}' has a custom dynamic reading, {type(cell.reading).__name__}"
            )
    return None


def is_plain_stack(design: Any) -> bool:
    """Return whether a design is a stack of PyTorch's own layers, with biases, as they came."""
    is_stack = getattr(design, "is_stack", None)  # a design need not derive from ``Design``
    if is_stack is None or not is_stack() or has_hooks(design):
        return False
    for layer in stack_of(design):
        if type(layer) not in (nn.Linear, nn.GRUCell) or not is_plain_layer(layer):
            return False
    return True


def stack_of(design: nn.Module) -> Iterable[Any]:
    """Return the layers of a design, some times as fast as ``design.stack``."""
    stack = design._modules["stack"]
    assert stack is not None
    return stack._modules.values()


def is_plain_layer(layer: nn.Module) -> bool:
    """Return whether a layer has no hooks, and all of its parameters, as ordinary tensors."""
    return not has_hooks(layer) and PLAIN.issuperset(map(type, layer._parameters.values()))


def has_hooks(module: nn.Module) -> bool:
    """Return whether a call of a module does more than its ``forward``; pruning uses hooks."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )


def memoized(placement: Placement, function: Callable[[Placement], Result]) -> Result:
    """Return ``function(placement)``, computed anew after a reading or layer was changed."""
    cache = placement.cache
    modules = [
        (
            cell.reading,
            kernel_of(cell.reading),
            *cell.reading._modules.values(),
            *stack_of(cell.design),
        )
        for cell in placement.cells
    ]
    if function not in cache or cache[function][0] != modules:
        cache[function] = modules, function(placement)
    return cache[function][1]


def split_slots(
    rows: Float[Tensor, "*time batch slots"], modules: int
) -> Float[Tensor, "module *time batch width"]:
    """Return a view of contiguous slots of equal width, one for each module."""
    return rows.unflatten(-1, (modules, -1)).movedim(-2, 0)


def gather(
    rows: Float[Tensor, "batch _"], slots: Sequence[slice], span: slice | None = None
) -> Float[Tensor, "module batch width"]:
    """Return slots of equal width, stacked; a view where they fill the contiguous ``span``."""
    if span:
        return split_slots(rows[:, span], len(slots))
    return torch.stack([rows[:, slot] for slot in slots])


def scatter(
    values: Float[Tensor, "module batch width"],
    rows: Float[Tensor, "batch _"],
    slots: Sequence[slice],
    span: slice | None = None,
) -> None:
    """Write stacked values into their slots, in place: the inverse of ``gather``."""
    if span:
        split_slots(rows[:, span], len(slots)).copy_(values)
        return
    for value, slot in zip(values, slots, strict=True):
        rows[:, slot] = value
