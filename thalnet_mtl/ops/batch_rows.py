"""Random numbers for some rows of a batch, equal to those that the whole batch would get.

Where processes share a batch, each draws the numbers of all rows and uses those of its own. So the
random streams of all processes stay equal, and a row gets its numbers whoever computes it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class BatchRows(NamedTuple):
    """Rows of a batch, from ``start`` up to, not including, ``stop``, of ``total``."""

    start: int
    stop: int
    total: int

    @property
    def size(self) -> int:
        """The number of these rows."""
        return self.stop - self.start

    def of(self, whole: Tensor) -> Tensor:
        """Return these rows of a tensor with all of them."""
        return whole[self.start : self.stop]


_rows: BatchRows | None = None  # None: all rows


@contextmanager
def only_rows(rows: BatchRows | None) -> Iterator[None]:
    """Let what is computed in the context know that its inputs are some rows of a batch, or all."""
    global _rows
    before, _rows = _rows, rows
    try:
        yield
    finally:
        _rows = before


def draw_rows(draw: Callable[[int], Tensor], count: int) -> Tensor:
    """Return random numbers for the rows that are computed, along the first axis.

    Args:
        draw: returns the numbers of as many rows as it is called with.
        count: rows that are computed.
    """
    if _rows is None:
        return draw(count)
    return _rows.of(draw(_rows.total))


def dropout(xs: Tensor, rate: float, training: bool) -> Tensor:
    """Return ``torch.nn.functional.dropout`` with the mask that the whole batch would get."""
    if _rows is None or not training or not rate:
        return F.dropout(xs, rate, training)
    shape = xs.shape[1:]
    mask = draw_rows(lambda n: F.dropout(torch.ones((n, *shape)).to(xs), rate), len(xs))
    return xs * mask
