"""Networks without numbers, built for the shapes and the number of their parameters."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

DRAWING = (torch.randn, torch.rand)
SCALING = (Tensor.mul, Tensor.__mul__, Tensor.__rmul__, Tensor.div, Tensor.__truediv__)


@contextmanager
def shapes_only() -> Iterator[None]:
    """Context manager in which modules are built on the device ``meta``, without numbers.

    What draws and scales initial weights returns an empty tensor. On ``meta`` PyTorch would do it
    by programs in Python, whose first use imports its compiler: a second of processor time.

    >>> with shapes_only():
    ...     (torch.randn(2, 3) * 0.5).shape
    torch.Size([2, 3])
    """
    with torch.device("meta"), _WithoutNumbers():
        yield


class _WithoutNumbers(TorchFunctionMode):
    """Replaces initial numbers, which have none on ``meta``, by empty tensors of their shape."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        options = dict(kwargs or {})
        if func in DRAWING:
            options.pop("generator", None)
            return torch.empty(*args, **options)
        if func in SCALING and isinstance(args[1], float) and args[0].is_floating_point():
            return torch.empty(args[0].shape, dtype=args[0].dtype)
        return func(*args, **options)
