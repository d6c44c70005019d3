"""The contract of a reading: the matrix R with which a module reads the center, ``c = R Φ``.

Φ is what the module may read of the center, c its context (ThalNet poster, section 3; Hafner et
al., NIPS 2017). The R of a static reading is a parameter or a buffer; a dynamic reading computes it
at every step from the module's own features φ. Readings are registered as ``reading``. To add one,
subclass ``Reading`` or ``DynamicReading``, keep the three arguments and define ``weights``.
"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from thalnet_mtl.errors import UserError

Static = Float[Tensor, "context center"]
Dynamic = Float[Tensor, "batch context center"]
NOTHING_LEFT = (
    "all weights for the remaining slots are still zero, so the module would read nothing; "
    "train first."
)


class IndexMap(NamedTuple):
    """A change of one axis of a tensor: entry k becomes the old entry ``source[k]``.

    Where ``source[k]`` is None the entry is new and zero.
    """

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
    """A reading of the center: ``c = R Φ`` with R from ``weights``.

    Args:
        features: width of the module's own slot.
        center: width of what the module may read.
        context: width of the context.

    Class attributes:
        dynamic: whether R depends on the module's features.
        columns: names of the tensors whose second axis is the center. With them slots can be
            opened and closed while the network trains; None: what the module reads is fixed.
        kernel: name of the formula in ``ops.layout.KERNELS``, if the fast backends know it. It
            holds for the class that sets it, not for its subclasses. Without it R comes from
            ``weights``: a static reading then runs on every backend, a dynamic one on ``batched``
            and ``reference``.
    """

    dynamic: ClassVar[bool] = False
    columns: ClassVar[tuple[str, ...] | None] = None
    kernel: ClassVar[str]

    def __init__(self, features: int, center: int, context: int):
        super().__init__()
        self.features, self.center, self.context = features, center, context

    def weights(self, features: Float[Tensor, "batch features"] | None = None) -> Static | Dynamic:
        """Return R: one matrix if the reading is static, one for each row of the batch if not."""
        raise NotImplementedError

    def forward(self, features: Tensor | None = None) -> Tensor:
        """Return R; called instead of ``weights`` if the reading has hooks."""
        return self.weights(features)

    def resize(self, source: Sequence[int | None], opened: Sequence[int]) -> dict[str, IndexMap]:
        """Change which positions of the center are read.

        New columns of R are zero, so the context does not change.

        Args:
            source: for every new position its old position, None where it is new.
            opened: new positions that the module was not created with.

        Returns:
            How existing parameters changed, by name.
        """
        assert self.columns is not None
        remaps = {name: IndexMap(1, tuple(source)) for name in self.columns}
        for name, remap in remaps.items():
            self.set_parameter(name, remap(getattr(self, name).detach()))
        self.center = len(source)
        return remaps

    def check_resize(self, source: Sequence[int | None]) -> None:
        """Raise a UserError if ``resize`` is impossible or would leave a reading of zeros."""
        if self.columns is None:
            raise UserError(
                f"{type(self).__name__} has no 'columns', so what it reads cannot be changed."
            )
        tensors = {**self._parameters, **self._buffers}
        changed = [name for name in self.columns if name not in tensors]
        if changed:
            raise UserError(
                f"its '{changed[0]}' is pruned or parametrized. Make that permanent first, with "
                f"torch.nn.utils.prune.remove or parametrize.remove_parametrizations."
            )
        remaining = [k for k in source if k is not None]
        zero = [name for name in self.columns if _is_zero(getattr(self, name)[:, remaining])]
        if self.columns and len(zero) == len(self.columns):
            raise UserError(NOTHING_LEFT)

    def set_parameter(self, name: str, value: Tensor) -> None:
        """Replace a parameter by one with this value that is trainable if the old one was."""
        old = self._parameters.get(name)
        trainable = old is None or old.requires_grad
        self.register_parameter(name, nn.Parameter(value, requires_grad=trainable))


def _is_zero(tensor: Tensor) -> bool:
    """Return whether all numbers are zero; a tensor without data has none that are."""
    return not tensor.is_meta and not tensor.any()


class DynamicReading(Reading):
    """A reading whose R is computed at every step from the module's features φ.

    A column of R cannot be made zero by parameters that multiply φ. Each position that is opened
    later therefore has a factor, its ``gate``, which starts at zero and is learned.
    """

    dynamic = True
    columns: ClassVar[tuple[str, ...] | None] = ()
    gate: nn.Parameter | None
    opened: Tensor  # positions with a gate, in its order

    def __init__(self, features: int, center: int, context: int):
        super().__init__(features, center, context)
        self.register_parameter("gate", None)
        self.opened_columns: tuple[int, ...] = ()
        self.register_buffer("opened", torch.zeros(0, dtype=torch.long), persistent=False)

    def gates(self) -> Float[Tensor, "center"] | None:
        """Return the factor of every position, 1 for the original ones; None: all are 1."""
        if self.gate is None:
            return None
        if self.opened.device != self.gate.device:  # built without data, and then loaded
            self._set_opened(self.opened_columns)
        return self.gate.new_ones(self.center).index_copy(0, self.opened, self.gate)

    def _set_opened(self, columns: Sequence[int]) -> None:
        self.opened_columns = tuple(columns)
        device = next(self.parameters()).device
        self.opened = torch.tensor(self.opened_columns, dtype=torch.long, device=device)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        super()._apply(fn, recurse)
        self._set_opened(self.opened_columns)  # ``to_empty`` has lost it, and nothing loads it
        return self

    def check_resize(self, source: Sequence[int | None]) -> None:
        """Raise a UserError if ``resize`` is impossible or all remaining gates are zero."""
        super().check_resize(source)
        if self.gate is None or self.gate.is_meta:
            closed = list[int]()
        else:
            closed = self.opened[self.gate == 0].tolist()
        if all(k is None or k in closed for k in source):
            raise UserError(NOTHING_LEFT)

    def resize(self, source: Sequence[int | None], opened: Sequence[int]) -> dict[str, IndexMap]:
        """Change which positions are read; see ``Reading.resize``. New gates are zero."""
        old = {position: k for k, position in enumerate(self.opened_columns)}
        remaps = super().resize(source, opened)
        index = [source[k] for k in opened]
        remap = IndexMap(0, tuple(None if k is None else old.get(k) for k in index))
        like = next(self.parameters())
        self._set_opened(opened)
        if not opened:
            self.register_parameter("gate", None)
        elif self.gate is None:
            self.gate = nn.Parameter(like.new_zeros(len(opened)), requires_grad=like.requires_grad)
        else:
            self.set_parameter("gate", remap(self.gate.detach()))
            remaps["gate"] = remap
        return remaps
