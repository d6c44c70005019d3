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
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from thalnet_mtl.ops.buffers import empty
from thalnet_mtl.ops.layout import cell_plans, memoized, unsupported_design
from thalnet_mtl.ops.reference import Cell, Outcome, weights_of

SOURCE = Path(__file__).with_name("kernel")
FLAGS = ("-O3", "-march=native", "-std=c++17", "-shared", "-fPIC", "-fopenmp")
TYPES = {torch.float32: "float", torch.float64: "double"}
# As in the kernel, and the tensors that it gets: names of the reading's own, "" for none.
READINGS: dict[str, tuple[int, tuple[str, ...]]] = {
    "linear": (0, ("weight",)),
    "weight_norm": (1, ("weight", "scale")),
    "weight_norm_rows": (2, ("weight", "scale")),
    "fast_softmax": (3, ("weight", "bias", "", "", "gates")),
    "fast_gaussian": (
        4,
        ("mean.weight", "mean.bias", "variance.weight", "variance.bias", "gates", "positions"),
    ),
}
SLOTS = 6  # tensors of a reading, some of them absent; a layer has at most 4
MOST_SHAPES = 64  # of calls that are remembered
BEHIND = 6  # tensors behind those: centers, memory, activations, and three gradients

Pointers = Sequence[Tensor | None]
Source = str | tuple[nn.Module, str] | Callable[[], Tensor | None] | None  # a task input, or what


def unsupported(cells: Sequence[Cell], like: Tensor) -> str | None:
    """Why these modules cannot run here, if they cannot."""
    if like.device.type != "cpu":
        return f"it is for a CPU, not {like.device.type}"
    if like.dtype not in TYPES:
        return f"it computes in float32 or float64, not {str(like.dtype).removeprefix('torch.')}"
    if torch.is_autocast_enabled("cpu"):
        return "autocast is on"
    return unsupported_design(cells) or unavailable()


def sequence(
    cells: Sequence[Cell],
    xs: Mapping[str, Float[Tensor, "batch time _"]],
    center: Float[Tensor, "batch center"],
    memory: Float[Tensor, "batch memory"],
    outputs: Sequence[slice],
) -> Outcome:
    """As ``reference.sequence``."""
    layout = memoized(cells, KernelLayout)
    call = Call(
        layout,
        outputs=tuple((place.start, place.stop - place.start) for place in outputs),
        time=next(iter(xs.values())).shape[1],
        keeps=torch.is_grad_enabled(),
    )
    operands = [center, memory, *layout.operands(xs)]
    for tensor in operands:  # the kernel would read numbers that are none
        if tensor is not None and (tensor.dtype, tensor.device) != (center.dtype, center.device):
            one, other = f"{tensor.dtype} on {tensor.device}", f"{center.dtype} on {center.device}"
            raise ValueError(f"tensors of one type on one device are needed: {one}, and {other}.")
    ys, center, memory, *_ = CppSequence.apply(call, *operands)
    return ys, center, memory


class KernelLayout:
    """The net in numbers, as the kernel takes it, and where its tensors are."""

    def __init__(self, cells: Sequence[Cell]):
        self.center, self.memory = cells[-1].slot.stop, cells[-1].keep.stop
        self.numbers = [len(cells)]
        self.headers: dict[Any, Tensor] = {}
        self.sources: list[Source] = []
        for cell, part in zip(cells, cell_plans(cells), strict=True):
            kind, names = READINGS.get(part.reading, (0, ()))
            self.numbers += [part.slot.start, part.slot.stop - part.slot.start, part.context]
            self.numbers += [part.inputs, part.composed, kind, len(part.places), len(part.layers)]
            for shape in part.layers:
                self.numbers += [shape.gru, shape.width]
            self.numbers += part.places
            self.sources.append(cell.name if cell.inputs else None)
            own = [_source(cell.reading, name) for name in names] or [partial(weights_of, cell)]
            self.sources += [*own, *[None] * (SLOTS - len(own))]
            for layer in cell.design.stack:
                if isinstance(layer, nn.GRUCell):
                    names = "weight_ih", "weight_hh", "bias_ih", "bias_hh"
                else:
                    names = "weight", "", "bias", ""
                self.sources += [_source(layer, name) for name in names]
        nothing: list[Tensor | None] = [None] * (2 + len(self.sources) + BEHIND)
        query = Call(self, (), time=1, keeps=False)
        self.columns: int = kernel().forward_float(
            query.header(1, 1).data_ptr(), _pointers(nothing)
        )

    def operands(self, xs: Mapping[str, Tensor]) -> list[Tensor | None]:
        """What the kernel reads, module by module, None where there is nothing."""
        found: list[Tensor | None] = []
        for source in self.sources:
            if source is None:
                found.append(None)
            elif isinstance(source, tuple):
                owner, name = source
                tensor = owner._parameters.get(name)  # getattr would take ten times as long
                found.append(getattr(owner, name) if tensor is None else tensor)
            else:
                found.append(xs[source] if isinstance(source, str) else source())
        return found


