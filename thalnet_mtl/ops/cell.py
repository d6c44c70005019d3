"""The modules of a ThalNet that run together in one call, in the form that ``ops`` computes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, eq=False)
class PlacedCell:
    """A module of a ThalNet with its place among the modules that run together.

    Args:
        slot: columns of the center that hold its features: it writes them, others read them.
        memory: columns of the memory that hold its recurrent state.
        visible: positions of the center that it may read; None: all.
        columns: columns of its reading that belong to those positions; None: all.
        inputs: width of its task input, and of random numbers beside it; 0: none.
        context: width of what it reads.
        reading: see ``models.readings.base.Reading``, which ``ops`` must not import.
        design: see ``models.designs.base.Design``.
        takes_input: whether it has a task input.
        same_step: whether it reads the new features of modules with a task input, which run first.
    """

    name: str
    slot: slice
    memory: slice
    visible: list[int] | None
    columns: list[int] | None
    inputs: int
    context: int
    reading: Any
    design: Any
    takes_input: bool = False
    same_step: bool = False


class Placement:
    """The modules that run together, in order, and a cache of what ``ops`` derived from them.

    The slots of the modules fill the center, and their recurrent states the memory, in this order.
    """

    def __init__(self, cells: Sequence[PlacedCell]):
        self.cells = tuple(cells)
        self.cache: dict[Any, Any] = {}  # see ``layout.memoized``

    @property
    def phases(self) -> list[list[PlacedCell]]:
        """The modules that run in the first and in the second part of a step; see ``same_step``."""
        return [[cell for cell in self.cells if cell.same_step == late] for late in (False, True)]

    @property
    def center_width(self) -> int:
        """Features of all modules together."""
        return self.cells[-1].slot.stop

    @property
    def memory_width(self) -> int:
        """Units of all recurrent states together."""
        return self.cells[-1].memory.stop
