"""The sequence on a CPU in C++: one node for autograd, a slice of the batch for each thread.

``kernel/`` is compiled on first use, for the processor that it runs on, and kept in the user's
cache. Where there is no compiler one line says so, and other levels do the work.
"""

import ctypes
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from thalnet_mtl.ops.plan import once, parameters_of, parts, unusual
from thalnet_mtl.ops.reference import Cell, weights_of

SOURCE = Path(__file__).with_name("kernel")
FLAGS = ("-O3", "-march=native", "-std=c++17", "-shared", "-fPIC", "-fopenmp")
TYPES = {torch.float32: "float", torch.float64: "double"}
# As in the kernel, and which parameters it gets.
READINGS: dict[str, tuple[int, Callable[[Any], list[Tensor | None]]]] = {
    "linear": (0, lambda of: [of.weight]),
    "weight_norm": (1, lambda of: [of.weight, of.scale]),
    "weight_norm_rows": (2, lambda of: [of.weight, of.scale]),
    "fast_softmax": (3, lambda of: [of.weight, of.bias, None, None, of.gates()]),
    "fast_gaussian": (
        4,
        lambda of: [*of.mean.parameters(), *of.variance.parameters(), of.gates(), of.positions],
    ),
}
SLOTS = 6  # tensors of a reading, some of them absent; a layer has at most 4
MOST_SHAPES = 64  # of calls that are remembered
OUTPUTS = 5  # tensors behind those: centers, memory, activations, and two gradients

Pointers = Sequence[Tensor | None]


def declines(cells: Sequence[Cell], like: Tensor) -> str | None:
    """Why these modules cannot run here, if they cannot."""
    if like.device.type != "cpu":
        return f"it is for a CPU, not {like.device.type}"
    if like.dtype not in TYPES:
        return f"it computes in float32 or float64, not {str(like.dtype).removeprefix('torch.')}"
    if torch.is_autocast_enabled("cpu"):
        return "autocast is on"
    return once(cells, unusual) or unavailable()


def sequence(
    cells: Sequence[Cell],
    xs: Mapping[str, Float[Tensor, "batch time _"]],
    center: Float[Tensor, "batch center"],
    memory: Float[Tensor, "batch memory"],
) -> tuple[Float[Tensor, "batch time center"], Float[Tensor, "batch memory"]]:
    """As ``reference.sequence``."""
    time, keeps = next(iter(xs.values())).shape[1], torch.is_grad_enabled()
    layout = once(cells, Layout)
    centers, last, _ = Node.apply(layout, 0, time, keeps, center, memory, *operands(cells, xs))
    return centers, last


class Layout:
    """The net in numbers, as the kernel takes it."""

    def __init__(self, cells: Sequence[Cell]):
        self.center, self.memory = cells[-1].slot.stop, cells[-1].keep.stop
        self.numbers = [len(cells)]
        self.headers: dict[Any, Tensor] = {}
        for part in parts(cells):
            kind, _ = READINGS.get(part.reading, (0, None))
            self.numbers += [part.slot.start, part.slot.stop - part.slot.start, part.context]
            self.numbers += [part.inputs, part.composed, kind, len(part.places), len(part.layers)]
            for layer in part.layers:
                self.numbers += [layer.gru, layer.width]
            self.numbers += part.places
        layers = sum(len(cell.design.stack) for cell in cells)
        nothing = [None] * (2 + len(cells) * (1 + SLOTS) + layers * 4 + OUTPUTS)
        self.columns: int = kernel().forward_float(self.header(1, 1, 1, 1), _pointers(nothing))

    def header(
        self, replicas: int, time: int, batch: int, saved: int, row: int = 0, step: int = 0
    ) -> int:
        """Where all numbers of a call lie.

        Activations of ``saved`` steps are kept; ``row`` and ``step`` are strides of gradients by
        the centers.
        """
        threads = torch.get_num_threads()
        key = replicas, threads, time, batch, self.center, self.memory, saved, row, step
        if key not in self.headers:
            if len(self.headers) > MOST_SHAPES:
                self.headers.clear()
            self.headers[key] = torch.tensor([*key, *self.numbers])
        return self.headers[key].data_ptr()


def operands(cells: Sequence[Cell], xs: Mapping[str, Tensor]) -> list[Tensor | None]:
    """What the kernel reads, module by module, None where there is nothing."""
    tensors: list[Tensor | None] = []
    for cell, part in zip(cells, once(cells, parts), strict=True):
        tensors.append(xs[cell.name] if cell.inputs else None)
        given = part.reading == "given"
        of = [weights_of(cell)] if given else READINGS[part.reading][1](cell.reading)
        tensors += [*of, *[None] * (SLOTS - len(of))]
        for layer in cell.design.stack:
            match parameters_of(layer):
                case [weight, bias]:
                    tensors += [weight, None, bias, None]
                case weights:
                    tensors += weights
    return tensors


