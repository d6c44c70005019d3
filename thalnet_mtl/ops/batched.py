"""The sequence with equal modules batched: few large products a step instead of many small ones.

Modules of a step are independent given the previous center, so modules of the same design and sizes
run as one batched matrix product. Three things are done once a sequence instead of once a step:
weights are normalized and stacked, task inputs are projected, and a static reading is composed with
the dense layer that reads the context, ``W (R Φ) = (W R) Φ``. Modules with a dynamic reading or a
custom design run as ``stacked_cells`` says, or one by one, as in the reference.

Steps past the end of a sequence are not computed; see ``Packing``. In a traced program and under
``vmap`` no shape may depend on lengths: there they are computed and have no effect.
"""

from collections.abc import Iterator, Mapping, Sequence

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from thalnet_mtl.ops.cell import PlacedCell, Placement
from thalnet_mtl.ops.layout import is_plain_stack, layer_parameters
from thalnet_mtl.ops.lengths import Lengths, Packing, are_hidden, past_end, zero_past_end
from thalnet_mtl.ops.reference import (
    Outcome,
    advance,
    keep,
    matrix,
    unsupported,
    with_input_features,
)
from thalnet_mtl.ops.stacked_cells import StackedCells, full_matrix
from thalnet_mtl.ops.stacking import describe, stacked_groups

__all__ = ["explain_modules", "sequence", "unsupported"]

Affine = tuple[Tensor, Tensor]  # weight and bias


class BatchedCells:
    """Equal modules with static readings, their weights stacked for one sequence."""

    def __init__(
        self, cells: Sequence[PlacedCell], xs: Mapping[str, Tensor], center: int, packing: Packing
    ):
        self.cells = cells
        readings = torch.stack([full_matrix(cell, center) for cell in cells])
        context = readings.shape[1]
        layers = [[_affine_maps(layer) for layer in batchable_layers(cell)] for cell in cells]
        first = torch.stack([layer[0][0][0][:, :context] for layer in layers])
        self.composed = isinstance(batchable_layers(cells[0])[0], nn.Linear)
        self.read = (first @ readings if self.composed else readings).mT
        self.first = first.mT
        self.projected = packing.split(_project_inputs(cells, xs, context))
        # Per layer the map of its input (for the first layer it is done above), and the map of
        # its state if it is a GRU.
        self.layers = [
            (
                _stack([maps[k][0] for maps in layers]) if k > 0 else None,
                _stack([maps[k][1] for maps in layers]) if len(layers[0][k]) > 1 else None,
            )
            for k in range(len(layers[0]))
        ]

    def step(
        self, t: int, center: Float[Tensor, "batch center"], memory: Float[Tensor, "module batch m"]
    ) -> tuple[Float[Tensor, "module batch features"], Float[Tensor, "module batch m"]]:
        """Return features and memories of the modules after step ``t``."""
        center = center.expand(len(self.cells), *center.shape)
        read, weight = (center, self.read) if self.composed else (center @ self.read, self.first)
        x = torch.baddbmm(self.projected[t], read, weight)
        for from_input, from_state in self.layers:
            if from_input is not None:
                weight, bias = from_input
                x = torch.baddbmm(bias, x, weight)
            if from_state is not None:
                weight, bias = from_state
                x = memory = gru(x, torch.baddbmm(bias, memory, weight), memory)
            else:
                x = x.tanh()
        return x, memory


class SingleCell:
    """A module with a dynamic reading or a custom design, in the form of ``BatchedCells``."""

    def __init__(self, cell: PlacedCell, xs: Mapping[str, Tensor], packing: Packing):
        self.cells = [cell]
        self.weights = None if cell.reading.dynamic else matrix(cell)
        self.xs = packing.split(xs[cell.name]) if cell.inputs else None

    def step(
        self, t: int, center: Float[Tensor, "batch center"], memory: Float[Tensor, "1 batch m"]
    ) -> tuple[Float[Tensor, "1 batch features"], Float[Tensor, "1 batch m"]]:
        """Return features and memory of the module after step ``t``."""
        x = None if self.xs is None else self.xs[t]
        features, state = advance(self.cells[0], self.weights, x, center, memory[0])
        return features[None], state[None]


def sequence(
    placement: Placement,
    xs: Mapping[str, Float[Tensor, "batch time _"]],
    center: Float[Tensor, "batch center"],
    memory: Float[Tensor, "batch memory"],
    outputs: Sequence[slice],
    lengths: Lengths | None = None,
) -> Outcome:
    """Run the modules over all steps; see ``reference.sequence``."""
    cells = placement.cells
    hidden = lengths if lengths is not None and are_hidden(lengths) else None
    first = next(iter(xs.values()))
    past = None if hidden is None else past_end(hidden, first.shape[1])
    packing = Packing(first, lengths if hidden is None else None)
    xs = {name: packing.pack(zero_past_end(x, hidden)) for name, x in xs.items()}
    phases = [list(_groups(phase, xs, placement, center, packing)) for phase in placement.phases]
    groups = [group for phase in phases for group in phase]
    center, rows = packing.sort(center), packing.sort(memory)
    memories = [torch.stack([rows[:, cell.memory] for cell in group.cells]) for group in groups]
    centers: list[Tensor] = []
    ended: list[list[Tensor]] = []
    for t, (count, following) in enumerate(zip(packing.counts, packing.following, strict=True)):
        features: dict[str, Tensor] = {}
        numbers = iter(range(len(groups)))
        for phase in phases:
            seen = center if not features else with_input_features(cells, center, features)
            for group in phase:
                k = next(numbers)
                phi, states = group.step(t, seen, memories[k])
                memories[k] = keep(past, t, memories[k], states)
                features |= _by_name(group, phi)
        phi = torch.cat([features[cell.name] for cell in cells], dim=-1).to(center.dtype)
        center = keep(past, t, center, phi)
        centers.append(center)
        if packing.some_end(t):
            sizes = following, count - following
            parts = [state.split(sizes, -2) for state in (center, *memories)]
            (center, *memories), finished = map(list, zip(*parts, strict=True))
            ended.append(finished)
    center, *memories = (torch.cat(parts[::-1], -2) for parts in zip(*ended, strict=True))
    by_name: dict[str, Tensor] = {}
    for group, states in zip(groups, memories, strict=True):
        by_name |= _by_name(group, states)
    last = torch.cat([by_name[cell.name] for cell in cells], dim=-1).to(memory.dtype)
    steps = torch.cat(centers)
    ys = torch.cat([packing.pad(steps[:, slot]) for slot in outputs], dim=-1)
    return zero_past_end(ys, hidden), packing.unsort(center), packing.unsort(last)


