"""The sequence with equal modules side by side: few large products a step instead of many small.

Modules of a step are independent given the center of the step before, so those of the same design
and sizes run as one batch of matrices. Three things are done once a sequence instead of once a
step: weights are normalized and stacked, task inputs are projected, and a static reading is
composed with the dense layer behind it, ``W (R Φ) = (W R) Φ``. What does not fit that pattern
(dynamic readings, designs from elsewhere) goes module by module, as in the reference.
"""

from collections.abc import Mapping, Sequence

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from thalnet_mtl.ops.layout import is_plain_stack
from thalnet_mtl.ops.reference import Cell, Outcome, advance, at, unsupported, weights_of

__all__ = ["sequence", "unsupported"]

Product = tuple[Tensor, Tensor]  # weight and bias


class Group:
    """Equal modules with static readings, their weights stacked for one sequence."""

    def __init__(self, cells: Sequence[Cell], xs: Mapping[str, Tensor], center: int):
        self.cells = cells
        readings = torch.stack([_whole(cell, center) for cell in cells])
        context = readings.shape[1]
        layers = [[_products(layer) for layer in stack(cell)] for cell in cells]
        first = torch.stack([layer[0][0][0][:, :context] for layer in layers])
        self.composed = isinstance(stack(cells[0])[0], nn.Linear)
        self.read = (first @ readings if self.composed else readings).mT
        self.first = first.mT
        self.projected = _project(cells, xs, context).unbind(0)
        # Per layer the product with its input (done above for the first layer), and with its
        # memory if it is a GRU.
        self.layers = [
            (
                _stack([own[k][0] for own in layers]) if k > 0 else None,
                _stack([own[k][1] for own in layers]) if len(layers[0][k]) > 1 else None,
            )
            for k in range(len(layers[0]))
        ]

    def step(
        self, t: int, center: Float[Tensor, "batch center"], memory: Float[Tensor, "module batch m"]
    ) -> tuple[Float[Tensor, "module batch features"], Float[Tensor, "module batch m"]]:
        """Features and memories of all modules of the group after one step."""
        seen = center.expand(len(self.cells), *center.shape)
        read, weight = (seen, self.read) if self.composed else (seen @ self.read, self.first)
        x = torch.baddbmm(self.projected[t], read, weight)
        for from_input, from_memory in self.layers:
            if from_input is not None:
                weight, bias = from_input
                x = torch.baddbmm(bias, x, weight)
            if from_memory is not None:
                weight, bias = from_memory
                x = memory = gru(x, torch.baddbmm(bias, memory, weight), memory)
            else:
                x = x.tanh()
        return x, memory


def sequence(
    cells: Sequence[Cell],
    xs: Mapping[str, Float[Tensor, "batch time _"]],
    center: Float[Tensor, "batch center"],
    memory: Float[Tensor, "batch memory"],
    outputs: Sequence[slice],
) -> Outcome:
    """As ``reference.sequence``."""
    groups = [Group(equal, xs, center.shape[1]) for equal in equal_cells(cells)]
    loose = [cell for cell in cells if not stack(cell)]
    static = {cell.name: None if cell.reading.dynamic else weights_of(cell) for cell in loose}
    time = next(iter(xs.values())).shape[1]
    stacked = [torch.stack([memory[:, cell.keep] for cell in group.cells]) for group in groups]
    memories = {cell.name: memory[:, cell.keep] for cell in loose}
    centers = []
    for t in range(time):
        features: dict[str, Tensor] = {}
        for k, group in enumerate(groups):
            phi, stacked[k] = group.step(t, center, stacked[k])
            features |= zip((cell.name for cell in group.cells), phi.unbind(0), strict=True)
        for cell in loose:
            x = xs[cell.name][:, t] if cell.inputs else None
            features[cell.name], memories[cell.name] = advance(
                cell, static[cell.name], x, center, memories[cell.name]
            )
        center = torch.cat([features[cell.name] for cell in cells], dim=-1).to(center.dtype)
        centers.append(center)
    for group, kept in zip(groups, stacked, strict=True):
        memories |= zip((cell.name for cell in group.cells), kept.unbind(0), strict=True)
    last = torch.cat([memories[cell.name] for cell in cells], dim=-1).to(memory.dtype)
    return torch.stack([at(center, outputs) for center in centers], dim=1), center, last


def stack(cell: Cell) -> list[nn.Module]:
    """The layers of a module that can be one of a group; none of one that cannot."""
    return (
        list(cell.design.stack) if is_plain_stack(cell.design) and not cell.reading.dynamic else []
    )


def equal_cells(cells: Sequence[Cell]) -> list[list[Cell]]:
    """The modules that can be grouped, by design and by the sizes of all but their inputs."""
    groups: dict[object, list[Cell]] = {}
    for cell in cells:
        layers = [(type(layer), [w.shape for w in layer.parameters()]) for layer in stack(cell)]
        if layers:
            (first, shapes), *others = layers
            key = type(cell.design), first, shapes[0][0], cell.context, others
            groups.setdefault(repr(key), []).append(cell)
    return list(groups.values())


def gru(
    from_input: Float[Tensor, "module batch gates"],
    from_state: Float[Tensor, "module batch gates"],
    state: Float[Tensor, "module batch m"],
) -> Float[Tensor, "module batch m"]:
    """The gates of ``torch.nn.GRU`` (reset, update, new), in the precision of the state."""
    width = state.shape[-1]
    from_input, from_state = from_input.to(state.dtype), from_state.to(state.dtype)
    gates = torch.sigmoid(from_input[..., : 2 * width] + from_state[..., : 2 * width])
    reset, update = gates.chunk(2, dim=-1)
    new = torch.addcmul(from_input[..., 2 * width :], reset, from_state[..., 2 * width :]).tanh()
    return torch.lerp(new, state, update)


def _whole(cell: Cell, center: int) -> Float[Tensor, "context center"]:
    """R over the whole center, zero where the module cannot see."""
    weights = weights_of(cell)
    if cell.sees is None:
        return weights
    sees = torch.tensor(cell.sees, dtype=torch.long, device=weights.device)
    return weights.new_zeros(len(weights), center).index_copy(1, sees, weights)


def _products(layer: nn.Module) -> list[Product]:
    """What a layer multiplies its input by, and its memory if it has one."""
    if isinstance(layer, nn.GRUCell):
        return [(layer.weight_ih, layer.bias_ih), (layer.weight_hh, layer.bias_hh)]
    assert isinstance(layer, nn.Linear)
    return [(layer.weight, layer.bias)]


def _project(
    cells: Sequence[Cell], xs: Mapping[str, Tensor], context: int
) -> Float[Tensor, "time module batch width"]:
    """Task inputs of all steps times their weights, plus the first bias."""
    x = next(iter(xs.values()))
    projected = []
    for cell in cells:
        weight, bias = _products(stack(cell)[0])[0]
        if cell.inputs:
            sums = nn.functional.linear(xs[cell.name], weight[:, context:], bias)
        else:
            sums = bias.expand(*x.shape[:2], -1)
        projected.append(rearrange(sums, "batch time width -> time batch width").to(bias.dtype))
    return torch.stack(projected, dim=1)


def _stack(products: Sequence[Product]) -> Product:
    """Weights (module, inputs, outputs) and biases (module, 1, outputs) of all modules."""
    weights, biases = zip(*products, strict=True)
    return torch.stack(weights).mT, rearrange(list(biases), "module outputs -> module 1 outputs")