@dataclass(frozen=True)
class Call:
    """What a call computes: ``replicas`` are nets of the same form that never meet.

    With any of them all tensors have a leading axis.
    """

    layout: KernelLayout
    outputs: tuple[tuple[int, int], ...]  # slots: from, width
    time: int
    keeps: bool  # activations, for a backward
    replicas: int = 0

    def header(self, batch: int, saved: int, row: int = 0, step: int = 0) -> Tensor:
        """All numbers.

        Activations of ``saved`` steps are kept; ``row`` and ``step`` are strides of gradients by
        the outputs.
        """
        layout, threads = self.layout, torch.get_num_threads()
        slots = tuple(chain.from_iterable(self.outputs))
        key = self.replicas or 1, threads, self.time, batch, layout.center, layout.memory
        key = (*key, saved, row, step, len(self.outputs), *slots)
        header = layout.headers.get(key)
        if header is None:
            if len(layout.headers) > MOST_SHAPES:
                layout.headers.clear()
            header = torch.tensor([*key, *layout.numbers], device="cpu")
            layout.headers[key] = header
        return header


class CppSequence(torch.autograd.Function):
    """The sequence, and its derivatives."""

    @staticmethod
    def forward(call: Call, *operands: Tensor | None) -> tuple[Tensor, ...]:
        """Outputs, the last center, the last memory, and what the backward needs."""
        center, memory, *_ = operands
        assert center is not None and memory is not None
        lead, batch, time = center.shape[:-2], center.shape[-2], call.time
        saved = time if call.keeps else min(time, 2)
        centers = center.new_empty(*lead, time, batch, call.layout.center)
        last = torch.empty_like(memory, memory_format=torch.contiguous_format)
        activations = empty([*lead, saved, batch, call.layout.columns], center)
        run = getattr(kernel(), f"forward_{TYPES[center.dtype]}")
        tensors = [*_contiguous(operands), centers, last, activations, None, None, None]
        header = call.header(batch, saved)
        run(header.data_ptr(), _pointers(tensors))
        slots = [centers.narrow(-1, *slot) for slot in call.outputs]
        ys = torch.cat([slot.transpose(-3, -2) for slot in slots], -1)
        return ys, centers.select(-3, time - 1).clone(), last, centers, activations

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.call, *operands = inputs
        _, _, _, centers, activations = output
        ctx.save_for_backward(*operands, centers, activations)
        ctx.mark_non_differentiable(centers, activations)
        ctx.set_materialize_grads(False)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        *operands, centers, activations = ctx.saved_tensors
        by_outputs, *others = gradients[:3]
        if by_outputs is not None and (ctx.call.replicas or by_outputs.stride(-1) != 1):
            by_outputs = by_outputs.contiguous()
        row, step = (0, 0) if by_outputs is None else by_outputs.stride()[-3:-1]
        if ctx.call.replicas and by_outputs is not None:  # of an axis of 1 a stride says nothing
            step = by_outputs.shape[-1]
            row = step * ctx.call.time
        operands, by_last = _contiguous(operands), _contiguous(others)
        found = [
            torch.empty_like(tensor) if tensor is not None and need else None
            for tensor, need in zip(operands, ctx.needs_input_grad[1:], strict=True)
        ]
        run = getattr(kernel(), f"backward_{TYPES[centers.dtype]}")
        header = ctx.call.header(centers.shape[-2], ctx.call.time, row, step)
        run(
            header.data_ptr(),
            _pointers([*operands, centers, None, activations, by_outputs, *by_last]),
            _pointers([*found, *[None] * BEHIND]),
        )
        return None, *found

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], call: Call, *operands: Tensor | None
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        """Nets beside each other, as ``torch.vmap`` puts them."""
        if call.replicas:
            raise NotImplementedError("replicas of replicas")
        stacked = [
            tensor
            if tensor is None
            else tensor.movedim(dim, 0)
            if dim is not None
            else tensor.expand(info.batch_size, *tensor.shape)
            for tensor, dim in zip(operands, in_dims[1:], strict=True)
        ]
        outcome = CppSequence.apply(replace(call, replicas=info.batch_size), *stacked)
        return outcome, (0,) * len(outcome)


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
    folder = (
        Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "thalnet" / "kernels"
    )
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


def _source(owner: nn.Module, name: str) -> Source:
    """Where a tensor is found, or what computes it."""
    if not name:
        return None
    *path, name = name.split(".")
    owner = owner.get_submodule(".".join(path))
    return getattr(owner, name) if name == "gates" else (owner, name)


def _contiguous(tensors: Pointers) -> list[Tensor | None]:
    return [None if tensor is None else tensor.contiguous() for tensor in tensors]


def _pointers(tensors: Pointers) -> Any:
    return (ctypes.c_void_p * len(tensors))(*[None if t is None else t.data_ptr() for t in tensors])
