"""The state of a recurrent module as tensors with the batch first, found by calling the module."""

from collections import namedtuple
from collections.abc import Iterable
from contextlib import nullcontext
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from thalnet_mtl.errors import UserError
from thalnet_mtl.models.modes import evaluation_mode
from thalnet_mtl.models.sequences import map_state
from thalnet_mtl.ops.lengths import are_hidden


class RecurrentLayout(NamedTuple):
    """The tensors of a state: how the module nests them, and their axes, shapes and types.

    ``shapes`` are those for a sequence, without the batch axis, which is at ``axes`` in the module.
    """

    nested: Any  # a state of the module, with empty tensors
    axes: tuple[int, ...]
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[torch.dtype, ...]

    def state(self, parts: Iterable[Tensor]) -> Any:
        """Return tensors with the batch first as a state: a tensor, or a NamedTuple of all."""
        parts = list(parts)
        return parts[0] if len(parts) == 1 else state_type(len(parts))(*parts)

    def parts(self, state: Any) -> list[Tensor]:
        """Return the tensors of a state, each with the batch first."""
        return [state] if isinstance(state, Tensor) else list(state)

    def to_module(self, state: Any) -> Any:
        """Return a state in the form of the module."""
        parts = [
            part.movedim(0, axis).contiguous()
            for part, axis in zip(self.parts(state), self.axes, strict=True)
        ]
        return nest(parts, self.nested)

    def from_module(self, state: Any, dtype: torch.dtype) -> Any:
        """Return a state of the module with the batch first and its numbers in a type."""
        leaves = tensors(state)
        return self.state(
            (leaf.to(dtype) if leaf.is_floating_point() else leaf).movedim(axis, 0)
            for leaf, axis in zip(leaves, self.axes, strict=True)
        )


@cache
def state_type(parts: int) -> Any:
    """Return the NamedTuple of a state of so many tensors: ``part0``, ``part1``, …"""
    make: Any = namedtuple
    kind = make("RecurrentState", [f"part{k}" for k in range(parts)])
    kind.detach = lambda self: kind(*(part.detach() for part in self))
    return kind


def tensors(state: Any) -> list[Tensor]:
    """Return the tensors of a state in nested tuples and lists; raise if there is anything else."""
    if isinstance(state, Tensor):
        return [state]
    if not isinstance(state, tuple | list) or not state:
        raise UserError("a state must be a tensor, or tensors in tuples or lists.")
    return [part for parts in state for part in tensors(parts)]


def nest(parts: Iterable[Tensor], example: Any) -> Any:
    """Return tensors nested as in an example; ``tensors`` is the inverse."""
    remaining = iter(parts)
    return map_state(lambda _: next(remaining), example)


@torch.no_grad()
def find_layout(module: nn.Module, inputs: int, outputs: int) -> RecurrentLayout:
    """Return the layout of the state of a module, which is called on random numbers.

    Raises:
        UserError: the module is not called like ``nn.GRU(batch_first=True)``.
    """
    name = type(module).__name__
    generator = torch.Generator().manual_seed(0)
    weight = next(module.parameters())
    xs = torch.randn(3, 4, inputs, generator=generator, device="cpu").to(weight)
    kind = weight.device.type
    with_autocast = torch.amp.is_autocast_available(kind)
    exact = torch.autocast(kind, enabled=False) if with_autocast else nullcontext()
    with evaluation_mode(module), exact:
        try:
            ys, state = _call(module, xs)
            fewer = _call(module, xs[:2])[1]
            first, middle = _call(module, xs[:, :1])
            last, end = _call(module, xs[:, 1:], middle)
        except UserError as error:
            raise UserError(f"{name}: {error}") from error
        except Exception as error:  # a module of a user may fail in any way
            reason = str(error).partition("\n")[0]
            raise UserError(
                f"{name} is not called like nn.GRU(batch_first=True): module(xs, state) raised "
                f"{type(error).__name__}: {reason}"
            ) from error
        if ys.shape != (3, 4, outputs):
            raise UserError(
                f"{name}: outputs have shape {tuple(ys.shape)} for inputs {tuple(xs.shape)}; "
                f"expected (batch, time, {outputs})."
            )
        leaves = tensors(state)
        axes = tuple(_batch_axis(name, a, b) for a, b in zip(tensors(fewer), leaves, strict=True))
        layout = RecurrentLayout(
            map_state(lambda part: part.new_empty(0), state),
            axes,
            tuple(
                (*leaf.shape[:axis], *leaf.shape[axis + 1 :])
                for leaf, axis in zip(leaves, axes, strict=True)
            ),
            tuple(leaf.dtype for leaf in leaves),
        )
        zeros = map_state(torch.zeros_like, state)
        if not _close(_call(module, xs, zeros)[0], ys):
            raise UserError(f"{name}: without a state it must start from one of zeros.")
        ends = zip(tensors(end), leaves, strict=True)
        if not _close(torch.cat([first, last], 1), ys) or not all(_close(*pair) for pair in ends):
            raise UserError(
                f"{name}: a sequence in chunks must give the same as the whole sequence."
            )
    return layout


def _call(module: nn.Module, xs: Tensor, *state: Any) -> tuple[Tensor, Any]:
    """Call a module, and check that it returns outputs and a state of tensors."""
    result = module(xs, *state)
    if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[0], Tensor)):
        raise UserError("module(xs, state) must return the pair (ys, state).")
    tensors(result[1])
    return result


def _batch_axis(name: str, two: Tensor, three: Tensor) -> int:
    """Return the axis of a state that has 2 entries for a batch of 2, and 3 for one of 3."""
    axes = [
        axis
        for axis, sizes in enumerate(zip(two.shape, three.shape, strict=False))
        if sizes == (2, 3)
    ]
    if two.ndim != three.ndim or len(axes) != 1:
        raise UserError(
            f"{name}: a state of shape {tuple(two.shape)} for 2 sequences and {tuple(three.shape)} "
            f"for 3; expected one axis for the batch."
        )
    return axes[0]


def _close(a: Tensor, b: Tensor) -> bool:
    """Return whether tensors are equal to the rounding of their type, as far as can be read."""
    if a.shape != b.shape or are_hidden(a):
        return a.shape == b.shape
    if not a.is_floating_point():
        return torch.equal(a, b)
    tolerance = torch.finfo(a.dtype).eps ** 0.5
    return torch.allclose(a, b, rtol=tolerance, atol=tolerance)
