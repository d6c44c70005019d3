"""Weights in the form that fast backends multiply with, packed once for every sequence.

Equal modules with static readings form a group, whose weights are stacked. The readings of all
modules are one matrix, so that a step reads the center in one product. The gates of a GRU of H
units are four blocks: n, r, z, and n_h, the part of n that comes from the state and that r scales.
The product with the input adds to the first three, the product with the state to the last three.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from thalnet_mtl.ops.cell import Placement
from thalnet_mtl.ops.layout import KERNELS, CellPlan, Layer, cell_plans, layer_parameters, memoized
from thalnet_mtl.ops.reference import matrix


@dataclass(eq=False)
class CellGroup:
    """Modules of the same reading, design and sizes; their task inputs may differ.

    Args:
        center: width of the center.
        read: columns of the group in the matrix of all readings.
        members: indices of the modules in their placement, in the order of ``plans``.
    """

    center: int
    read: slice
    members: list[int] = field(default_factory=list)
    plans: list[CellPlan] = field(default_factory=list)
    _positions: dict[torch.device, Tensor] = field(default_factory=dict)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Layers of each module."""
        return self.plans[0].layers

    @property
    def width(self) -> int:
        """Columns of each module in the matrix of all readings."""
        return self.layers[0].width if self.composed else self.plans[0].context

    @property
    def composed(self) -> bool:
        """True if the reading is multiplied with the dense layer that reads the context."""
        return self.plans[0].composed

    @cached_property
    def span(self) -> slice | None:
        """Columns of all slots together; None if the slots are not contiguous."""
        slots = [plan.slot for plan in self.plans]
        contiguous = all(a.stop == b.start for a, b in itertools.pairwise(slots))
        equal = len({slot.stop - slot.start for slot in slots}) == 1
        return slice(slots[0].start, slots[-1].stop) if contiguous and equal else None

    @property
    def packed_counts(self) -> list[int]:
        """Number of packed tensors for each layer; see ``pack_weights``."""
        first = 1 if self.composed else 2
        return [3 if layer.gru else 2 if k else first for k, layer in enumerate(self.layers)]

    @property
    def parameter_count(self) -> int:
        """Number of parameter tensors of each module."""
        scaled = self.plans[0].kernel in ("weight_norm", "weight_norm_rows")
        return 1 + scaled + self.layer_parameter_count

    @property
    def layer_parameter_count(self) -> int:
        """Number of parameter tensors in the layers of each module."""
        return sum(4 if layer.gru else 2 for layer in self.layers)

    def positions(self, device: torch.device) -> Tensor | None:
        """Return the position in the center for every column of R, (module, 1, columns of R).

        Absent columns get the position ``center``, one past the end. None if all modules read the
        full center.
        """
        if all(plan.positions == tuple(range(self.center)) for plan in self.plans):
            return None
        if device not in self._positions:
            rows = [[k if k >= 0 else self.center for k in plan.positions] for plan in self.plans]
            self._positions[device] = torch.tensor(rows, device=device)[:, None]
        return self._positions[device]


def group_cells(placement: Placement) -> list[CellGroup]:
    """Group the modules by reading, design and sizes."""
    groups: dict[Any, CellGroup] = {}
    for k, plan in enumerate(cell_plans(placement)):
        key = plan.kernel, len(plan.positions), plan.context, plan.layers
        group = groups.setdefault(key, CellGroup(placement.center_width, slice(0, 0)))
        group.members.append(k)
        group.plans.append(plan)
    start = 0
    for group in groups.values():
        group.read = slice(start, start + group.width * len(group.plans))
        start = group.read.stop
    return list(groups.values())


def pack_weights(placement: Placement) -> tuple[Tensor, list[Tensor]]:
    """Return the matrix of all readings, (center, columns), and the weights of all layers.

    The weights come layer by layer of each group. A dense layer has W (module, inputs, width),
    absent where it is composed with the reading, and a bias (module, 1, width). A GRU has W
    (module, inputs, 3 H), U (module, H, 3 H) and a bias (module, 1, 4 H).
    """
    groups = memoized(placement, group_cells)
    read, *weights = PackWeights.apply(groups, *_parameters(groups, placement))
    return read, weights


