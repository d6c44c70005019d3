"""The inputs of a batch: one tensor, or several by the name of the input."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

Inputs = Tensor | Mapping[str, Tensor]


def map_inputs(function: Callable[[Tensor], Tensor], xs: Any) -> Any:
    """Apply a function to a tensor, or to every tensor of a mapping."""
    if isinstance(xs, Mapping):
        return {name: function(x) for name, x in xs.items()}
    return function(xs)


def first_input(xs: Any) -> Tensor:
    """Return a tensor, or the first of a mapping."""
    return next(iter(xs.values())) if isinstance(xs, Mapping) else xs


def inputs_by_name(xs: Any) -> Mapping[str, Tensor]:
    """Return the inputs of a batch by name; the only input is called ''."""
    return xs if isinstance(xs, Mapping) else {"": xs}
