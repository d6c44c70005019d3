"""A task as prompts and notebooks show it."""

from typing import Any


class ShownTask:
    """A task that shows itself as its shapes and its metrics; its data is not loaded for that."""

    def __repr__(self) -> str:
        task: Any = self
        metrics = ", ".join(metric.name for metric in task.metrics)
        return f"{type(self).__name__}({task.name!r}: {task.spec.words()}; {metrics})"
