"""The modules of a ThalNet as parameters, and seated beside each other for one sequence."""

from dataclasses import dataclass
from typing import Any


@dataclass
class PlacedCell:
    """A module at its place among those that run together, as ``ops`` need it."""

    name: str
    slot: slice
    keep: slice
    sees: list[int] | None
    columns: list[int] | None
    inputs: int
    context: int
    reading: Any  # a Reading
    design: Any  # a Design


class Placement(list[PlacedCell]):
    """Modules that run together, and what ``ops`` worked out about them."""

    def __init__(self) -> None:
        super().__init__()
        self.memo: dict[Any, Any] = {}
