"""The scores of a run that are part of its state, and the patience that follows from them."""

import math
from dataclasses import dataclass, field, fields
from typing import Any

from thalnet_mtl.json_fields import from_fields, require
from thalnet_mtl.metrics.metric import Metric

# By task the ``step`` and ``value`` of its best validation score, the number of validations since
# then, and the training batches that were seen until the last of them.
BestByTask = dict[str, dict[str, float]]


@dataclass
class PlainPart:
    """A part of the state that consists of plain values and tensors."""

    def state_dict(self) -> dict[str, Any]:
        """Return the values by field name."""
        return {entry.name: getattr(self, entry.name) for entry in fields(self)}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned, if every value has the type of its field."""
        where = type(self).__name__.lower()
        require(saved, [entry.name for entry in fields(self)], where)
        vars(self).update(vars(from_fields(type(self), saved, where)))


@dataclass
class Scores(PlainPart):
    """Scores so far: the best ones on validation, before training, and the matrix of scores.

    ``best`` is the mean over tasks of the normalized score of the best weights.
    """

    best: float = -math.inf
    best_step: int = 0
    best_by_task: BestByTask = field(default_factory=dict)
    untrained: dict[str, dict[str, float]] = field(default_factory=dict)
    accuracy_matrix: list[dict[str, float]] = field(default_factory=list)  # test, by experience
    costs: list[dict[str, Any]] = field(default_factory=list)  # by row; see ``measure_cost``

    def validations_without_improvement(self, task: str) -> float:
        """Return how many validations have passed since the best one of a task."""
        return waited(self.best_by_task, task)

    def reset_patience(self, task: str) -> None:
        """Count validations without improvement from 0 again."""
        if task in self.best_by_task:
            self.best_by_task[task]["validations_since"] = 0


@dataclass
class EarlyStopping(PlainPart):
    """Early stopping within the experiences of a stream (``train.patience``).

    Attributes:
        ends: the last step of each experience that is over.
        kept: the step whose weights each of them has kept.
        best: mean over the tasks of this experience of the normalized score of its best weights.
        best_step: the step of these weights; 0 before the first validation of the experience.
        best_by_task: best validation scores since the experience began.
        learned: network, loss weighting, optimizer and strategy at that step.
    """

    ends: list[int] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)
    best: float = -math.inf
    best_step: int = 0
    best_by_task: BestByTask = field(default_factory=dict)
    learned: dict[str, Any] = field(default_factory=dict)

    def end_experience(self, step: int) -> None:
        """Begin anew with the next experience after a step."""
        ends, kept = [*self.ends, step], [*self.kept, self.best_step]
        vars(self).update(vars(EarlyStopping(ends, kept)))


def waited(best: BestByTask, task: str) -> float:
    """Return how many validations have passed since the best one of a task."""
    return best.get(task, {"validations_since": 0})["validations_since"]


def record_validation(
    best_by_task: BestByTask,
    task: str,
    metric: Metric,
    value: float,
    step: int,
    batches: int,
    active: bool,
) -> None:
    """Update the best score of a task with a new validation score.

    Args:
        best_by_task: the best scores of all tasks.
        task: its name.
        metric: of the task.
        value: the new score.
        step: of the validation.
        batches: the training batches of the task so far. Without a new one, a validation does not
            count against the patience.
        active: whether the task is still trained. If it has stopped early it stays stopped.
    """
    best = best_by_task.get(task)
    if best is None or metric.better(value, best["value"]):
        since = 0 if best is None or active else best["validations_since"]
        best_by_task[task] = {"step": step, "value": value, "validations_since": since}
    elif batches > best["batches_seen"]:
        best["validations_since"] += 1
    best_by_task[task]["batches_seen"] = batches


def is_better(mean: float, best: float, best_step: int) -> bool:
    """Return whether a mean score is better than the best one so far, of a step; 0 if none is."""
    return mean > best or math.isnan(best) or not best_step
