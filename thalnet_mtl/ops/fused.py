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
from torch import Tensor
from torch.autograd.function import once_differentiable

from thalnet_mtl.ops.plan import once, unusual
from thalnet_mtl.ops.prepare import Group, drives, groups, prepare
from thalnet_mtl.ops.reference import Cell

BY_MODULE = "time batch (module width) -> time module batch width"


def declines(cells: Sequence[Cell], like: Tensor) -> str | None:
    """Why these modules cannot run here, if they cannot."""
    return once(cells, _unfit)


def _unfit(cells: Sequence[Cell]) -> str | None:
    for cell in cells:
        if cell.reading.dynamic:
            return f"module '{cell.name}' has a dynamic reading"
    return unusual(cells)


def sequence(
    cells: Sequence[Cell],
    xs: Mapping[str, Float[Tensor, "batch time _"]],
    center: Float[Tensor, "batch center"],
    memory: Float[Tensor, "batch memory"],
) -> tuple[Float[Tensor, "batch time center"], Float[Tensor, "batch memory"]]:
    """As ``reference.sequence``."""
    of, device = once(cells, groups), center.device.type
    narrow = center.dtype
    if torch.is_autocast_enabled(device):
        narrow = torch.get_autocast_dtype(device)
    time = next(iter(xs.values())).shape[1]
    with torch.autocast(device, enabled=False):
        read, weights = prepare(cells)
        driven = drives(cells, xs)
        return Node.apply(of, time, narrow, center, memory, read, *driven, *weights)