class Node(torch.autograd.Function):
    """The sequence, and its derivatives.

    All tensors have a leading axis if there are ``replicas``, nets of the same form that never
    meet; with 0 they have none.
    """

    @staticmethod
    def forward(
        layout: Layout, replicas: int, time: int, keeps: bool, *operands: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Centers, the last memory, and what the backward needs if it ``keeps`` it."""
        center, memory, *_ = operands
        assert center is not None and memory is not None
        lead, batch = center.shape[:-2], center.shape[-2]
        saved = time if keeps else min(time, 2)
        centers = center.new_empty(*lead, time, batch, layout.center)
        last = torch.empty_like(memory, memory_format=torch.contiguous_format)
        activations = center.new_empty(*lead, saved, batch, layout.columns)
        numbers = layout.header(replicas or 1, time, batch, saved)
        run = getattr(kernel(), f"forward_{TYPES[center.dtype]}")
        tensors = [*_contiguous(operands), centers, last, activations, None, None]
        run(numbers, _pointers(tensors))
        return centers.transpose(-3, -2), last, activations

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.layout, ctx.replicas, ctx.time, _, *operands = inputs
        centers, _, activations = output
        ctx.save_for_backward(*operands, centers, activations)
        ctx.mark_non_differentiable(activations)
        ctx.set_materialize_grads(False)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        *operands, centers, activations = ctx.saved_tensors
        by_centers, by_last, _ = gradients
        if by_centers is not None and (ctx.replicas or by_centers.stride(-1) != 1):
            by_centers = by_centers.contiguous()
        row, step = (0, 0) if by_centers is None else by_centers.stride()[-3:-1]
        operands, (by_last,) = _contiguous(operands), _contiguous([by_last])
        needed = ctx.needs_input_grad[4:]
        found = [
            torch.empty_like(tensor) if tensor is not None and need else None
            for tensor, need in zip(operands, needed, strict=True)
        ]
        batch = centers.shape[-3]
        numbers = ctx.layout.header(ctx.replicas or 1, ctx.time, batch, ctx.time, row, step)
        centers = centers.transpose(-3, -2)
        run = getattr(kernel(), f"backward_{TYPES[centers.dtype]}")
        run(
            numbers,
            _pointers([*operands, centers, None, activations, by_centers, by_last]),
            _pointers([*found, *[None] * OUTPUTS]),
        )
        return None, None, None, None, *found

    @staticmethod
    def vmap(
        info: Any,
        in_dims: tuple[int | None, ...],
        layout: Layout,
        replicas: int,
        time: int,
        keeps: bool,
        *operands: Tensor | None,
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        """Nets beside each other, as ``torch.vmap`` puts them."""
        if replicas:
            raise NotImplementedError("replicas of replicas")
        stacked = [
            tensor
            if tensor is None
            else tensor.movedim(dim, 0)
            if dim is not None
            else tensor.expand(info.batch_size, *tensor.shape)
            for tensor, dim in zip(operands, in_dims[4:], strict=True)
        ]
        return Node.apply(layout, info.batch_size, time, keeps, *stacked), (0, 0, 0)


@cache
def kernel() -> ctypes.CDLL:
    """The kernel, loaded."""
    library = ctypes.CDLL(str(build()))
    for kind in TYPES.values():
        for way, pointers in ("forward", 1), ("backward", 2):
            function = getattr(library, f"{way}_{kind}")
            function.argtypes = [ctypes.c_void_p] * (1 + pointers)
            function.restype = ctypes.c_int64
    return library


@cache
def unavailable() -> str | None:
    """Why there is no kernel, if there is none; said aloud once."""
    try:
        kernel()
    except (OSError, subprocess.CalledProcessError) as error:
        output = getattr(error, "stderr", b"") or b""
        why = (output.decode(errors="replace").strip().splitlines() or [str(error)])[-1]
        print(f"no C++ kernel, training is slower: {why}", file=sys.stderr, flush=True)
        return f"it could not be built: {why}"
    return None


def build() -> Path:
    """The compiled kernel, from the cache if it is there.

    Raises:
        OSError, subprocess.CalledProcessError: there is no compiler that can.
    """
    wanted = os.environ.get("CXX", "c++")
    compiler = shutil.which(wanted)
    if compiler is None:
        raise OSError(f"there is no compiler '{wanted}'")
    command = [compiler, *FLAGS]
    target = _output([*command, "-dM", "-E", "-x", "c++", os.devnull])  # the processor's abilities
    source = b"".join(file.read_bytes() for file in sorted(SOURCE.iterdir()))
    key = hashlib.sha256(source + repr(FLAGS).encode() + target).hexdigest()[:16]
    folder = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "thalnet" / "kernels"
    folder.mkdir(parents=True, exist_ok=True)
    library = folder / f"{key}.so"
    with FileLock(folder / "lock"):
        if not library.exists():
            print("compiling a kernel for this processor, once …", file=sys.stderr, flush=True)
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                part = Path(scratch) / library.name
                _output([*command, str(SOURCE / "kernel.cpp"), "-o", str(part)])
                part.rename(library)
    return library


def _output(command: Sequence[str]) -> bytes:
    return subprocess.run(command, capture_output=True, check=True).stdout


def _contiguous(tensors: Pointers) -> list[Tensor | None]:
    return [None if tensor is None else tensor.contiguous() for tensor in tensors]


def _pointers(tensors: Pointers) -> Any:
    return (ctypes.c_void_p * len(tensors))(*[None if t is None else t.data_ptr() for t in tensors])