def input_projections(placement: Placement, xs: Mapping[str, Tensor]) -> list[Tensor | None]:
    """Return task inputs (…, inputs) times their weights, (…, gates), in the order of groups."""

    def project(k: int) -> Tensor | None:
        cell = placement.cells[k]
        if not cell.inputs:
            return None
        first = cell.design.stack[0]
        weight = layer_parameters(first)[0][:, cell.context :]
        if isinstance(first, nn.GRUCell):
            weight = weight.roll(first.hidden_size, 0)
        return nn.functional.linear(xs[cell.name], weight)

    return [project(k) for group in memoized(placement, group_cells) for k in group.members]


class PackWeights(torch.autograd.Function):
    """Packing as one autograd node, since a hundred small nodes take longer than their work."""

    @staticmethod
    def forward(ctx: Any, groups: list[CellGroup], *parameters: Tensor) -> tuple[Tensor, ...]:
        saved: list[Tensor] = []
        read, packed = [], []
        for group, stacked in zip(groups, _stack_parameters(groups, parameters), strict=True):
            weight, scale, rest = _split(group, stacked)
            matrices = weight if scale is None else weight * (scale / _norm(group, weight))
            positions = group.positions(weight.device)
            if positions is not None:
                padded = weight.new_zeros(*weight.shape[:2], group.center + 1)
                index = positions.expand_as(matrices)
                matrices = padded.scatter_(2, index, matrices)[..., :-1]
            rows = rest[0] @ matrices if group.composed else matrices
            read.append(rearrange(rows, "module width center -> center (module width)"))
            saved += [*stacked, matrices]
            for k, layer in enumerate(group.layers):
                if layer.gru:
                    from_input, from_state, input_bias, state_bias, *rest = rest
                    packed += [
                        from_input.roll(layer.width, 1).mT.contiguous(),
                        from_state.mT.contiguous(),
                        _pack_gru_biases(input_bias, state_bias, layer.width)[:, None],
                    ]
                else:
                    weight, bias, *rest = rest
                    packed += [] if k == 0 and group.composed else [weight.mT.contiguous()]
                    packed.append(bias[:, None])
        ctx.groups, ctx.shapes = groups, [parameter.shape for parameter in parameters]
        ctx.save_for_backward(*saved)
        return torch.cat(read, 1), *packed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_read: Tensor, *grad_packed: Tensor) -> tuple[Any, ...]:
        grads, saved = iter(grad_packed), iter(ctx.saved_tensors)
        grad_parameters: list[Tensor] = []
        for group in ctx.groups:
            *stacked, matrices = [next(saved) for _ in range(group.parameter_count + 1)]
            weight, scale, layers = _split(group, stacked)
            pattern = "center (module width) -> module width center"
            grad_rows = rearrange(grad_read[:, group.read], pattern, module=len(group.plans))
            composed = group.composed
            grad_matrices = layers[0].mT @ grad_rows if composed else grad_rows
            positions = group.positions(weight.device)
            if positions is not None:
                padded = nn.functional.pad(grad_matrices, (0, 1))
                grad_matrices = padded.gather(2, positions.expand_as(weight))
            grad_stacks = _reading_gradients(group, weight, scale, grad_matrices)
            for k, layer in enumerate(group.layers):
                if layer.gru:
                    grad_input, grad_state, grad_bias = next(grads), next(grads), next(grads)[:, 0]
                    width = layer.width
                    grad_stacks += [grad_input.mT.roll(-width, 1), grad_state.mT]
                    grad_stacks += [grad_bias[:, : 3 * width].roll(-width, 1), grad_bias[:, width:]]
                elif k == 0 and composed:
                    grad_stacks += [grad_rows @ matrices.mT, next(grads)[:, 0]]
                else:
                    grad_stacks += [next(grads).mT, next(grads)[:, 0]]
            grad_parameters += [gradient for stack in grad_stacks for gradient in stack]
        return None, *(
            gradient
            if gradient.shape == shape
            else nn.functional.pad(gradient, (0, shape[1] - gradient.shape[1]))
            for gradient, shape in zip(grad_parameters, ctx.shapes, strict=True)
        )