class Node(torch.autograd.Function):
    """The sequence, and its derivatives. Products are computed in ``narrow``, all else is not."""

    @staticmethod
    def forward(
        ctx: Any,
        of: Sequence[Group],
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
            accumulate(columns[t], before, read)
            for lane in lanes:
                lane.step(t, centers[t])
            before = centers[t]
        last = torch.empty_like(memory)
        for lane in lanes:
            lane.remember(last)
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
            lane.turn(by_columns, by_memory)
        by_center = torch.zeros_like(center)
        for t in reversed(range(time)):
            if by_centers is not None:
                by_center = by_center + by_centers[:, t]
            for lane in ctx.lanes:
                lane.back(t, by_center)
            by_center = (by_columns[t].to(read.dtype) @ read.mT).to(center.dtype)
        before = torch.cat([center[None], centers[:-1]])
        by_read = over_time(before[:, None], by_columns[:, None], read.dtype)[0]
        for lane in ctx.lanes:
            lane.forget(by_memory)
        driven = [tensor for lane in ctx.lanes for tensor in lane.by_drives()]
        weights = [tensor for lane in ctx.lanes for tensor in lane.by_weights()]
        return None, None, None, by_center, by_memory, by_read, *driven, *weights


class Lane:
    """A group on its way through time: its activations, then its gradients, (time, module, …)."""

    def __init__(
        self,
        group: Group,
        columns: Float[Tensor, "time batch columns"],
        narrow: torch.dtype,
        driven: Sequence[Tensor | None],
        weights: Sequence[Sequence[Tensor]],
    ):
        self.group, self.narrow, self.driven = group, narrow, driven
        self.products = [[weight.to(narrow) for weight in layer[:-1]] for layer in weights]
        modules, (time, batch, _) = len(group.parts), columns.shape
        self.seen = rearrange(columns[..., group.read], BY_MODULE, module=modules)
        self.acts: list[Tensor] = []
        whole = torch.contiguous_format
        self.states: list[Tensor | None] = []
        for k, layer in enumerate(group.layers):
            bias = weights[k][-1]
            if k == 0 and group.composed:
                act = self.seen.copy_(bias)
            else:
                act = bias.expand(time, modules, batch, -1).clone(memory_format=whole)
            self.acts.append(act)
            shape = time + 1, modules, batch, layer.width
            self.states.append(bias.new_empty(shape) if layer.gru else None)
        for m, drive in enumerate(driven):
            if drive is not None:
                self.acts[0][:, m, :, : drive.shape[-1]] += drive

    def kept(self) -> Iterator[tuple[Tensor, list[slice]]]:
        """The states of every GRU, and where each module has them in the memory."""
        start = [part.keep.start for part in self.group.parts]
        for layer, states in zip(self.group.layers, self.states, strict=True):
            if states is not None:
                stop = [k + layer.width for k in start]
                yield states, [slice(*ends) for ends in zip(start, stop, strict=True)]
                start = stop

    def begin(self, memory: Float[Tensor, "batch memory"]) -> None:
        """Take the states before the first step."""
        for states, places in self.kept():
            torch.stack([memory[:, place] for place in places], out=states[0])

    def remember(self, memory: Float[Tensor, "batch memory"]) -> None:
        """Leave the states after the last step."""
        for states, places in self.kept():
            for state, place in zip(states[-1], places, strict=True):
                memory[:, place] = state

    def step(self, t: int, center: Float[Tensor, "batch center"]) -> None:
        """From what was read at a step to the features, into the center."""
        x = self.seen[t]
        for layer, act, states, weights in self._layers():
            a = act[t]
            if states is not None:
                width = layer.width
                accumulate(a[..., : 3 * width], x, weights[0])
                accumulate(a[..., width:], states[t], weights[1])
                a[..., width : 3 * width].sigmoid_()
                new, reset, update, inner = a.chunk(4, -1)
                new.addcmul_(reset, inner).tanh_()
                x = torch.lerp(new, states[t], update, out=states[t + 1])
            else:
                if weights:
                    accumulate(a, x, weights[0])
                x = a.tanh_()
        for phi, part in zip(x, self.group.parts, strict=True):
            center[:, part.slot] = phi

    def turn(self, by_columns: Tensor, by_memory: Float[Tensor, "batch memory"]) -> None:
        """Prepare the way back: factors of all steps at once, gradients of the last states."""
        modules = len(self.group.parts)
        self.by_seen = rearrange(by_columns[..., self.group.read], BY_MODULE, module=modules)
        self.gradients: list[Tensor] = []
        self.factors: list[tuple[Tensor, ...]] = []
        self.by_states: list[Tensor] = []
        for _, act, states, weights in self._layers():
            self.gradients.append(torch.empty_like(act) if weights else self.by_seen)
            if states is None:
                self.factors.append((1 - act.square(),))
                continue
            new, reset, update, inner = act.chunk(4, -1)
            self.factors.append(
                (
                    (1 - update) * (1 - new.square()),
                    inner * reset * (1 - reset),
                    (states[:-1] - new) * update * (1 - update),
                )
            )
        for _, places in self.kept():
            self.by_states.append(torch.stack([by_memory[:, place] for place in places]))

    def back(self, t: int, by_center: Float[Tensor, "batch center"]) -> None:
        """From gradients by the features of a step to those by what was read."""
        by = torch.stack([by_center[:, part.slot] for part in self.group.parts])
        state = len(self.by_states)
        for k in reversed(range(len(self.acts))):
            layer, weights = self.group.layers[k], self.products[k]
            g = self.gradients[k][t]
            if layer.gru:
                state -= 1
                width = layer.width
                a, factors = self.acts[k][t], [factor[t] for factor in self.factors[k]]
                by = by + self.by_states[state]
                torch.mul(by, factors[0], out=g[..., :width])
                torch.mul(g[..., :width], factors[1], out=g[..., width : 2 * width])
                torch.mul(by, factors[2], out=g[..., 2 * width : 3 * width])
                torch.mul(g[..., :width], a[..., width : 2 * width], out=g[..., 3 * width :])
                carried = by * a[..., 2 * width : 3 * width]
                accumulate(carried, g[..., width:], weights[1].mT)
                self.by_states[state] = carried
                g = g[..., : 3 * width]
            else:
                torch.mul(by, self.factors[k][0][t], out=g)
            if weights:
                by = (g.to(self.narrow) @ weights[0].mT).to(by.dtype)
                if k == 0:
                    self.by_seen[t] = by

    def forget(self, by_memory: Float[Tensor, "batch memory"]) -> None:
        """Leave the gradients by the states before the first step."""
        for (_, places), by in zip(self.kept(), self.by_states, strict=True):
            for place, part in zip(places, by, strict=True):
                by_memory[:, place] = part

    def by_drives(self) -> Iterator[Tensor | None]:
        """Gradients by the task inputs' part of the first pre-activations."""
        for m, drive in enumerate(self.driven):
            yield None if drive is None else self.gradients[0][:, m, :, : drive.shape[-1]]

    def by_weights(self) -> Iterator[Tensor]:
        """Gradients by the weights, in the order in which they were given."""
        x = self.seen
        for k, (layer, act, states, weights) in enumerate(self._layers()):
            g, width = self.gradients[k], layer.width
            if states is not None:
                yield over_time(x, g[..., : 3 * width], self.narrow)
                yield over_time(states[:-1], g[..., width:], self.narrow)
                x = states[1:]
            else:
                if weights:
                    yield over_time(x, g, self.narrow)
                x = act
            yield g.sum((0, 2))[:, None]

    def _layers(self) -> Iterator[tuple[Any, Tensor, Tensor | None, list[Tensor]]]:
        return zip(self.group.layers, self.acts, self.states, self.products, strict=True)


def accumulate(target: Tensor, x: Tensor, weight: Tensor) -> None:
    """target += x W, for one matrix or a batch of them, in the precision of W."""
    if weight.dtype == target.dtype:
        (target.addmm_ if x.ndim == 2 else target.baddbmm_)(x, weight)
    else:
        target += x.to(weight.dtype) @ weight


def over_time(
    x: Float[Tensor, "time module batch inputs"],
    g: Float[Tensor, "time module batch width"],
    narrow: torch.dtype,
) -> Float[Tensor, "module inputs width"]:
    """Sums over time and batch of all products."""
    pattern = "time module batch width -> module (time batch) width"
    wide = rearrange(x.to(narrow), pattern).mT @ rearrange(g.to(narrow), pattern)
    return wide.to(x.dtype)


def _lanes(
    of: Sequence[Group], columns: Tensor, narrow: torch.dtype, tensors: Sequence[Tensor | None]
) -> Iterator[Lane]:
    """The groups with what is theirs of a flat list: all drives first, then all weights."""
    rest: Iterator[Any] = iter(tensors)
    driven = [[next(rest) for _ in group.parts] for group in of]
    for group, own in zip(of, driven, strict=True):
        counts = group.counts
        yield Lane(group, columns, narrow, own, [[next(rest) for _ in range(n)] for n in counts])
