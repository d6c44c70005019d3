"""Weights as products need them, once a sequence: normalized, composed, stacked, gates in order.

Equal modules with static readings are a group, whose weights lie side by side. All readings of
all modules are one matrix, so that a step reads the center in one product. The gates of a GRU of
H units are four blocks: n, r, z, and n_h, the part of n that comes from the state and that r
scales. The product with the input adds to the first three, that with the state to the last three.
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

from thalnet_mtl.ops.layout import CellPlan, Layer, cell_plans, memoized, parameters_of
from thalnet_mtl.ops.reference import Cell, weights_of

FLAT = "module time batch width -> module (time batch) width"


@dataclass(eq=False)
class CellGroup:
    """Modules of the same reading, design and sizes, task inputs apart."""

    center: int
    read: slice  # columns of the matrix of all readings
    members: list[int] = field(default_factory=list)  # places among all modules
    parts: list[CellPlan] = field(default_factory=list)
    index: dict[torch.device, Tensor] = field(default_factory=dict)  # see ``placed``

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Those of each module."""
        return self.parts[0].layers

    @property
    def width(self) -> int:
        """Columns of a module in the matrix of all readings."""
        first = self.parts[0]
        return first.layers[0].width if self.composed else first.context

    @property
    def composed(self) -> bool:
        """Whether the reading is multiplied with the dense layer behind it."""
        return self.parts[0].composed

    @cached_property
    def span(self) -> slice | None:
        """All slots together, if they lie side by side."""
        slots = [part.slot for part in self.parts]
        beside = all(a.stop == b.start for a, b in itertools.pairwise(slots))
        same = len({slot.stop - slot.start for slot in slots}) == 1
        return slice(slots[0].start, slots[-1].stop) if beside and same else None

    @property
    def counts(self) -> list[int]:
        """Tensors of each layer, as prepared."""
        first = 1 if self.composed else 2
        return [3 if layer.gru else 2 if k else first for k, layer in enumerate(self.layers)]

    @property
    def kinds(self) -> int:
        """Parameters of a module."""
        scaled = self.parts[0].reading in ("weight_norm", "weight_norm_rows")
        return 1 + scaled + sum(4 if layer.gru else 2 for layer in self.layers)

    def places(self, device: torch.device) -> Tensor | None:
        """(module, 1, columns of R) positions in the center, one behind its end for absent ones."""
        if all(part.places == tuple(range(self.center)) for part in self.parts):
            return None
        if device not in self.index:
            rows = [[k if k >= 0 else self.center for k in part.places] for part in self.parts]
            self.index[device] = torch.tensor(rows, device=device)[:, None]
        return self.index[device]


def groups(cells: Sequence[Cell]) -> list[CellGroup]:
    """The modules by what they have in common."""
    found: dict[Any, CellGroup] = {}
    for k, part in enumerate(cell_plans(cells)):
        key = part.reading, len(part.places), part.context, part.layers
        group = found.setdefault(key, CellGroup(cells[-1].slot.stop, slice(0, 0)))
        group.members.append(k)
        group.parts.append(part)
    start = 0
    for group in found.values():
        group.read = slice(start, start + group.width * len(group.parts))
        start = group.read.stop
    return list(found.values())


def pack_weights(cells: Sequence[Cell]) -> tuple[Tensor, list[Tensor]]:
    """What all modules read, (center, columns), and the weights, layer by layer of each group.

    Those of a dense layer are W (module, inputs, width), left out where it is composed with the
    reading, and a bias (module, 1, width). Those of a GRU are W (module, inputs, 3 H), U (module,
    H, 3 H) and a bias (module, 1, 4 H).
    """
    of = memoized(cells, groups)
    read, *weights = PackWeights.apply(of, *_parameters(of, cells))
    return read, weights


def input_projections(cells: Sequence[Cell], xs: Mapping[str, Tensor]) -> list[Tensor | None]:
    """Task inputs times their weights, (time, batch, gates), by the modules of each group."""

    def drive(k: int) -> Tensor | None:
        cell = cells[k]
        if not cell.inputs:
            return None
        first = cell.design.stack[0]
        weight = parameters_of(first)[0][:, cell.context :]
        if isinstance(first, nn.GRUCell):
            weight = weight.roll(first.hidden_size, 0)
        return nn.functional.linear(xs[cell.name].transpose(0, 1), weight)

    return [drive(k) for group in memoized(cells, groups) for k in group.members]


