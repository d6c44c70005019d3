"""The sequence in Triton: one persistent kernel for a small network, else two kernels a step.

All modules must be equal: a dense layer followed by a GRU, under a static reading. A network is
small if its weights fit one multiprocessor. The kernels compute gradients w.r.t. pre-activations;
gradients w.r.t. weights are then large products over time and batch in PyTorch.
"""

import importlib.util
import os
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from thalnet_mtl.ops.cell import Placement
from thalnet_mtl.ops.layout import memoized, unsupported_design
from thalnet_mtl.ops.lengths import Lengths, last_steps, zero_past_end
from thalnet_mtl.ops.packed_weights import (
    group_cells,
    input_projections,
    pack_weights,
    weight_gradient,
)
from thalnet_mtl.ops.reference import Outcome, select_slots

MIN_TILE = 16  # smallest size of a tile that Triton multiplies
# Largest sizes of a small network, padded: width of a module, and of all modules together. Compiled
# for sm_90 its kernels do not spill registers: 4 modules of width 32 take 189 to 219 registers and
# 88 to 92 KiB of shared memory in bf16, 182 to 227 registers and 168 KiB in tf32. Software
# pipelining would not fit. (Of 38 kernels one spills 8 bytes, with 4 modules of width 16.) With
# wider modules many kernels spill, some of them kilobytes.
MAX_WIDTH, MAX_TOTAL = 32, 128
OPTIONS = {"num_warps": 8, "num_stages": 1}  # of the persistent kernels
TILE = {"BM": 32, "BN": 32, "BK": 32}  # of the stepwise kernels


def unsupported(placement: Placement, like: Tensor) -> str | None:
    """Return why this backend cannot run these modules, None if it can."""
    if not available():
        return "Triton is not installed"
    if like.device.type != "cuda" and not interpreted():
        return f"it is for a GPU, not {like.device.type}"
    exact = not (torch.is_autocast_enabled("cuda") or torch.backends.cuda.matmul.allow_tf32)
    if exact and not interpreted():
        return "its registers are too few for products in fp32; allow tf32, or train in bf16"
    if like.dtype != torch.float32:
        return f"it computes in float32, not {str(like.dtype).removeprefix('torch.')}"
    return unsupported_design(placement) or memoized(placement, _unsupported_group)


def sequence(
    placement: Placement,
    xs: Mapping[str, Float[Tensor, "batch time _"]],
    center: Float[Tensor, "batch center"],
    memory: Float[Tensor, "batch memory"],
    outputs: Sequence[slice],
    lengths: Lengths | None = None,
) -> Outcome:
    """Run the modules over all steps; see ``reference.sequence``.

    The kernels compute the steps past the end of a sequence as well, and nothing reads them.
    """
    xs = {name: zero_past_end(x, lengths) for name, x in xs.items()}
    device = center.device.type
    bf16 = torch.is_autocast_enabled(device)
    precision = "bf16" if bf16 else "tf32" if torch.backends.cuda.matmul.allow_tf32 else "ieee"
    with torch.autocast(device, enabled=False):
        read, (dense_bias, w, u, gru_bias) = pack_weights(placement)
        time, modules = next(iter(xs.values())).shape[1], len(placement.cells)
        biases = dense_bias.flatten().expand(time, len(center), -1).chunk(modules, -1)
        projections = input_projections(placement, {k: x.transpose(0, 1) for k, x in xs.items()})
        first = [
            bias if projection is None else bias + projection
            for bias, projection in zip(biases, projections, strict=True)
        ]
        states = rearrange(memory, "batch (module f) -> module batch f", module=modules)
        operands = torch.cat(first, -1), read, w, u, gru_bias[:, 0], center, states
        centers, last = padded_sequence(*operands, precision)
    ys = select_slots(centers.flatten(0, 1), outputs)
    ys = rearrange(ys, "(time batch) f -> batch time f", time=time)
    if lengths is not None:
        # The memory of a module is the state of its only GRU, and these are its features.
        end = last_steps(centers.transpose(0, 1), lengths)
        return zero_past_end(ys, lengths), end, end.clone()
    return ys, centers[-1].clone(), rearrange(last, "module batch f -> batch (module f)")


