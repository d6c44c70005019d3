"""The sequence as one node for autograd, in PyTorch alone: for every device.

Autograd never sees the loop over time. The forward keeps activations; the backward goes through
the steps once, for the gradients by pre-activations, and has all gradients by weights as large
products over time and batch afterwards.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from thalnet_mtl.ops.layout import by_slot, gather, memoized, scatter, unsupported_design
from thalnet_mtl.ops.packed_weights import (
    FLAT,
    CellGroup,
    groups,
    input_projections,
    over_time,
    pack_weights,
)
from thalnet_mtl.ops.reference import Cell, Outcome


def unsupported(cells: Sequence[Cell], like: Tensor) -> str | None:
    """Why these modules cannot run here, if they cannot."""
    return _unfit(cells)


def _unfit(cells: Sequence[Cell]) -> str | None:
    for cell in cells:
        if cell.reading.dynamic:
            return f"module '{cell.name}' has a dynamic reading"
    return unsupported_design(cells)


def sequence(
    cells: Sequence[Cell],
    xs: Mapping[str, Float[Tensor, "batch time _"]],
    center: Float[Tensor, "batch center"],
    memory: Float[Tensor, "batch memory"],
    outputs: Sequence[slice],
) -> Outcome:
    """As ``reference.sequence``."""
    of, device = memoized(cells, groups), center.device.type
    narrow = center.dtype
    if torch.is_autocast_enabled(device):
        narrow = torch.get_autocast_dtype(device)
    time = next(iter(xs.values())).shape[1]
    with torch.autocast(device, enabled=False):
        read, weights = pack_weights(cells)
        driven = input_projections(cells, xs)
        centers, last = FusedSequence.apply(
            of, time, narrow, center, memory, read, *driven, *weights
        )
    ys = torch.cat([centers[..., place] for place in outputs], dim=-1)
    return ys, centers[:, -1].clone(), last  # whoever sets it back keeps the way back


class FusedSequence(torch.autograd.Function):
    """The sequence, and its derivatives. Products are computed in ``narrow``, all else is not."""

    @staticmethod
    def forward(
        ctx: Any,
        of: Sequence[CellGroup],
        time: int,
        narrow: torch.dtype,
        center: Tensor,
        memory: Tensor,
        read: Tensor,
        *tensors: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        batch = len(center)
        centers = center.new_empty(time, batch, center.shape[1])
        columns = center.new_zeros(time, batch, read.shape[1])
        read = read.to(narrow)
        lanes = list(_lanes(of, columns, narrow, tensors))
        for lane in lanes:
            lane.begin(memory)
        before = center
        for t in range(time):
            _add_product(columns[t], before, read)
            for lane in lanes:
                lane.step(t, centers[t])
            before = centers[t]
        last = torch.empty_like(memory)
        for lane in lanes:
            lane.store_states(last)
        ctx.of, ctx.narrow = of, narrow
        ctx.lanes, ctx.columns = lanes, columns
        ctx.save_for_backward(center, memory, read, centers)
        ctx.set_materialize_grads(False)
        return centers.transpose(0, 1), last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_centers: Tensor | None, by_last: Tensor | None) -> tuple[Any, ...]:
        center, memory, read, centers = ctx.saved_tensors
        time = len(centers)
        by_columns = torch.empty_like(ctx.columns)
        by_memory = torch.zeros_like(memory) if by_last is None else by_last.clone()
        for lane in ctx.lanes:
            lane.start_backward(by_columns, by_memory)
        by_center = torch.zeros_like(center)
        for t in reversed(range(time)):
            if by_centers is not None:
                by_center = by_center + by_centers[:, t]
            for lane in ctx.lanes:
                lane.backward_step(t, by_center)
            by_center = (by_columns[t].to(read.dtype) @ read.mT).to(center.dtype)
        before = torch.cat([center[None], centers[:-1]])
        by_read = over_time(before[None], by_columns[None], read.dtype)[0]
        for lane in ctx.lanes:
            lane.store_state_gradients(by_memory)
        driven = [tensor for lane in ctx.lanes for tensor in lane.by_drives()]
        weights = [tensor for lane in ctx.lanes for tensor in lane.by_weights()]
        return None, None, None, by_center, by_memory, by_read, *driven, *weights


class GroupLoop:
    """A group on its way through time and back."""

    def __init__(
        self,
        group: CellGroup,
        columns: Float[Tensor, "time batch columns"],
        narrow: torch.dtype,
        driven: Sequence[Tensor | None],
        weights: Sequence[Sequence[Tensor]],
    ):
        self.group, self.narrow, self.driven = group, narrow, driven
        self.products = [[weight.to(narrow) for weight in layer[:-1]] for layer in weights]
        self.biases = [layer[-1] for layer in weights]
        self.columns = columns[..., group.read]
        self.states: list[Tensor] = []
        self.tapes: list[list[Any]] = [[] for _ in group.layers]  # by layer, what a step leaves
        if group.composed:
            self.columns += self.biases[0].flatten()
            for m, drive in enumerate(driven):
                if drive is not None:
                    by_slot(self.columns, len(driven))[m].add_(drive)

    @property
    def places(self) -> list[list[slice]]:
        """Where the modules have the states of every GRU in the memory."""
        start, found = [part.keep.start for part in self.group.parts], []
        for width in (layer.width for layer in self.group.layers if layer.gru):
            found.append([slice(k, k + width) for k in start])
            start = [k + width for k in start]
        return found

    def begin(self, memory: Float[Tensor, "batch memory"]) -> None:
        """Take the states before the first step."""
        self.states = [gather(memory, places) for places in self.places]

    def step(self, t: int, center: Float[Tensor, "batch center"]) -> None:
        """From what was read at a step to the features, into the center."""
        x, count = by_slot(self.columns[t], len(self.driven)), 0
        for k, (weights, tape) in enumerate(zip(self.products, self.tapes, strict=True)):
            if not weights:
                self.columns[t].tanh_()
                tape.append((x,))
                continue
            width, bias = self.group.layers[k].width, self.biases[k]
            a = plus(bias[..., : 3 * width], x, weights[0])
            if k == 0:
                for m, drive in enumerate(self.driven):
                    if drive is not None:
                        a[m] += drive[t]
            if len(weights) == 1:
                x = a.tanh_()
                tape.append((x,))
                continue
            state, count = self.states[count], count + 1
            inner = plus(
                nn.functional.pad(bias[..., 3 * width :], (2 * width, 0)), state, weights[1]
            )
            both = torch.add(a[..., width:], inner[..., : 2 * width]).sigmoid_()
            reset, update = both.chunk(2, -1)
            inner = inner[..., 2 * width :]
            new = torch.addcmul(a[..., :width], reset, inner).tanh_()
            x = self.states[count - 1] = torch.lerp(new, state, update)
            tape.append((x, state, new, reset, update, inner))
        scatter(x, center, [part.slot for part in self.group.parts], self.group.span)

    def store_states(self, memory: Float[Tensor, "batch memory"]) -> None:
        """Leave the states after the last step."""
        for states, places in zip(self.states, self.places, strict=True):
            scatter(states, memory, places)

    def start_backward(self, by_columns: Tensor, by_memory: Float[Tensor, "batch memory"]) -> None:
        """Make room for gradients on the way back; take those by the last states."""
        modules, (time, batch, _) = len(self.group.parts), by_columns.shape
        self.by_columns = by_columns[..., self.group.read]
        self.gradients = [
            by_slot(self.by_columns, modules)
            if not weights
            else by_columns.new_empty(modules, time, batch, (3 * len(weights) - 2) * layer.width)
            for layer, weights in zip(self.group.layers, self.products, strict=True)
        ]
        self.by_states = [gather(by_memory, places) for places in self.places]

    def backward_step(self, t: int, by_center: Float[Tensor, "batch center"]) -> None:
        """From gradients by the features of a step to those by what was read."""
        by = gather(by_center, [part.slot for part in self.group.parts], self.group.span)
        count = len(self.by_states)
        for weights, tape, gradients in reversed(
            list(zip(self.products, self.tapes, self.gradients, strict=True))
        ):
            g = gradients[:, t]
            if len(weights) == 2:
                count -= 1
                by = by + self.by_states[count]
                carried = _gates_backward(by, g, *tape[t][1:])
                width = carried.shape[-1]
                self.by_states[count] = plus(carried, g[..., width:], weights[1].mT)
                g = g[..., : 3 * width]
            else:
                torch.ops.aten.tanh_backward.grad_input(by, tape[t][0], grad_input=g)
            if weights:
                by = (g.to(self.narrow) @ weights[0].mT).to(by.dtype)
        if not self.group.composed:
            by_slot(self.by_columns[t], len(by)).copy_(by)

    def store_state_gradients(self, by_memory: Float[Tensor, "batch memory"]) -> None:
        """Leave the gradients by the states before the first step."""
        for by, places in zip(self.by_states, self.places, strict=True):
            scatter(by, by_memory, places)

    def by_drives(self) -> Iterator[Tensor | None]:
        """Gradients by the task inputs' part of the first pre-activations."""
        for m, drive in enumerate(self.driven):
            yield None if drive is None else self.gradients[0][m, ..., : drive.shape[-1]]

    def by_weights(self) -> Iterator[Tensor]:
        """Gradients by the weights, in the order in which they were given."""
        x = by_slot(self.columns, len(self.driven))
        for weights, tape, g in zip(self.products, self.tapes, self.gradients, strict=True):
            outputs = torch.stack([step[0] for step in tape], 1) if weights else x
            if len(weights) == 2:
                width = outputs.shape[-1]
                states = torch.cat([tape[0][1][:, None], outputs[:, :-1]], 1)
                yield over_time(x, g[..., : 3 * width], self.narrow)
                yield over_time(states, g[..., width:], self.narrow)
            elif weights:
                yield over_time(x, g, self.narrow)
            yield rearrange(g, FLAT).sum(1)[:, None]
            x = outputs


