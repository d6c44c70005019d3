"""The fields of an experience, an entry of a configuration's ``stream``."""

from dataclasses import dataclass

from thalnet_mtl.config.overlay import option
from thalnet_mtl.errors import UserError


@dataclass(frozen=True)
class ExperienceConfig:
    """An entry of ``stream``: one experience."""

    tasks: tuple[str, ...] = option((), "tasks to train, jointly if there are several")
    steps: int = option(
        0, "training steps; 0: train.steps, or as many as train.epochs takes", low=0
    )
    expect: tuple[str, ...] = option(
        (),
        "search: right answers for its new task, as in 'probe of digits', or 'probe' for any task",
    )
    shares: tuple[float, ...] = option(
        (), "hidden boundaries: shares of the tasks in a batch, in their order; default: equal"
    )
    blur: int = option(
        0, "hidden boundaries: steps in which its share rises, half of them before it begins", low=0
    )

    def checked(self, where: str) -> "ExperienceConfig":
        """Return the experience, or raise if it names no task."""
        if not self.tasks:
            raise UserError(f"{where}: every experience needs tasks.")
        return self