class PackWeights(torch.autograd.Function):
    """One operation, with derivatives of its own: a hundred small ones would cost more."""

    @staticmethod
    def forward(ctx: Any, of: list[CellGroup], *parameters: Tensor) -> tuple[Tensor, ...]:
        kept: list[Tensor] = []
        read, flat = [], []
        for group, stacked in zip(of, _stacks(of, parameters), strict=True):
            weight, scale, rest = _split(group, stacked)
            matrix = weight if scale is None else weight * (scale / _norm(group, weight))
            places = group.places(weight.device)
            if places is not None:
                wide = weight.new_zeros(*weight.shape[:2], group.center + 1)
                matrix = wide.scatter_(2, places.expand_as(matrix), matrix)[..., :-1]
            rows = rest[0] @ matrix if group.composed else matrix
            read.append(rearrange(rows, "module width center -> center (module width)"))
            kept += [*stacked, matrix]
            for k, layer in enumerate(group.layers):
                if layer.gru:
                    from_input, from_state, one, other, *rest = rest
                    flat += [
                        from_input.roll(layer.width, 1).mT.contiguous(),
                        from_state.mT.contiguous(),
                        _four(one, other, layer.width)[:, None],
                    ]
                else:
                    matrix, bias, *rest = rest
                    flat += [] if k == 0 and group.composed else [matrix.mT.contiguous()]
                    flat.append(bias[:, None])
        ctx.of, ctx.shapes = of, [parameter.shape for parameter in parameters]
        ctx.save_for_backward(*kept)
        return torch.cat(read, 1), *flat

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_read: Tensor, *gradients: Tensor) -> tuple[Any, ...]:
        rest, kept = iter(gradients), iter(ctx.saved_tensors)
        found: list[Tensor] = []
        for group in ctx.of:
            *stacked, matrix = [next(kept) for _ in range(group.kinds + 1)]
            weight, scale, layers = _split(group, stacked)
            pattern = "center (module width) -> module width center"
            by_rows = rearrange(by_read[:, group.read], pattern, module=len(group.parts))
            composed = group.composed
            by_matrix = layers[0].mT @ by_rows if composed else by_rows
            places = group.places(weight.device)
            if places is not None:
                wide = nn.functional.pad(by_matrix, (0, 1))
                by_matrix = wide.gather(2, places.expand_as(weight))
            stacks = _by_reading(group, weight, scale, by_matrix)
            for k, layer in enumerate(group.layers):
                if layer.gru:
                    by_input, by_state, by_bias = next(rest), next(rest), next(rest)[:, 0]
                    width = layer.width
                    stacks += [by_input.mT.roll(-width, 1), by_state.mT]
                    stacks += [by_bias[:, : 3 * width].roll(-width, 1), by_bias[:, width:]]
                elif k == 0 and composed:
                    stacks += [by_rows @ matrix.mT, next(rest)[:, 0]]
                else:
                    stacks += [next(rest).mT, next(rest)[:, 0]]
            found += [gradient for stack in stacks for gradient in stack]
        return None, *(
            gradient
            if gradient.shape == shape
            else nn.functional.pad(gradient, (0, shape[1] - gradient.shape[1]))
            for gradient, shape in zip(found, ctx.shapes, strict=True)
        )


def over_time(
    x: Float[Tensor, "module time batch inputs"],
    g: Float[Tensor, "module time batch width"],
    narrow: torch.dtype,
) -> Float[Tensor, "module inputs width"]:
    """Sums over time and batch of all products."""
    wide = rearrange(x.to(narrow), FLAT).mT @ rearrange(g.to(narrow), FLAT)
    return wide.to(x.dtype)


def _parameters(of: Sequence[CellGroup], cells: Sequence[Cell]) -> list[Tensor]:
    """Those of all modules: by group, by kind, by module."""
    found: list[Tensor] = []
    for group in of:
        rows = []
        for k, part in zip(group.members, group.parts, strict=True):
            reading, design = cells[k].reading, cells[k].design
            given = part.reading == "given"
            row = [weights_of(cells[k])] if given else [*reading.parameters(recurse=False)]
            row += [weight for layer in design.stack for weight in parameters_of(layer)]
            rows.append(row)
        found += [tensor for kind in zip(*rows, strict=True) for tensor in kind]
    return found


def _stacks(of: Sequence[CellGroup], parameters: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Parameters of a group, (module, …) each; of the first layer without the task input."""
    rest = iter(parameters)
    for group in of:
        stacked = []
        for kind in range(group.kinds):
            tensors = [next(rest) for _ in group.parts]
            if kind == (group.kinds - sum(4 if layer.gru else 2 for layer in group.layers)):
                tensors = [tensor[:, : group.parts[0].context] for tensor in tensors]
            stacked.append(torch.stack(tensors))
        yield stacked


def _split(
    group: CellGroup, stacked: Sequence[Tensor]
) -> tuple[Tensor, Tensor | None, list[Tensor]]:
    """The weight of the readings, their scale as (module, …, 1) if they have one, the layers."""
    weight, *rest = stacked
    if group.parts[0].reading == "weight_norm":
        return weight, rest[0][:, None, None], rest[1:]
    if group.parts[0].reading == "weight_norm_rows":
        return weight, rest[0], rest[1:]
    return weight, None, rest


def _norm(group: CellGroup, weight: Tensor) -> Tensor:
    whole = group.parts[0].reading == "weight_norm"
    return torch.linalg.vector_norm(weight, dim=(1, 2) if whole else 2, keepdim=True)


def _by_reading(
    group: CellGroup, weight: Tensor, scale: Tensor | None, by_matrix: Tensor
) -> list[Tensor]:
    """R = s W / ‖W‖: dW = s (dR − ⟨dR, W⟩ W / ‖W‖²) / ‖W‖ and ds = ⟨dR, W⟩ / ‖W‖."""
    if scale is None:
        return [by_matrix]
    whole = group.parts[0].reading == "weight_norm"
    norm = _norm(group, weight)
    along = (by_matrix * weight).sum((1, 2) if whole else 2, keepdim=True)
    by_weight = scale / norm * (by_matrix - along / norm.square() * weight)
    by_scale = along / norm
    return [by_weight, by_scale.flatten() if whole else by_scale]


def _four(one: Tensor, other: Tensor, width: int) -> Tensor:
    """Biases of input and state (module, 3 H), in the order r, z, n, as [n | r | z | n_h]."""
    rolled = one.roll(width, 1)
    both = rolled[:, width:] + other[:, : 2 * width]
    return torch.cat([rolled[:, :width], both, other[:, 2 * width :]], 1)
