"""The loop of the fused backend over the steps of equal modules, forward and backward."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from thalnet_mtl.ops.layout import gather, scatter, split_slots
from thalnet_mtl.ops.lengths import Packing
from thalnet_mtl.ops.packed_weights import CellGroup, weight_gradient


class GroupLoop:
    """The loop over time of one group of equal modules.

    A forward pass calls ``load_states``, ``step`` for every step, and ``store_states``. A backward
    pass calls ``start_backward``, ``backward_step`` for every step in reverse, and then
    ``store_state_gradients``, ``projection_gradients`` and ``weight_gradients``.

    Args:
        group: the modules.
        packing: which sequences have which steps.
        columns: the columns of all groups that are read from the center, packed.
        dtype: the type in which products are computed.
        projections: projected task inputs of each module, packed; None for a module without.
        weights: packed tensors of each layer, its bias last; see ``pack_weights``.
    """

    def __init__(
        self,
        group: CellGroup,
        packing: Packing,
        columns: Float[Tensor, "steps columns"],
        dtype: torch.dtype,
        projections: Sequence[Tensor | None],
        weights: Sequence[Sequence[Tensor]],
    ):
        self.group, self.packing, self.dtype = group, packing, dtype
        self.projections = projections
        self.products = [[weight.to(dtype) for weight in layer[:-1]] for layer in weights]
        self.biases = [layer[-1] for layer in weights]
        self.columns = columns[..., group.read]
        self.slots = [plan.slot for plan in group.plans]
        self.states: list[Tensor] = []
        # For every layer the activations of every step, outputs first.
        self.activations: list[list[Any]] = [[] for _ in group.layers]
        if group.composed:
            self.columns += self.biases[0].flatten()
            for m, projection in enumerate(projections):
                if projection is not None:
                    split_slots(self.columns, len(projections))[m].add_(projection)
        self.steps = packing.split(self.columns)
        self.projected = [None if x is None else packing.split(x) for x in projections]

    @property
    def state_slots(self) -> list[list[slice]]:
        """Columns of the memory with the states of each GRU, for every module."""
        start, slots = [plan.memory.start for plan in self.group.plans], []
        for width in (layer.width for layer in self.group.layers if layer.gru):
            slots.append([slice(k, k + width) for k in start])
            start = [k + width for k in start]
        return slots

    def load_states(self, memory: Float[Tensor, "batch memory"]) -> None:
        """Read the states before the first step from a memory."""
        self.states = [gather(memory, slots) for slots in self.state_slots]

    def drop_ended(self, rows: int) -> None:
        """Drop the states of all sequences but the first ``rows``, which have the next step."""
        self.states = [state[:, :rows] for state in self.states]

    def step(self, t: int, center: Float[Tensor, "rows center"]) -> None:
        """Compute the features of step ``t`` from what was read and write them to ``center``."""
        x, count = split_slots(self.steps[t], len(self.projections)), 0
        layers = zip(self.products, self.activations, strict=True)
        for k, (weights, activations) in enumerate(layers):
            if not weights:
                self.steps[t].tanh_()
                activations.append((x,))
                continue
            width, bias = self.group.layers[k].width, self.biases[k]
            sums = _affine(bias[..., : 3 * width], x, weights[0])
            if k == 0:
                for m, projected in enumerate(self.projected):
                    if projected is not None:
                        sums[m] += projected[t]
            if len(weights) == 1:
                x = sums.tanh_()
                activations.append((x,))
                continue
            state, count = self.states[count], count + 1
            inner = _affine(
                nn.functional.pad(bias[..., 3 * width :], (2 * width, 0)), state, weights[1]
            )
            gates = torch.add(sums[..., width:], inner[..., : 2 * width]).sigmoid_()
            reset, update = gates.chunk(2, -1)
            inner = inner[..., 2 * width :]
            new = torch.addcmul(sums[..., :width], reset, inner).tanh_()
            x = self.states[count - 1] = torch.lerp(new, state, update)
            activations.append((x, state, new, reset, update, inner))
        scatter(x, center, self.slots, self.group.span)

    def store_states(self, memory: Float[Tensor, "batch memory"]) -> None:
        """Write the states after the last step of every sequence to a memory."""
        layers = zip(self.products, self.activations, strict=True)
        outputs = ([step[0] for step in a] for weights, a in layers if len(weights) == 2)
        for states, slots in zip(outputs, self.state_slots, strict=True):
            scatter(self.packing.last(states), memory, slots)

    def start_backward(
        self, grad_columns: Float[Tensor, "steps _"], grad_memory: Float[Tensor, "batch memory"]
    ) -> None:
        """Allocate gradients w.r.t. pre-activations; read those w.r.t. the last states."""
        modules = len(self.group.plans)
        grad_columns = grad_columns[..., self.group.read]
        self.grad_sums = [
            split_slots(grad_columns, modules)
            if not weights
            else grad_columns.new_empty(
                modules, len(grad_columns), (3 * len(weights) - 2) * layer.width
            )
            for layer, weights in zip(self.group.layers, self.products, strict=True)
        ]
        self.grad_steps = self.packing.split(grad_columns)
        self.grad_sum_steps = [self.packing.split(grad) for grad in self.grad_sums]
        self.grad_last = [gather(grad_memory, slots) for slots in self.state_slots]
        self.grad_states = self.grad_last

    def backward_step(self, t: int, grad_center: Float[Tensor, "rows center"]) -> None:
        """Compute the gradients w.r.t. what was read at step ``t``, from those w.r.t. features."""
        grad = gather(grad_center, self.slots, self.group.span)
        count = len(self.grad_states)
        pairs = zip(self.grad_states, self.grad_last, strict=True)
        self.grad_states = [self.packing.with_ending(t, *pair) for pair in pairs]
        for weights, activations, grad_sums in reversed(
            list(zip(self.products, self.activations, self.grad_sum_steps, strict=True))
        ):
            g = grad_sums[t]
            if len(weights) == 2:
                count -= 1
                grad = grad + self.grad_states[count]
                grad_state = _gates_backward(grad, g, *activations[t][1:])
                width = grad_state.shape[-1]
                self.grad_states[count] = _affine(grad_state, g[..., width:], weights[1].mT)
                g = g[..., : 3 * width]
            else:
                torch.ops.aten.tanh_backward.grad_input(grad, activations[t][0], grad_input=g)
            if weights:
                grad = (g.to(self.dtype) @ weights[0].mT).to(grad.dtype)
        if not self.group.composed:
            split_slots(self.grad_steps[t], len(grad)).copy_(grad)

    def store_state_gradients(self, grad_memory: Float[Tensor, "batch memory"]) -> None:
        """Write the gradients w.r.t. the states before the first step."""
        for grad, slots in zip(self.grad_states, self.state_slots, strict=True):
            scatter(grad, grad_memory, slots)

    def projection_gradients(self) -> Iterator[Tensor | None]:
        """Yield the gradients w.r.t. the projected task inputs, by module."""
        for m, projection in enumerate(self.projections):
            yield None if projection is None else self.grad_sums[0][m, ..., : projection.shape[-1]]

    def weight_gradients(self) -> Iterator[Tensor]:
        """Yield the gradients w.r.t. the packed weights, in their order."""
        x = split_slots(self.columns, len(self.projections))
        for weights, activations, g in zip(
            self.products, self.activations, self.grad_sums, strict=True
        ):
            outputs = torch.cat([step[0] for step in activations], 1) if weights else x
            if len(weights) == 2:
                width = outputs.shape[-1]
                states = torch.cat([step[1] for step in activations], 1)
                yield weight_gradient(x, g[..., : 3 * width], self.dtype)
                yield weight_gradient(states, g[..., width:], self.dtype)
            elif weights:
                yield weight_gradient(x, g, self.dtype)
            yield g.sum(1)[:, None]
            x = outputs


def _affine(start: Tensor, x: Tensor, weight: Tensor) -> Float[Tensor, "module batch width"]:
    """Return start + x W for every module, with the product in the type of W."""
    if weight.dtype == start.dtype:
        return torch.baddbmm(start, x, weight)
    return start + x.to(weight.dtype) @ weight


def _gates_backward(
    grad: Float[Tensor, "module batch width"],
    out: Float[Tensor, "module batch gates"],
    state: Tensor,
    new: Tensor,
    reset: Tensor,
    update: Tensor,
    inner: Tensor,
) -> Float[Tensor, "module batch width"]:
    """Write gradients w.r.t. the four blocks of pre-activations to ``out``.

    Returns the part of the gradient w.r.t. the state that does not pass through the gates.
    """
    grad_new, grad_reset, grad_update, grad_inner = out.chunk(4, -1)
    tanh_backward, sigmoid_backward = torch.ops.aten.tanh_backward, torch.ops.aten.sigmoid_backward
    grad_sum = tanh_backward(torch.addcmul(grad, grad, update, value=-1), new)
    grad_new.copy_(grad_sum)
    sigmoid_backward.grad_input(grad_sum * inner, reset, grad_input=grad_reset)
    sigmoid_backward.grad_input((state - new).mul_(grad), update, grad_input=grad_update)
    torch.mul(grad_sum, reset, out=grad_inner)
    return grad * update