def weight_gradient(
    x: Float[Tensor, "module *steps inputs"],
    grad: Float[Tensor, "module *steps width"],
    dtype: torch.dtype,
) -> Float[Tensor, "module inputs width"]:
    """Return xᵀ grad, summed over all steps, with products in ``dtype``."""
    product = x.to(dtype).flatten(1, -2).mT @ grad.to(dtype).flatten(1, -2)
    return product.to(x.dtype)


def _parameters(groups: Sequence[CellGroup], placement: Placement) -> list[Tensor]:
    """Return the parameters of all modules, ordered by group, then parameter, then module."""
    parameters: list[Tensor] = []
    for group in groups:
        rows = []
        for k, plan in zip(group.members, group.plans, strict=True):
            cell = placement.cells[k]
            names = KERNELS[plan.kernel] if plan.kernel else ()
            row = [getattr(cell.reading, name) for name in names] or [matrix(cell)]
            row += [weight for layer in cell.design.stack for weight in layer_parameters(layer)]
            rows.append(row)
        parameters += [tensor for column in zip(*rows, strict=True) for tensor in column]
    return parameters


def _stack_parameters(
    groups: Sequence[CellGroup], parameters: Sequence[Tensor]
) -> Iterator[list[Tensor]]:
    """Yield the parameters of each group, (module, …); the first layer without its task input."""
    remaining = iter(parameters)
    for group in groups:
        stacked = []
        for k in range(group.parameter_count):
            tensors = [next(remaining) for _ in group.plans]
            if k == group.parameter_count - group.layer_parameter_count:
                tensors = [tensor[:, : group.plans[0].context] for tensor in tensors]
            stacked.append(torch.stack(tensors))
        yield stacked


def _split(
    group: CellGroup, stacked: Sequence[Tensor]
) -> tuple[Tensor, Tensor | None, list[Tensor]]:
    """Return weights of the readings, scales (module, …, 1) or None, and tensors of the layers."""
    weight, *rest = stacked
    if group.plans[0].kernel == "weight_norm":
        return weight, rest[0][:, None, None], rest[1:]
    if group.plans[0].kernel == "weight_norm_rows":
        return weight, rest[0], rest[1:]
    return weight, None, rest


def _norm(group: CellGroup, weight: Tensor) -> Tensor:
    one_norm = group.plans[0].kernel == "weight_norm"
    return torch.linalg.vector_norm(weight, dim=(1, 2) if one_norm else 2, keepdim=True)


def _reading_gradients(
    group: CellGroup, weight: Tensor, scale: Tensor | None, grad_matrices: Tensor
) -> list[Tensor]:
    """Return the gradients of weight and scale from those of R.

    R = s W / ‖W‖: dW = s (dR − ⟨dR, W⟩ W / ‖W‖²) / ‖W‖ and ds = ⟨dR, W⟩ / ‖W‖.
    """
    if scale is None:
        return [grad_matrices]
    one_norm = group.plans[0].kernel == "weight_norm"
    norm = _norm(group, weight)
    inner = (grad_matrices * weight).sum((1, 2) if one_norm else 2, keepdim=True)
    grad_weight = scale / norm * (grad_matrices - inner / norm.square() * weight)
    grad_scale = inner / norm
    return [grad_weight, grad_scale.flatten() if one_norm else grad_scale]


def _pack_gru_biases(input_bias: Tensor, state_bias: Tensor, width: int) -> Tensor:
    """Return [n | r | z | n_h] from the biases (module, 3 H) of input and state, each r, z, n."""
    rolled = input_bias.roll(width, 1)
    sums = rolled[:, width:] + state_bias[:, : 2 * width]
    return torch.cat([rolled[:, :width], sums, state_bias[:, 2 * width :]], 1)
