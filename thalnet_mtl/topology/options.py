"""Options that every module has beside its design and its reading, as plain data."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from thalnet_mtl.errors import UserError, unknown

Normalize = Literal["none", "context", "features", "gates"]
HIGHEST_RATE = 0.9  # of dropout and zoneout


@dataclass(frozen=True)
class ModuleOptions:
    """Normalization, regularization and initialization of a module, or of all layers of a GRU.

    Args:
        normalize: ``context``: what the module reads of the center; ``features``: what it writes to
            it, both by their root mean square; ``gates``: the parts of the gates of its GRUs that
            come from the input and from the state, each by its own layer norm.
        dropout: rate at which elements of the context are zero in training.
        zoneout: probability with which a unit of the memory keeps its value for a step in training.
            In evaluation it takes the expected value.
        orthogonal: whether recurrent weights start as orthogonal matrices, one for each gate.
        chrono: time scale T in steps, at least 3: the biases of the update gates start so that a
            unit forgets after 2 … T steps; 0: as usual.
        trainable_start: whether the state before the first step is trained. It starts at zero.
        same_step: whether the module reads the features that input modules write in the same step,
            instead of those of the step before. Input modules run first.
    """

    normalize: Normalize = "none"
    dropout: float = 0.0
    zoneout: float = 0.0
    orthogonal: bool = False
    chrono: int = 0
    trainable_start: bool = False
    same_step: bool = False

    def __post_init__(self) -> None:
        if self.normalize not in get_args(Normalize):
            raise unknown("value of normalize", str(self.normalize), get_args(Normalize))
        for name in ("dropout", "zoneout"):
            if not 0 <= getattr(self, name) <= HIGHEST_RATE:
                raise UserError(
                    f"{name}: must be between 0 and {HIGHEST_RATE}, got {getattr(self, name)}."
                )
        if self.chrono and self.chrono < 3:
            raise UserError(f"chrono: must be 0 or at least 3 steps, got {self.chrono}.")

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> "ModuleOptions":
        """Return the options from values by name; the others have their defaults.

        Raises:
            UserError: there is no such option, or a value is not allowed.
        """
        for name in values:
            if name not in OPTION_NAMES:
                raise unknown("option of a module", name, OPTION_NAMES)
        return cls(**values)

    def changed(self) -> dict[str, Any]:
        """Return the options that are not at their defaults, by name."""
        return {
            leaf.name: getattr(self, leaf.name)
            for leaf in fields(self)
            if getattr(self, leaf.name) != leaf.default
        }

    def words(self) -> str:
        """Return the options that are not at their defaults in words; '' if all are.

        >>> ModuleOptions(zoneout=0.1, orthogonal=True).words()
        'zoneout 0.1, orthogonal'
        """
        return ", ".join(
            name if value is True else f"{name} {value}" for name, value in self.changed().items()
        )


OPTION_NAMES = tuple(leaf.name for leaf in fields(ModuleOptions))
