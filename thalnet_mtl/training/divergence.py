"""The error for a training that has diverged."""

from thalnet_mtl.errors import RunError


class Diverged(RunError):
    """A loss, a gradient or a weight that is not finite, or a loss that has exploded."""


def diverged(reason: str, tasks: str) -> Diverged:
    """Return the error for a run that has diverged, with what may help."""
    return Diverged(
        f"{reason} of task '{tasks}': training has diverged. Lower --train.learning_rate, set "
        f"--train.clip 1, or choose a bounded reading (weight_norm). The last checkpoint before "
        f"it is kept."
    )
