"""Gradients that hand-written backward passes cannot give: to differentiate again, or many at once.

A hand-written backward pass computes numbers, whose own derivatives autograd does not know, from
gradients that are plain tensors. Second derivatives (``create_graph=True``) need more, and so do
batches of gradients (``is_grads_batched=True``). The sequence is then computed again in plain
PyTorch, from the tensors that it was computed from, and autograd differentiates that.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn

from thalnet_mtl.ops import batched
from thalnet_mtl.ops.cell import PlacedCell, Placement
from thalnet_mtl.ops.layout import KERNELS, kernel_of
from thalnet_mtl.ops.lengths import Lengths
from thalnet_mtl.ops.reference import Outcome, matrix

Tensors = Sequence[Tensor | None]
# A tensor that modules compute with: its owner and its name there. A matrix R that PyTorch computes
# is the tensor ``weights`` of its reading, and the factors of its columns are ``gates``.
Key = tuple[nn.Module, str]

METHODS = "weights", "gates"  # names of tensors that are results of methods


def hand_written(again: Callable[[Any, Tensors], Tensors]) -> Callable[..., Any]:
    """Decorate a backward pass that is not differentiable, and takes plain tensors only.

    Args:
        again: computes the same gradients by autograd, from the same arguments.
    """

    def decorate(backward: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(backward)
        def gradients(ctx: Any, *grads: Tensor | None) -> Any:
            if not torch.is_grad_enabled() and not any(map(_is_batch, grads)):
                return backward(ctx, *grads)
            return again(ctx, grads)

        return gradients

    return decorate


def by_autograd(
    function: Callable[..., Tensors], operands: Tensors, needed: Sequence[bool], grads: Tensors
) -> list[Tensor | None]:
    """Return the gradients w.r.t. the operands that are needed, from those w.r.t. the results.

    They can be differentiated again if autograd is on.
    """
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        inputs = [
            x if x is None or not need else x.view_as(x) if create_graph else x.detach()
            for x, need in zip(operands, needed, strict=True)
        ]
        wanted = [x for x, need in zip(inputs, needed, strict=True) if x is not None and need]
        for x in wanted:
            x.requires_grad_()
        pairs = [
            (result, grad)
            for result, grad in zip(function(*inputs), grads, strict=False)
            if result is not None and grad is not None and result.requires_grad
        ]
    if not pairs:
        return [None] * len(inputs)
    results, received = zip(*pairs, strict=True)
    found = iter(
        torch.autograd.grad(results, wanted, received, create_graph=create_graph, allow_unused=True)
    )
    return [
        next(found) if need and x is not None else None
        for x, need in zip(inputs, needed, strict=True)
    ]


def differentiable_again(
    outcome: Outcome,
    placement: Placement,
    xs: Mapping[str, Tensor],
    center: Tensor,
    memory: Tensor,
    outputs: Sequence[slice],
    lengths: Lengths | None = None,
) -> Outcome:
    """Return the results of a backend with gradients that can be differentiated again.

    The other arguments are those of ``reference.sequence``.
    """
    weights, device = placed_tensors(placement), center.device.type
    names, keys = tuple(xs), tuple(weights)
    autocast = torch.is_autocast_enabled(device)
    precision = torch.autocast(device, torch.get_autocast_dtype(device), autocast)

    def compute(center: Tensor, memory: Tensor, *tensors: Tensor) -> Outcome:
        inputs = dict(zip(names, tensors, strict=False))
        placed = with_tensors(placement, dict(zip(keys, tensors[len(names) :], strict=True)))
        with precision:
            return batched.sequence(placed, inputs, center, memory, outputs, lengths)

    operands = center, memory, *xs.values(), *weights.values()
    if not any(tensor.requires_grad for tensor in operands):
        return outcome
    ys, end, last = PassThrough.apply(compute, len(outcome), *outcome, *operands)
    return ys, end, last


class PassThrough(torch.autograd.Function):
    """The results of a backend as they are, with gradients by autograd where only that can.

    Its arguments are a function that computes the results from some operands, the number of
    results, the results of the backend, and the operands.
    """

    @staticmethod
    def forward(
        ctx: Any, function: Callable[..., Tensors], count: int, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.function, ctx.count = function, count
        ctx.save_for_backward(*tensors[count:])
        ctx.set_materialize_grads(False)
        return tuple(result.detach() for result in tensors[:count])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        needed = ctx.needs_input_grad[2 + ctx.count :]
        if not torch.is_grad_enabled() and not any(map(_is_batch, grads)):
            return None, None, *grads, *[None] * len(needed)
        found = by_autograd(ctx.function, ctx.saved_tensors, needed, grads)
        return None, None, *[None] * ctx.count, *found


def placed_tensors(placement: Placement) -> dict[Key, Tensor]:
    """Return the tensors with which the modules compute."""
    tensors: dict[Key, Tensor | None] = {}
    for cell in placement.cells:
        kernel = kernel_of(cell.reading)
        if kernel is None:
            tensors[cell.reading, "weights"] = matrix(cell)
        else:
            tensors |= {key: value_of(*key) for key in reading_keys(cell.reading, kernel) if key}
        for layer in cell.design.stack:
            tensors |= {(layer, name): getattr(layer, name) for name in layer_names(layer) if name}
    return {key: tensor for key, tensor in tensors.items() if tensor is not None}


def reading_keys(reading: nn.Module, kernel: str) -> list[Key | None]:
    """Return the keys of the tensors of a reading in the order of ``KERNELS``."""
    keys: list[Key | None] = []
    for path in KERNELS[kernel]:
        *owner, name = path.split(".")
        keys.append((reading.get_submodule(".".join(owner)), name) if name else None)
    return keys


def layer_names(layer: nn.Module) -> tuple[str, ...]:
    """Return the names of the tensors of a layer, in the order of kernels; "" for none."""
    if isinstance(layer, nn.GRUCell):
        return "weight_ih", "weight_hh", "bias_ih", "bias_hh"
    return "weight", "", "bias", ""


def value_of(owner: nn.Module, name: str) -> Tensor | None:
    """Return a tensor by its key; it is absent if a reading has no gates."""
    value = getattr(owner, name)
    return value() if name in METHODS else value


def with_tensors(placement: Placement, tensors: Mapping[Key, Tensor | None]) -> Placement:
    """Return the same modules with other tensors in the place of their own."""
    by_owner: dict[nn.Module, dict[str, Tensor | None]] = {}
    for (owner, name), tensor in tensors.items():
        by_owner.setdefault(owner, {})[name] = tensor

    def replaced(module: nn.Module) -> nn.Module:
        changed, values = copy(module), by_owner.get(module, {})
        attributes = {
            name: (lambda value=value: value) if name in METHODS else value
            for name, value in values.items()
        }
        parts = {k: m if m is None else replaced(m) for k, m in module._modules.items()}
        vars(changed).update(attributes, _modules=parts)
        return changed

    def cell(cell: PlacedCell) -> PlacedCell:
        design, weights = replaced(cell.design), by_owner.get(cell.reading, {}).get("weights")
        if weights is None:
            return replace(cell, design=design, reading=replaced(cell.reading))
        return replace(cell, design=design, reading=Matrix(weights), columns=None)

    return Placement([cell(c) for c in placement.cells])


class Matrix(nn.Module):
    """A static reading whose R is a tensor."""

    dynamic = False

    def __init__(self, weights: Tensor):
        super().__init__()
        self.value = weights

    def weights(self, features: Tensor | None = None) -> Tensor:
        return self.value


def transforms_are_active() -> bool:
    """Return whether a transform of ``torch.func`` is running, such as ``torch.vmap``."""
    return torch._C._functorch.peek_interpreter_stack() is not None


def _is_batch(tensor: Tensor | None) -> bool:
    """Return whether a tensor stands for many, in ``torch.vmap`` or a batch of gradients."""
    functorch = torch._C._functorch
    return tensor is not None and (
        functorch.is_functorch_wrapped_tensor(tensor) or functorch.is_legacy_batchedtensor(tensor)
    )
