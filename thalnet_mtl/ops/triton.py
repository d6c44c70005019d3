"""The sequence in Triton: one persistent kernel for a small net, two kernels a step for others.

For modules that are all alike, a dense layer under a GRU with a static reading. A net is small if
its weights fit one multiprocessor. Gradients by weights are large products over time and batch, in
PyTorch, from gradients by pre-activations that the kernels leave.
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

from thalnet_mtl.ops.layout import memoized, unsupported_design
from thalnet_mtl.ops.packed_weights import groups, input_projections, over_time, pack_weights
from thalnet_mtl.ops.reference import Cell, Outcome, at

LEAST = 16  # of every size of a tile
# Of a small net, padded: sizes of a module, and of all together. Compiled for sm_90 such a net
# does not spill: with 4 modules of 32, 189 to 219 registers in bf16 and 88 to 92 KiB of shared
# memory, 182 to 227 and 168 KiB in tf32. A pipeline would not fit. (Of 38 kernels one keeps 8 bytes
# elsewhere, with 4 modules of 16.) Where a module is wider many spill, some by kilobytes.
WIDEST, MOST = 32, 128
OPTIONS = {"num_warps": 8, "num_stages": 1}
TILE = {"BM": 32, "BN": 32, "BK": 32}  # of the kernels for a step


def unsupported(cells: Sequence[Cell], like: Tensor) -> str | None:
    """Why these modules cannot run here, if they cannot."""
    if not available():
        return "Triton is not installed"
    if like.device.type != "cuda" and not interpreted():
        return f"it is for a GPU, not {like.device.type}"
    exact = not (torch.is_autocast_enabled("cuda") or torch.backends.cuda.matmul.allow_tf32)
    if exact and not interpreted():
        return "exact products do not fit its registers; allow tf32, or train in bf16"
    if like.dtype != torch.float32:
        return f"it computes in float32, not {str(like.dtype).removeprefix('torch.')}"
    return unsupported_design(cells) or memoized(cells, _unfit)


def sequence(
    cells: Sequence[Cell],
    xs: Mapping[str, Float[Tensor, "batch time _"]],
    center: Float[Tensor, "batch center"],
    memory: Float[Tensor, "batch memory"],
    outputs: Sequence[slice],
) -> Outcome:
    """As ``reference.sequence``."""
    device = center.device.type
    bf16 = torch.is_autocast_enabled(device)
    precision = "bf16" if bf16 else "tf32" if torch.backends.cuda.matmul.allow_tf32 else "ieee"
    with torch.autocast(device, enabled=False):
        read, (bias, w, u, biases) = pack_weights(cells)
        time, modules = next(iter(xs.values())).shape[1], len(cells)
        first = bias.flatten().expand(time, len(center), -1)
        parts = [
            part if drive is None else part + drive
            for part, drive in zip(
                first.chunk(modules, -1), input_projections(cells, xs), strict=True
            )
        ]
        kept = rearrange(memory, "batch (module f) -> module batch f", module=modules)
        stacked = torch.cat(parts, -1), read, w, u, biases[:, 0], center, kept
        centers, last = padded(*stacked, precision)
    ys = rearrange(at(centers.flatten(0, 1), outputs), "(time batch) f -> batch time f", time=time)
    return ys, centers[-1].clone(), rearrange(last, "module batch f -> batch (module f)")


def padded(
    first: Float[Tensor, "time batch hidden"],
    read: Float[Tensor, "center hidden"],
    w: Float[Tensor, "module h three_f"],
    u: Float[Tensor, "module f three_f"],
    bias: Float[Tensor, "module four_f"],
    center: Float[Tensor, "batch center"],
    memory: Float[Tensor, "module batch f"],
    precision: str,
) -> tuple[Float[Tensor, "time batch center"], Float[Tensor, "module batch f"]]:
    """Centers and last memory; of a small net every size is padded to what tiles need."""
    (modules, h, _), f, (_, batch, _) = w.shape, u.shape[1], first.shape
    if not small(modules, h, f):
        return TritonSequence.apply(first, read, w, u, bias, center, memory, precision, False)
    m, hp, fp = _power(modules, 1), _power(h), _power(f)
    rows = -(-batch // LEAST) * LEAST

    def blocks(x: Tensor, width: int, *pads: int) -> Tensor:
        """Split the last axis into blocks of a width, pad every axis, and join it again."""
        x = x.unflatten(-1, (-1, width))
        sizes = zip(reversed(x.shape), reversed(pads), strict=True)
        return nn.functional.pad(x, [n for size, to in sizes for n in (0, to - size)]).flatten(-2)

    by_module = nn.functional.pad(memory, (0, fp - f, 0, rows - batch, 0, m - modules))
    read = blocks(read.T, f, modules * h, m, fp).T
    read = blocks(read, h, m * fp, m, hp)
    tensors = [
        blocks(first, h, len(first), rows, m, hp),
        read,
        blocks(w, f, m, hp, 3, fp),
        blocks(u, f, m, fp, 3, fp),
        blocks(bias, f, m, 4, fp),
        blocks(center, f, rows, m, fp),
        by_module,
    ]
    centers, last = TritonSequence.apply(*tensors, precision, True)
    centers = centers.unflatten(-1, (m, fp))[:, :batch, :modules, :f].flatten(-2)
    return centers, last[:modules, :batch, :f]


class TritonSequence(torch.autograd.Function):
    """The sequence, and its derivatives, in one kernel each if it is ``small``."""

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
        narrow = torch.bfloat16 if precision == "bf16" else torch.float32
        read, w, u = (tensor.to(narrow).contiguous() for tensor in (read, w, u))
        first, bias, center0, memory0 = (x.contiguous() for x in (first, bias, center0, memory0))
        (time, batch, _), modules, f = first.shape, len(w), u.shape[1]
        centers = first.new_empty(time, batch, modules * f)
        dense, last = torch.empty_like(first), torch.empty_like(memory0)
        gates = first.new_empty(4, time, modules, batch, f)
        ctx.precision, ctx.small = "tf32" if precision == "tf32" else "ieee", small
        go = whole if small else stepwise
        go((first, read, w, u, bias, center0, memory0, centers, dense, gates, last), ctx.precision)
        ctx.save_for_backward(read, w, u, center0, memory0, centers, dense, gates)
        return centers, last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_centers: Tensor, by_last: Tensor) -> tuple[Tensor | None, ...]:
        read, w, u, center0, memory0, centers, dense, gates = ctx.saved_tensors
        by = [torch.empty_like(of) for of in (dense, gates, center0, memory0)]
        back = whole_back if ctx.small else stepwise_back
        given = by_centers.contiguous(), by_last.contiguous()
        back((read, w, u, memory0, centers, dense, gates, *given, *by), ctx.precision)
        by_first, by_gates, by_center0, by_memory0 = by
        f = u.shape[1]
        before = torch.cat([center0[None], centers[:-1]])
        states = rearrange(centers, "time batch (m f) -> m time batch f", f=f)
        states = torch.cat([memory0[:, None], states[:, :-1]], 1)
        seen = rearrange(dense, "time batch (m h) -> m time batch h", h=w.shape[1])
        g = rearrange(by_gates, "gate time m batch f -> m time batch (gate f)")
        return (
            by_first,
            over_time(before[None], by_first[None], read.dtype)[0],
            over_time(seen, g[..., : 3 * f], w.dtype),
            over_time(states, g[..., f:], u.dtype),
            g.sum((1, 2)),
            by_center0,
            by_memory0,
            None,
            None,
        )


def whole(of: Sequence[Tensor], precision: str) -> None:
    """All steps in one kernel."""
    from thalnet_mtl.ops import triton_persistent as persistent

    sizes = {"MODULES": len(of[2]), "H": of[2].shape[1], "F": of[3].shape[1]}
    sizes["ROWS"], (time, batch, _) = persistent.ROWS, of[0].shape
    grid = (batch // persistent.ROWS,)
    persistent.forward[grid](*of, time, batch, **sizes, PRECISION=precision, **OPTIONS)


def whole_back(of: Sequence[Tensor], precision: str) -> None:
    """All steps back in one kernel."""
    from thalnet_mtl.ops import triton_persistent as persistent

    sizes = {"MODULES": len(of[1]), "H": of[1].shape[1], "F": of[2].shape[1]}
    sizes["ROWS"], (time, batch, _) = persistent.ROWS, of[4].shape
    grid = (batch // persistent.ROWS,)
    persistent.backward[grid](*of, time, batch, **sizes, PRECISION=precision, **OPTIONS)


def stepwise(of: Sequence[Tensor], precision: str) -> None:
    """Two kernels a step."""
    from thalnet_mtl.ops import triton_stepwise as kernels

    first, read, w, u, bias, center0, memory0, centers, dense, gates, last = of
    (modules, h, _), f, (time, batch, hidden) = w.shape, u.shape[1], first.shape
    options, block = {"PRECISION": precision} | TILE, gates[0].numel()
    for t in range(time):
        before = centers[t - 1] if t else center0
        state = (centers[t - 1], modules * f, f) if t else (memory0, f, batch * f)
        kernels.seen[_grid(batch, hidden)](
            first[t], before, read, dense[t], batch, modules * f, hidden, **options
        )
        kernels.gates[_grid(batch, f, modules)](
            dense[t], state[0], w, u, bias, centers[t], gates[0, t], batch, block, *state[1:],
            hidden, modules * f, h, f, **options,
        )  # fmt: skip
    last.copy_(rearrange(centers[-1], "batch (m f) -> m batch f", f=f))


def stepwise_back(of: Sequence[Tensor], precision: str) -> None:
    """Two kernels a step, back."""
    from thalnet_mtl.ops import triton_stepwise as kernels

    read, w, u, memory0, centers, dense, gates, by_centers, by_last, *by = of
    by_first, by_gates, by_center0, by_memory0 = by
    (modules, h, _), f, (time, batch, hidden) = w.shape, u.shape[1], dense.shape
    options, block = {"PRECISION": precision} | TILE, gates[0].numel()
    carried = by_last.clone()
    for t in reversed(range(time)):
        later, final = min(t + 1, time - 1), t == time - 1
        state = (centers[t - 1], modules * f, f) if t else (memory0, f, batch * f)
        kernels.back_gates[_grid(batch, f, modules)](
            by_centers[t], by_first[later], read, by_gates[0, later], u, carried, gates[0, t],
            state[0], by_gates[0, t], batch, block, *state[1:], hidden, modules * f, f,
            LAST=final, **options,
        )  # fmt: skip
        kernels.back_seen[_grid(batch, h, modules)](
            by_gates[0, t], w, dense[t], by_first[t], batch, block, hidden, h, f, **options
        )
    by_center0.copy_(by_first[0].to(read.dtype) @ read.mT)
    g = rearrange(by_gates[1:, 0], "gate m batch f -> m batch (gate f)").to(u.dtype)
    by_memory0.copy_(carried + g @ u.mT)


def _grid(rows: int, columns: int, modules: int = 1) -> tuple[int, int, int]:
    """Programs for all tiles."""
    return -(-rows // TILE["BM"]), -(-columns // TILE["BN"]), modules


@cache
def available() -> bool:
    """Whether Triton is installed."""
    return importlib.util.find_spec("triton") is not None


def interpreted() -> bool:
    """Whether kernels run in Triton's interpreter, on a CPU."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def _unfit(cells: Sequence[Cell]) -> str | None:
    """What about the modules it cannot do."""
    of = memoized(cells, groups)
    layers, group = of[0].layers, of[0]
    alike = len(of) == 1 and not any(cell.reading.dynamic for cell in cells)
    if not alike or [layer.gru for layer in layers] != [False, True]:
        return "its modules are not all alike, a dense layer under a GRU with a static reading"
    if not group.composed:
        return "its contexts are too narrow to compose readings with dense layers"
    return None


def small(modules: int, h: int, f: int) -> bool:
    """Whether the weights and the state fit one multiprocessor."""
    widest = max(_power(h), _power(f))
    return widest <= WIDEST and _power(modules, 1) * widest <= MOST


def _power(size: int, least: int = LEAST) -> int:
    """The next power of two."""
    return max(least, 1 << (size - 1).bit_length())
