"""The sequence with equal modules batched: few large products a step instead of many small ones.

Modules of a step are independent given the previous center, so modules of the same design and sizes
run as one batched matrix product. Three things are done once a sequence instead of once a step:
weights are normalized and stacked, task inputs are projected, and a static reading is composed with
the dense layer that reads the context, ``W (R Φ) = (W R) Φ``. Modules with a dynamic reading or a
custom design run one by one, as in the reference.
"""

from collections.abc import Mapping, Sequence

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from thalnet_mtl.ops.cell import PlacedCell, Placement
from thalnet_mtl.ops.layout import is_plain_stack
from thalnet_mtl.ops.lengths import Lengths, past_end, zero_past_end
from thalnet_mtl.ops.reference import Outcome, advance, keep, matrix, select_slots, unsupported

__all__ = ["sequence", "unsupported"]

Affine = tuple[Tensor, Tensor]  # weight and bias


class BatchedCells:
    """Equal modules with static readings, their weights stacked for one sequence."""

    def __init__(self, cells: Sequence[PlacedCell], xs: Mapping[str, Tensor], center: int):
        self.cells = cells
        readings = torch.stack([_full_matrix(cell, center) for cell in cells])
        context = readings.shape[1]
        layers = [[_affine_maps(layer) for layer in batchable_layers(cell)] for cell in cells]
        first = torch.stack([layer[0][0][0][:, :context] for layer in layers])
        self.composed = isinstance(batchable_layers(cells[0])[0], nn.Linear)
        self.read = (first @ readings if self.composed else readings).mT
        self.first = first.mT
        self.projected = _project_inputs(cells, xs, context).unbind(0)
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
    xs = {name: zero_past_end(x, lengths) for name, x in xs.items()}
    groups = [BatchedCells(equal, xs, center.shape[1]) for equal in group_equal(cells)]
    single = [cell for cell in cells if not batchable_layers(cell)]
    static = {cell.name: None if cell.reading.dynamic else matrix(cell) for cell in single}
    time = next(iter(xs.values())).shape[1]
    past = None if lengths is None else past_end(lengths, time)
    stacked = [torch.stack([memory[:, cell.memory] for cell in group.cells]) for group in groups]
    memories = {cell.name: memory[:, cell.memory] for cell in single}
    centers = []
    for t in range(time):
        features: dict[str, Tensor] = {}
        for k, group in enumerate(groups):
            phi, states = group.step(t, center, stacked[k])
            stacked[k] = keep(past, t, stacked[k], states)
            features |= zip((cell.name for cell in group.cells), phi.unbind(0), strict=True)
        for cell in single:
            x = xs[cell.name][:, t] if cell.inputs else None
            state = memories[cell.name]
            features[cell.name], after = advance(cell, static[cell.name], x, center, state)
            memories[cell.name] = keep(past, t, state, after)
        phi = torch.cat([features[cell.name] for cell in cells], dim=-1).to(center.dtype)
        center = keep(past, t, center, phi)
        centers.append(center)
    for group, states in zip(groups, stacked, strict=True):
        memories |= zip((cell.name for cell in group.cells), states.unbind(0), strict=True)
    last = torch.cat([memories[cell.name] for cell in cells], dim=-1).to(memory.dtype)
    ys = torch.stack([select_slots(center, outputs) for center in centers], dim=1)
    return zero_past_end(ys, lengths), center, last


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
            (type(layer), [w.shape for w in layer.parameters()]) for layer in batchable_layers(cell)
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


def _full_matrix(cell: PlacedCell, center: int) -> Float[Tensor, "context center"]:
    """Return R over the full center, zero at positions that the module may not read."""
    weights = matrix(cell)
    if cell.visible is None:
        return weights
    visible = torch.tensor(cell.visible, dtype=torch.long, device=weights.device)
    return weights.new_zeros(len(weights), center).index_copy(1, visible, weights)


def _affine_maps(layer: nn.Module) -> list[Affine]:
    """Return weight and bias for the input of a layer and, of a GRU, those for its state."""
    if isinstance(layer, nn.GRUCell):
        return [(layer.weight_ih, layer.bias_ih), (layer.weight_hh, layer.bias_hh)]
    assert isinstance(layer, nn.Linear)
    return [(layer.weight, layer.bias)]


def _project_inputs(
    cells: Sequence[PlacedCell], xs: Mapping[str, Tensor], context: int
) -> Float[Tensor, "time module batch width"]:
    """Return the task inputs of all steps times their weights, plus the bias of the first layer."""
    x = next(iter(xs.values()))
    projected = []
    for cell in cells:
        weight, bias = _affine_maps(batchable_layers(cell)[0])[0]
        if cell.inputs:
            sums = nn.functional.linear(xs[cell.name], weight[:, context:], bias)
        else:
            sums = bias.expand(*x.shape[:2], -1)
        projected.append(rearrange(sums, "batch time width -> time batch width").to(bias.dtype))
    return torch.stack(projected, dim=1)


def _stack(maps: Sequence[Affine]) -> Affine:
    """Stack weights as (module, inputs, outputs) and biases as (module, 1, outputs)."""
    weights, biases = zip(*maps, strict=True)
    return torch.stack(weights).mT, rearrange(list(biases), "module outputs -> module 1 outputs")
