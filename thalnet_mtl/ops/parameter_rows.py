"""Gradients of many parameters at once, where parameters are views of a few long rows.

Autograd takes microseconds for every parameter of a step, which is half of the time of a network
with many small modules. While ``gradients_by_row`` is on, a backend may compute with the rows in
the place of the parameters that are views of them. It then adds to the gradients of whole rows, of
which the gradients of the parameters are views.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class ParameterRows:
    """Rows of parameters.

    Args:
        leaves: a leaf of autograd for every row, with the memory and the gradient of the row.
        places: index of the row, and the first element there, for every parameter in a row.
    """

    leaves: Sequence[Tensor]
    places: Mapping[Tensor, tuple[int, int]]

    def place(self, tensor: Tensor | None) -> tuple[int, int] | None:
        """Return row and first element of a trained parameter, None for all other tensors."""
        if tensor is None or not tensor.requires_grad or has_hooks(tensor):
            return None
        return self.places.get(tensor)


_active: ContextVar[ParameterRows | None] = ContextVar("parameter rows", default=None)


@contextmanager
def gradients_by_row(rows: ParameterRows | None) -> Iterator[None]:
    """Let backends compute with rows, or not. Only ``backward`` may follow.

    ``torch.autograd.grad`` does not know the parameters that a backend has replaced by rows.
    """
    token = _active.set(rows)
    try:
        yield
    finally:
        _active.reset(token)


def active_rows() -> ParameterRows | None:
    """Return the rows to compute with, None where each parameter has a gradient on its own."""
    return _active.get()


def has_hooks(tensor: Tensor) -> bool:
    """Return whether a parameter has hooks, which want to see its gradient."""
    return bool(tensor._backward_hooks or getattr(tensor, "_post_accumulate_grad_hooks", None))