def padded_sequence(
    first: Float[Tensor, "time batch hidden"],
    read: Float[Tensor, "center hidden"],
    w: Float[Tensor, "module h three_f"],
    u: Float[Tensor, "module f three_f"],
    bias: Float[Tensor, "module four_f"],
    center: Float[Tensor, "batch center"],
    memory: Float[Tensor, "module batch f"],
    precision: str,
) -> tuple[Float[Tensor, "time batch center"], Float[Tensor, "module batch f"]]:
    """Return centers and last memory; pad a small network to the sizes that tiles need."""
    (modules, h, _), f, (_, batch, _) = w.shape, u.shape[1], first.shape
    if not is_small(modules, h, f):
        return TritonSequence.apply(first, read, w, u, bias, center, memory, precision, False)
    m, hp, fp = _next_power(modules, 1), _next_power(h), _next_power(f)
    rows = -(-batch // MIN_TILE) * MIN_TILE

    def pad_blocks(x: Tensor, width: int, *pads: int) -> Tensor:
        """Split the last axis into blocks of a width, pad every axis, and join it again."""
        x = x.unflatten(-1, (-1, width))
        sizes = zip(reversed(x.shape), reversed(pads), strict=True)
        pad = [n for size, target in sizes for n in (0, target - size)]
        return nn.functional.pad(x, pad).flatten(-2)

    states = nn.functional.pad(memory, (0, fp - f, 0, rows - batch, 0, m - modules))
    read = pad_blocks(read.T, f, modules * h, m, fp).T
    read = pad_blocks(read, h, m * fp, m, hp)
    tensors = [
        pad_blocks(first, h, len(first), rows, m, hp),
        read,
        pad_blocks(w, f, m, hp, 3, fp),
        pad_blocks(u, f, m, fp, 3, fp),
        pad_blocks(bias, f, m, 4, fp),
        pad_blocks(center, f, rows, m, fp),
        states,
    ]
    centers, last = TritonSequence.apply(*tensors, precision, True)
    centers = centers.unflatten(-1, (m, fp))[:, :batch, :modules, :f].flatten(-2)
    return centers, last[:modules, :batch, :f]


class TritonSequence(torch.autograd.Function):
    """The sequence and its gradients, in one kernel each if the network is ``small``."""

    @staticmethod
    def forward(
        ctx: Any,
        first: Tensor,
        read: Tensor,
        w: Tensor,
        u: Tensor,
        bias: Tensor,
        center0: Tensor,
        memory0: Tensor,
        precision: str,
        small: bool,
    ) -> tuple[Tensor, Tensor]:
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        read, w, u = (tensor.to(dtype).contiguous() for tensor in (read, w, u))
        first, bias, center0, memory0 = (x.contiguous() for x in (first, bias, center0, memory0))
        (time, batch, _), modules, f = first.shape, len(w), u.shape[1]
        centers = first.new_empty(time, batch, modules * f)
        dense, last = torch.empty_like(first), torch.empty_like(memory0)
        gates = first.new_empty(4, time, modules, batch, f)
        ctx.precision, ctx.small = "tf32" if precision == "tf32" else "ieee", small
        run = persistent_forward if small else stepwise_forward
        run((first, read, w, u, bias, center0, memory0, centers, dense, gates, last), ctx.precision)
        ctx.save_for_backward(read, w, u, center0, memory0, centers, dense, gates)
        return centers, last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_centers: Tensor, grad_last: Tensor) -> tuple[Tensor | None, ...]:
        read, w, u, center0, memory0, centers, dense, gates = ctx.saved_tensors
        results = [torch.empty_like(tensor) for tensor in (dense, gates, center0, memory0)]
        grads = grad_centers.contiguous(), grad_last.contiguous()
        run = persistent_backward if ctx.small else stepwise_backward
        run((read, w, u, memory0, centers, dense, gates, *grads, *results), ctx.precision)
        grad_first, grad_gates, grad_center0, grad_memory0 = results
        f = u.shape[1]
        previous = torch.cat([center0[None], centers[:-1]])
        states = rearrange(centers, "time batch (m f) -> m time batch f", f=f)
        states = torch.cat([memory0[:, None], states[:, :-1]], 1)
        inputs = rearrange(dense, "time batch (m h) -> m time batch h", h=w.shape[1])
        g = rearrange(grad_gates, "gate time m batch f -> m time batch (gate f)")
        return (
            grad_first,
            weight_gradient(previous[None], grad_first[None], read.dtype)[0],
            weight_gradient(inputs, g[..., : 3 * f], w.dtype),
            weight_gradient(states, g[..., f:], u.dtype),
            g.sum((1, 2)),
            grad_center0,
            grad_memory0,
            None,
            None,
        )