def plus(start: Tensor, x: Tensor, weight: Tensor) -> Float[Tensor, "module batch width"]:
    """start + x W, for a batch of matrices, in the precision of W."""
    if weight.dtype == start.dtype:
        return torch.baddbmm(start, x, weight)
    return start + x.to(weight.dtype) @ weight


def _gates_backward(
    by: Float[Tensor, "module batch width"],
    out: Float[Tensor, "module batch gates"],
    state: Tensor,
    new: Tensor,
    reset: Tensor,
    update: Tensor,
    inner: Tensor,
) -> Float[Tensor, "module batch width"]:
    """Gradients by the four blocks of pre-activations, into ``out``; that by the state, so far."""
    by_new, by_reset, by_update, by_inner = out.chunk(4, -1)
    of_tanh, of_sigmoid = torch.ops.aten.tanh_backward, torch.ops.aten.sigmoid_backward
    fresh = of_tanh(torch.addcmul(by, by, update, value=-1), new)
    by_new.copy_(fresh)
    of_sigmoid.grad_input(fresh * inner, reset, grad_input=by_reset)
    of_sigmoid.grad_input((state - new).mul_(by), update, grad_input=by_update)
    torch.mul(fresh, reset, out=by_inner)
    return by * update


def _add_product(target: Tensor, x: Tensor, weight: Tensor) -> None:
    """target += x W, in the precision of W."""
    if weight.dtype == target.dtype:
        target.addmm_(x, weight)
    else:
        target += x.to(weight.dtype) @ weight


def _lanes(
    of: Sequence[CellGroup], columns: Tensor, narrow: torch.dtype, tensors: Sequence[Tensor | None]
) -> Iterator[GroupLoop]:
    """The groups with what is theirs of a flat list: all drives first, then all weights."""
    rest: Iterator[Any] = iter(tensors)
    driven = [[next(rest) for _ in group.parts] for group in of]
    for group, own in zip(of, driven, strict=True):
        counts = group.counts
        yield GroupLoop(
            group, columns, narrow, own, [[next(rest) for _ in range(n)] for n in counts]
        )
