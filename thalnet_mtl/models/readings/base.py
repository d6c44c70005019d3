"""Readings: how a module reads the center (poster, section 3; equations as we recall the paper).

Every reading is a matrix R that turns what a module may see of the center Φ into its context,
``c = R Φ``. Static readings learn R itself, or keep it; dynamic ones compute it anew at every step
from the module's own features φ. Registered as ``reading``; a reading of your own is a ``Reading``,
with the same three arguments and its own ``weights``, ``dynamic`` and ``columns``.
"""

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from thalnet_mtl.errors import UserError

Static = Float[Tensor, "context center"]
Dynamic = Float[Tensor, "batch context center"]


class IndexMap(NamedTuple):
    """How one axis of a tensor changes: entry k was entry ``source[k]``, or is new and zero."""

    axis: int
    source: tuple[int | None, ...]

    def __call__(self, tensor: Tensor) -> Tensor:
        size = tensor.shape[self.axis]
        numbers = [size if k is None else k for k in self.source]
        index = torch.tensor(numbers, dtype=torch.long, device=tensor.device)
        shape = list(tensor.shape)
        shape[self.axis] = 1
        return torch.cat([tensor, tensor.new_zeros(shape)], self.axis).index_select(
            self.axis, index
        )


class Reading(nn.Module):
    """The contract: ``Reading(features, center, context)`` and ``weights``.

    ``features`` is the width of the module's own slot, ``center`` that of what it may see,
    ``context`` that of what it gets. ``columns`` names the tensors whose second axis is the
    center: with them the reading can be opened to new slots, and closed, while it trains.
    """

    dynamic: ClassVar[bool] = False
    columns: ClassVar[tuple[str, ...] | None] = None
    kernel: ClassVar[str]

    def __init__(self, features: int, center: int, context: int):
        super().__init__()
        self.features, self.center, self.context = features, center, context

    def weights(self, features: Float[Tensor, "batch features"] | None = None) -> Static | Dynamic:
        """R: one matrix if the reading is static, one for each row of the batch if dynamic."""
        raise NotImplementedError

    def resize(self, source: Sequence[int | None], opened: Sequence[int]) -> dict[str, IndexMap]:
        """See another center, whose position k was ``source[k]`` until now, or is new.

        New columns of R are zero, so that what is read does not change by it. ``opened`` are the
        positions that were not there when the reading was made. Returns what happened to
        parameters that were there before, by name.
        """
        assert self.columns is not None
        remaps = {name: IndexMap(1, tuple(source)) for name in self.columns}
        for name, remap in remaps.items():
            self.replace(name, remap(getattr(self, name).detach()))
        self.center = len(source)
        return remaps

    def check_resize(self, source: Sequence[int | None]) -> None:
        """Raise where ``resize`` cannot be done."""
        if self.columns is None:
            raise UserError(f"{type(self).__name__} has no 'columns': what it sees is fixed.")
        kept = [k for k in source if k is not None]
        zero = [name for name in self.columns if not getattr(self, name)[:, kept].any()]
        if self.columns and len(zero) == len(self.columns):
            raise UserError("it has learned nothing yet of the slots that would be left.")

    def replace(self, name: str, value: Tensor) -> None:
        """A parameter anew, as trainable as the one before."""
        before = self._parameters.get(name)
        trainable = before is None or before.requires_grad
        self.register_parameter(name, nn.Parameter(value, requires_grad=trainable))


class DynamicReading(Reading):
    """R is made anew at every step from the module's features φ.

    No zero in φ's weights makes a column of R zero, so that positions which were opened later have
    a factor each, their ``gate``: it starts at zero and learns.
    """

    dynamic = True
    columns: ClassVar[tuple[str, ...] | None] = ()
    gate: nn.Parameter | None
    opened: Tensor

    def __init__(self, features: int, center: int, context: int):
        super().__init__(features, center, context)
        self.register_parameter("gate", None)
        self.register_buffer("opened", torch.zeros(0, dtype=torch.long), persistent=False)

    def gates(self) -> Float[Tensor, "center"] | None:
        """The factor of every position, 1 for those that were there from the start."""
        if self.gate is None:
            return None
        return self.gate.new_ones(self.center).index_copy(0, self.opened, self.gate)

    def check_resize(self, source: Sequence[int | None]) -> None:
        """As ``Reading.check_resize``: something must be left whose gate is not shut."""
        super().check_resize(source)
        shut = self.opened[self.gate == 0].tolist() if self.gate is not None else []
        if all(k is None or k in shut for k in source):
            raise UserError("it has learned nothing yet of the slots that would be left.")

    def resize(self, source: Sequence[int | None], opened: Sequence[int]) -> dict[str, IndexMap]:
        """As ``Reading.resize``; closes the gates of what is new."""
        old = {position: k for k, position in enumerate(self.opened.tolist())}
        remaps = super().resize(source, opened)
        index = [source[k] for k in opened]
        remap = IndexMap(0, tuple(None if k is None else old.get(k) for k in index))
        device = next(self.parameters()).device
        self.opened = torch.tensor(opened, dtype=torch.long, device=device)
        if not opened:
            self.register_parameter("gate", None)
        elif self.gate is None:
            like = next(self.parameters())
            self.gate = nn.Parameter(like.new_zeros(len(opened)), requires_grad=like.requires_grad)
        else:
            self.replace("gate", remap(self.gate.detach()))
            remaps["gate"] = remap
        return remaps
