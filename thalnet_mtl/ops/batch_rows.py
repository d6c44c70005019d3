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

from thalnet_mtl.errors import UserError


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
_state: list[Tensor] = []  # of the random numbers, when ``draw_rows`` drew the last ones


@contextmanager
def only_rows(rows: BatchRows) -> Iterator[None]:
    """Let what is computed in the context know that its inputs are some rows of a batch.

    Raises:
        UserError: something else than ``draw_rows`` draws random numbers there.
    """
    global _rows, _state
    before, _rows = _rows, rows
    try:
        _state = _random_state()
        yield
        _check_drawn()
    finally:
        _rows = before


def draw_rows(draw: Callable[[int], Tensor], count: int) -> Tensor:
    """Return random numbers for the rows that are computed, along the first axis.

    Args:
        draw: returns the numbers of as many rows as it is called with.
        count: rows that are computed.

    Raises:
        UserError: several processes compute a batch in several passes each.
    """
    global _state
    if _rows is None:
        return draw(count)
    if count != _rows.size:
        raise UserError(
            "train.accumulate: random numbers, as of dropout, are drawn for a whole pass, which "
            "several processes do not share. Leave it at 1, or train without torchrun."
        )
    _check_drawn()
    numbers = _rows.of(draw(_rows.total))
    _state = _random_state()
    return numbers


def dropout(xs: Tensor, rate: float, training: bool) -> Tensor:
    """Return ``torch.nn.functional.dropout`` with the mask that the whole batch would get."""
    if _rows is None or not training or not rate:
        return F.dropout(xs, rate, training)
    shape = xs.shape[1:]
    mask = draw_rows(lambda n: F.dropout(torch.ones((n, *shape)).to(xs), rate), len(xs))
    return xs * mask


def _random_state() -> list[Tensor]:
    """Return the state of the random numbers of the processor, and of the GPU if it is used."""
    gpu = torch.cuda.is_available() and torch.cuda.is_initialized()
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state()] if gpu else [])]


def _check_drawn() -> None:
    """Raise if numbers were drawn since ``draw_rows`` last did."""
    if not all(map(torch.equal, _state, _random_state())):
        raise UserError(
            "the network draws random numbers by itself while it trains, as a dropout between its "
            "layers does, and several processes would draw others than one. Train it without "
            "torchrun, or draw them with thalnet_mtl.ops.batch_rows.draw_rows."
        )