def persistent_forward(tensors: Sequence[Tensor], precision: str) -> None:
    """Run all steps in one kernel; ``tensors`` are the first arguments of that kernel."""
    from thalnet_mtl.ops import triton_persistent as persistent

    sizes = {"MODULES": len(tensors[2]), "H": tensors[2].shape[1], "F": tensors[3].shape[1]}
    sizes["ROWS"], (time, batch, _) = persistent.ROWS, tensors[0].shape
    grid = (batch // persistent.ROWS,)
    persistent.forward[grid](*tensors, time, batch, **sizes, PRECISION=precision, **OPTIONS)


def persistent_backward(tensors: Sequence[Tensor], precision: str) -> None:
    """Run all steps backward in one kernel; ``tensors`` are the first arguments of that kernel."""
    from thalnet_mtl.ops import triton_persistent as persistent

    sizes = {"MODULES": len(tensors[1]), "H": tensors[1].shape[1], "F": tensors[2].shape[1]}
    sizes["ROWS"], (time, batch, _) = persistent.ROWS, tensors[4].shape
    grid = (batch // persistent.ROWS,)
    persistent.backward[grid](*tensors, time, batch, **sizes, PRECISION=precision, **OPTIONS)


def stepwise_forward(tensors: Sequence[Tensor], precision: str) -> None:
    """Run two kernels a step; ``tensors`` as in ``persistent_forward``."""
    from thalnet_mtl.ops import triton_stepwise as kernels

    first, read, w, u, bias, center0, memory0, centers, dense, gates, last = tensors
    (modules, h, _), f, (time, batch, hidden) = w.shape, u.shape[1], first.shape
    options, block = {"PRECISION": precision} | TILE, gates[0].numel()
    for t in range(time):
        previous = centers[t - 1] if t else center0
        state = (centers[t - 1], modules * f, f) if t else (memory0, f, batch * f)
        kernels.dense_layers[_grid(batch, hidden)](
            first[t], previous, read, dense[t], batch, modules * f, hidden, **options
        )
        kernels.gru[_grid(batch, f, modules)](
            dense[t], state[0], w, u, bias, centers[t], gates[0, t], batch, block, *state[1:],
            hidden, modules * f, h, f, **options,
        )  # fmt: skip
    last.copy_(rearrange(centers[-1], "batch (m f) -> m batch f", f=f))


def stepwise_backward(tensors: Sequence[Tensor], precision: str) -> None:
    """Run two kernels a step backward; ``tensors`` as in ``persistent_backward``."""
    from thalnet_mtl.ops import triton_stepwise as kernels

    read, w, u, memory0, centers, dense, gates, grad_centers, grad_last, *results = tensors
    grad_first, grad_gates, grad_center0, grad_memory0 = results
    (modules, h, _), f, (time, batch, hidden) = w.shape, u.shape[1], dense.shape
    options, block = {"PRECISION": precision} | TILE, gates[0].numel()
    grad_state = grad_last.clone()
    for t in reversed(range(time)):
        following, last = min(t + 1, time - 1), t == time - 1
        state = (centers[t - 1], modules * f, f) if t else (memory0, f, batch * f)
        kernels.gru_backward[_grid(batch, f, modules)](
            grad_centers[t], grad_first[following], read, grad_gates[0, following], u, grad_state,
            gates[0, t], state[0], grad_gates[0, t], batch, block, *state[1:], hidden, modules * f,
            f, LAST=last, **options,
        )  # fmt: skip
        kernels.dense_layers_backward[_grid(batch, h, modules)](
            grad_gates[0, t], w, dense[t], grad_first[t], batch, block, hidden, h, f, **options
        )
    grad_center0.copy_(grad_first[0].to(read.dtype) @ read.mT)
    g = rearrange(grad_gates[1:, 0], "gate m batch f -> m batch (gate f)").to(u.dtype)
    grad_memory0.copy_(grad_state + g @ u.mT)


def _grid(rows: int, columns: int, modules: int = 1) -> tuple[int, int, int]:
    """Return the grid with one program for each tile."""
    return -(-rows // TILE["BM"]), -(-columns // TILE["BN"]), modules


@cache
def available() -> bool:
    """Return whether Triton is installed."""
    return importlib.util.find_spec("triton") is not None


def interpreted() -> bool:
    """Return whether kernels run in Triton's interpreter, on a CPU."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def _unsupported_group(placement: Placement) -> str | None:
    groups = memoized(placement, group_cells)
    equal = len(groups) == 1 and not any(cell.reading.dynamic for cell in placement.cells)
    if not equal or [layer.gru for layer in groups[0].layers] != [False, True]:
        return "the modules are not all equal, a dense layer and a GRU under a static reading"
    if not groups[0].composed:
        return "the contexts are too narrow to compose readings with dense layers"
    return None


def is_small(modules: int, h: int, f: int) -> bool:
    """Return whether weights and state fit one multiprocessor."""
    width = max(_next_power(h), _next_power(f))
    return width <= MAX_WIDTH and _next_power(modules, 1) * width <= MAX_TOTAL


def _next_power(size: int, minimum: int = MIN_TILE) -> int:
    """Return the next power of two that is at least ``minimum``."""
    return max(minimum, 1 << (size - 1).bit_length())