def _groups(
    cells: Sequence[PlacedCell],
    xs: Mapping[str, Tensor],
    placement: Placement,
    center: Tensor,
    packing: Packing,
) -> Iterator[BatchedCells | StackedCells | SingleCell]:
    """Yield modules that are computed together, and the rest one by one."""
    width = center.shape[1]
    for equal in group_equal(cells):
        yield BatchedCells(equal, xs, width, packing)
    others = [cell for cell in cells if not batchable_layers(cell)]
    stacked = stacked_groups(others, placement, center)
    for equal in stacked:
        yield StackedCells(equal, xs, width, packing, placement.cache)
    for cell in others:
        if not any(cell in group for group in stacked):
            yield SingleCell(cell, xs, packing)


def explain_modules(placement: Placement, like: Tensor) -> dict[str, str]:
    """Return by names of equal modules whether they are batched, and why not.

    ``like`` has the type and the device of the computation.
    """
    lines = {}
    for phase in placement.phases:
        for group in group_equal(phase):
            lines[", ".join(cell.name for cell in group)] = "batched: a stack of layers"
        others = [cell for cell in phase if not batchable_layers(cell)]
        lines |= dict(describe(others, placement, like))
    return lines


def _by_name(
    group: BatchedCells | StackedCells | SingleCell, values: Float[Tensor, "module batch _"]
) -> dict[str, Tensor]:
    """Return the values of every module of a group by its name."""
    return dict(zip((cell.name for cell in group.cells), values.unbind(0), strict=True))


def batchable_layers(cell: PlacedCell) -> list[nn.Module]:
    """Return the layers of a module that can be batched with others; none if it cannot."""
    if cell.reading.dynamic or not is_plain_stack(cell.design):
        return []
    return list(cell.design.stack)


def group_equal(cells: Sequence[PlacedCell]) -> list[list[PlacedCell]]:
    """Group the modules that can be batched, by design and all sizes but those of their inputs."""
    groups: dict[object, list[PlacedCell]] = {}
    for cell in cells:
        layers = [
            (type(layer), [w.shape for w in layer_parameters(layer)])
            for layer in batchable_layers(cell)
        ]
        if layers:
            (first, shapes), *rest = layers
            key = type(cell.design), first, shapes[0][0], cell.context, rest
            groups.setdefault(repr(key), []).append(cell)
    return list(groups.values())


def gru(
    from_input: Float[Tensor, "module batch gates"],
    from_state: Float[Tensor, "module batch gates"],
    state: Float[Tensor, "module batch m"],
) -> Float[Tensor, "module batch m"]:
    """Apply the gates of ``torch.nn.GRU`` (reset, update, new), in the precision of the state."""
    width = state.shape[-1]
    from_input, from_state = from_input.to(state.dtype), from_state.to(state.dtype)
    gates = torch.sigmoid(from_input[..., : 2 * width] + from_state[..., : 2 * width])
    reset, update = gates.chunk(2, dim=-1)
    new = torch.addcmul(from_input[..., 2 * width :], reset, from_state[..., 2 * width :]).tanh()
    return torch.lerp(new, state, update)


def _affine_maps(layer: nn.Module) -> list[Affine]:
    """Return weight and bias for the input of a layer and, of a GRU, those for its state."""
    if isinstance(layer, nn.GRUCell):
        return [(layer.weight_ih, layer.bias_ih), (layer.weight_hh, layer.bias_hh)]
    assert isinstance(layer, nn.Linear)
    return [(layer.weight, layer.bias)]


def _project_inputs(
    cells: Sequence[PlacedCell], xs: Mapping[str, Tensor], context: int
) -> Float[Tensor, "module steps width"]:
    """Return the task inputs of all steps times their weights, plus the bias of the first layer."""
    x = next(iter(xs.values()))
    projected = []
    for cell in cells:
        weight, bias = _affine_maps(batchable_layers(cell)[0])[0]
        if cell.inputs:
            sums = nn.functional.linear(xs[cell.name], weight[:, context:], bias).to(bias.dtype)
        else:
            sums = bias.expand(x.shape[0], -1)
        projected.append(sums)
    return torch.stack(projected)


def _stack(maps: Sequence[Affine]) -> Affine:
    """Stack weights as (module, inputs, outputs) and biases as (module, 1, outputs)."""
    weights, biases = zip(*maps, strict=True)
    return torch.stack(weights).mT, rearrange(list(biases), "module outputs -> module 1 outputs")
