"""The sequence of a small net as one persistent Triton kernel, and one for the way back.

For modules that are all alike: static readings, a dense layer under a GRU, so few weights that
they fit one multiprocessor. Gradients by weights are large products over time and batch, in
PyTorch, from gradients by pre-activations that the second kernel leaves.
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

from thalnet_mtl.ops.plan import Layer, once, unusual
from thalnet_mtl.ops.prepare import drives, groups, over_time, prepare
from thalnet_mtl.ops.reference import Cell, Outcome, at

LEAST = 16  # of every size of a tile
MOST = 60_000  # weights, padded, that fit a multiprocessor beside the state
# Compiled for sm_90 no kernel spills: 219 to 252 registers in bf16 and 88 to 92 KiB of shared
# memory, 183 to 227 and 168 KiB in tf32, with 4 modules of 32. A pipeline would not fit.
OPTIONS = {"num_warps": 8, "num_stages": 1}


def declines(cells: Sequence[Cell], like: Tensor) -> str | None:
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
    return once(cells, _unfit)


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
        read, (bias, w, u, biases) = prepare(cells)
        time, modules = next(iter(xs.values())).shape[1], len(cells)
        first = bias.flatten().expand(time, len(center), -1)
        parts = [
            part if drive is None else part + drive
            for part, drive in zip(first.chunk(modules, -1), drives(cells, xs), strict=True)
        ]
        kept = rearrange(memory, "batch (module f) -> module batch f", module=modules)
        stacked = torch.cat(parts, -1), read, w, u, biases[:, 0], center, kept
        centers, last = padded(*stacked, precision)
    ys = rearrange(at(centers.flatten(0, 1), outputs), "(time batch) f -> batch time f", time=time)
    return ys, centers[-1], rearrange(last, "module batch f -> batch (module f)")


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
    """Centers and last memory: every size is padded with zeros to what tiles need."""
    (modules, h, _), f, (_, batch, _) = w.shape, u.shape[1], first.shape
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
    centers, last = Persistent.apply(*(tensor.contiguous() for tensor in tensors), precision)
    centers = centers.unflatten(-1, (m, fp))[:, :batch, :modules, :f].flatten(-2)
    return centers, last[:modules, :batch, :f]


class Persistent(torch.autograd.Function):
    """Both kernels; sizes are powers of two."""

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
    ) -> tuple[Tensor, Tensor]:
        from thalnet_mtl.ops import persistent

        (time, batch, _), (modules, h, _), f = first.shape, w.shape, u.shape[1]
        centers = first.new_empty(time, batch, modules * f)
        dense, last = torch.empty_like(first), torch.empty_like(memory0)
        gates = first.new_empty(4, time, modules, batch, f)
        narrow = torch.bfloat16 if precision == "bf16" else torch.float32
        of = [tensor.to(narrow) for tensor in (read, w, u)]
        ctx.options = {"MODULES": modules, "H": h, "F": f, "ROWS": persistent.ROWS}
        ctx.options |= {"PRECISION": "tf32" if precision == "tf32" else "ieee"} | OPTIONS
        persistent.forward[(batch // persistent.ROWS,)](
            first, *of, bias, center0, memory0, centers, dense, gates, last, time, batch,
            **ctx.options,
        )  # fmt: skip
        ctx.save_for_backward(*of, center0, memory0, centers, dense, gates)
        return centers, last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_centers: Tensor, by_last: Tensor) -> tuple[Tensor | None, ...]:
        from thalnet_mtl.ops import persistent

        read, w, u, center0, memory0, centers, dense, gates = ctx.saved_tensors
        time, batch, _ = centers.shape
        by_first, by_gates = torch.empty_like(dense), torch.empty_like(gates)
        by_center0, by_memory0 = torch.empty_like(center0), torch.empty_like(memory0)
        persistent.backward[(batch // persistent.ROWS,)](
            read, w, u, memory0, centers, dense, gates, by_centers.contiguous(),
            by_last.contiguous(), by_first, by_gates, by_center0, by_memory0, time, batch,
            **ctx.options,
        )  # fmt: skip
        f = u.shape[1]
        before = torch.cat([center0[None], centers[:-1]])
        states = rearrange(centers, "time batch (m f) -> m time batch f", f=f)
        states = torch.cat([memory0[:, None], states[:, :-1]], 1)
        seen = rearrange(dense, "time batch (m h) -> m time batch h", h=w.shape[1])
        by = rearrange(by_gates, "gate time m batch f -> m time batch (gate f)")
        return (
            by_first,
            over_time(before[None], by_first[None], read.dtype)[0],
            over_time(seen, by[..., : 3 * f], w.dtype),
            over_time(states, by[..., f:], u.dtype),
            by.sum((1, 2)),
            by_center0,
            by_memory0,
            None,
        )


@cache
def available() -> bool:
    """Whether Triton is installed."""
    return importlib.util.find_spec("triton") is not None


def interpreted() -> bool:
    """Whether kernels run in Triton's interpreter, on a CPU."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def _unfit(cells: Sequence[Cell]) -> str | None:
    """What about the modules it cannot do."""
    if why := unusual(cells):
        return why
    of = once(cells, groups)
    layers, group = of[0].layers, of[0]
    alike = len(of) == 1 and not any(cell.reading.dynamic for cell in cells)
    if not alike or not group.composed or [layer.gru for layer in layers] != [False, True]:
        return "its modules are not all alike, a dense layer under a GRU with a static reading"
    if weights(len(group.parts), *layers) > MOST:
        return "its weights do not fit one multiprocessor"
    return None


def weights(modules: int, dense: Layer, gru: Layer) -> int:
    """Numbers in the padded weights."""
    m, h, f = _power(modules, 1), _power(dense.width), _power(gru.width)
    return m * h * m * f + 3 * m * f * (h + f)


def _power(size: int, least: int = LEAST) -> int:
    """The next power of two."""
    return max(least, 1 << (size - 1).bit_length())
