"""What the targets of a task are called, and the units in which people read them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

MOST = 5  # names in a sentence


@dataclass(frozen=True)
class Naming:
    """The names of the targets of a task, for errors and notices.

    Args:
        class_names: names of the classes, if they have any.
        columns: names of the outputs, if any; they repeat where several rows are forecast.
        in_units: returns targets (…, outputs) in the units of the data.
    """

    class_names: Sequence[str] = ()
    columns: Sequence[str] = ()
    in_units: Callable[[Tensor], Tensor] = lambda values: values

    def class_name(self, label: int) -> str:
        """Return the name of a class in quotes, or its number."""
        return repr(str(self.class_names[label])) if self.class_names else str(label)

    def output(self, k: int) -> str:
        """Return the number of an output, with its name."""
        name = f" ('{self.columns[k % len(self.columns)]}')" if self.columns else ""
        return f"output {k}{name}"

    def of_columns(self) -> str:
        """Return the columns as the end of a phrase: `` of column 'y'``."""
        if not self.columns:
            return ""
        noun = "column" if len(self.columns) == 1 else "columns"
        return f" of {noun} {listed([repr(name) for name in self.columns])}"


WITHOUT_NAMES = Naming()


def listed(names: Sequence[str], most: int = MOST) -> str:
    """Return names with commas, shortened if there are many."""
    hidden = len(names) - most
    return ", ".join(names[:most]) + (f" and {hidden} more" if hidden > 0 else "")
