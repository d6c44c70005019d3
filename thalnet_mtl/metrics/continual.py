"""Measures of continual learning, computed from the matrix of scores R of a run.

R[i, j] is the score on task j after stage i; row 0 holds the scores before training. A stage
trains one task or several. ``first(j)`` and ``last(j)`` are the first and the last stage that
trained task j: where every stage trains one new task, both are the j of the usual formulas.

Differences are signed by their name, whether higher or lower values of the metric are better: a
forgetting of 0.1 bits means a score that is 0.1 bits higher, that is, worse. Levels (ACC, AIA)
stay in the unit of the metric.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from thalnet_mtl.errors import UserError
from thalnet_mtl.metrics.metric import Metric, list_names

if TYPE_CHECKING:
    import numpy as np  # at first use, so that help answers without it


@dataclass(frozen=True)
class Measure:
    """The values of a measure by task, and their mean.

    The mean is None, for the reason in ``why``, if a task has no value (a mean over fewer tasks
    would be a different number), if there is no task, or if the tasks differ in their metric.
    """

    values: Mapping[str, float]
    missing: Mapping[str, str]  # reasons why tasks have no value
    mean: float | None
    why: str


class Undefined(Exception):
    """The reason why a task has no value."""


def measure(
    tasks: Iterable[str],
    value: Callable[[str], float],
    units: Mapping[str, Metric] | None = None,
) -> Measure:
    """Compute a measure.

    Args:
        tasks: Tasks that the mean is over.
        value: Computes the value of a task, or raises ``Undefined``.
        units: Metrics of the tasks, which must be equal for a mean to exist; None if the values
            have no unit.
    """
    values, missing = {}, {}
    for task in tasks:
        try:
            values[task] = value(task)
        except (Undefined, UserError) as reason:
            missing[task] = str(reason)
    names = list(dict.fromkeys(units[task].name for task in values)) if units else []
    why = _reasons(missing)
    if not why and not values:
        why = "there is no such task"
    if not why and len(names) > 1:
        why = f"the tasks are measured in {' and '.join(names)}, of which there is no mean"
    return Measure(values, missing, None if why else math.fsum(values.values()) / len(values), why)


def _reasons(missing: Mapping[str, str]) -> str:
    """Return the reasons why tasks have no value, each with the tasks that it holds for."""
    tasks: dict[str, list[str]] = {}
    for task, reason in missing.items():
        tasks.setdefault(reason, []).append(task)
    return "; ".join(f"{list_names(names)}: {reason}" for reason, names in tasks.items())


def score_of(scores: Mapping[str, float], task: str, kind: str) -> float:
    """Return the score of another run on a task; raise ``Undefined`` if it has none."""
    if not math.isfinite(scores.get(task, math.nan)):
        raise Undefined(f"no score of a {kind} run")
    return scores[task]


@dataclass(frozen=True)
class AccuracyMatrix:
    """The scores R[i, j], the metric of each task, and the tasks that each stage trained.

    A score that is None or not finite counts as missing: the task had no head yet, was not
    evaluated, or training diverged.

    >>> from thalnet_mtl.metrics.metric import ACCURACY
    >>> scores = [[0.1, 0.1], [0.9, 0.2], [0.7, 0.8]]
    >>> matrix = AccuracyMatrix({"a": ACCURACY, "b": ACCURACY}, [["a"], ["b"]], scores)
    >>> print(f"{average_accuracy(matrix).mean:.2f} {forgetting(matrix).mean:.2f}")
    0.75 0.20

    Raises:
        ValueError: the shapes do not match, or a task is unknown or never trained.
    """

    metrics: Mapping[str, Metric]  # by task, in the order of the columns
    trained: Sequence[Sequence[str]]  # tasks of the stages 1 … T
    scores: Sequence[Sequence[float | None]]  # rows 0 … T

    def __post_init__(self) -> None:
        stages, rows = len(self.trained), len(self.scores)
        if not stages or rows != stages + 1:
            raise ValueError(
                f"{stages} stages and {rows} rows: there must be a stage, a row before training, "
                f"and a row after each stage."
            )
        if any(len(row) != len(self.metrics) for row in self.scores):
            raise ValueError(f"every row must have a score for each of: {', '.join(self.metrics)}.")
        if set(self.metrics) != {task for stage in self.trained for task in stage}:
            raise ValueError(f"the stages must train exactly these tasks: {[*self.metrics]}.")

    @property
    def stages(self) -> int:
        """Number T of the stages."""
        return len(self.trained)

    @property
    def old(self) -> list[str]:
        """Tasks that the last stage did not train: the j < T of the usual formulas."""
        return [task for task in self.metrics if task not in self.trained[-1]]

    def first(self, task: str) -> int:
        """Return the first stage that trained a task, counted from 1."""
        return self._stages[task][0]

    def last(self, task: str) -> int:
        """Return the last stage that trained a task, counted from 1."""
        return self._stages[task][1]

    @cached_property
    def _stages(self) -> dict[str, tuple[int, int]]:
        """The first and the last stage that trained each task."""
        stages: dict[str, tuple[int, int]] = {}
        for stage, tasks in enumerate(self.trained, 1):
            stages |= {task: (stages.get(task, (stage,))[0], stage) for task in tasks}
        return stages

    @cached_property
    def _columns(self) -> dict[str, int]:
        return {task: column for column, task in enumerate(self.metrics)}

    @cached_property
    def _values(self) -> "np.ndarray":
        """The scores as an array, with NaN for those that are missing."""
        import numpy as np

        values = np.array(self.scores, dtype=float)
        return np.where(np.isfinite(values), values, np.nan)

    def row(self, stage: int) -> "np.ndarray":
        """Return R[stage] of all tasks, with NaN for scores that are missing."""
        return self._values[stage]

    def column(self, task: str) -> "np.ndarray":
        """Return R[:, task], with NaN for scores that are missing."""
        return self._values[:, self._columns[task]]

    def cell(self, stage: int, task: str) -> float | None:
        """Return R[stage, task], or None if it is missing."""
        score = self.scores[stage][self._columns[task]]
        return score if score is not None and math.isfinite(score) else None

    def score(self, stage: int, task: str) -> float:
        """Return R[stage, task]; raise ``Undefined`` if it is missing."""
        score = self.cell(stage, task)
        if score is None:
            raise Undefined(
                f"no score after stage {stage}" if stage else "no score before training"
            )
        return score


def average_accuracy(matrix: AccuracyMatrix) -> Measure:
    """Compute ACC = mean_j R[T, j].

    Lopez-Paz, Ranzato, "Gradient Episodic Memory for Continual Learning", NIPS 2017.
    """
    return measure(matrix.metrics, lambda j: matrix.score(matrix.stages, j), matrix.metrics)


def average_incremental_accuracy(matrix: AccuracyMatrix) -> Measure:
    """Compute AIA = mean_k of the mean of R[k, j] over the tasks seen by stage k, for k in 1 … T.

    Rebuffi et al., "iCaRL", CVPR 2017. Values are by stage: 'stage 1', 'stage 2', ….
    """
    import numpy as np

    stages = {f"stage {k}": k for k in range(1, matrix.stages + 1)}
    firsts = np.array([matrix.first(task) for task in matrix.metrics])
    comparable = len({metric.name for metric in matrix.metrics.values()}) == 1

    def value(stage: str) -> float:
        k = stages[stage]
        scores = matrix.row(k)[firsts <= k]
        if comparable and len(scores) and not np.isnan(scores).any():
            return math.fsum(scores) / len(scores)
        tasks = [task for task in matrix.metrics if matrix.first(task) <= k]
        seen = measure(tasks, lambda j: matrix.score(k, j), matrix.metrics)
        if seen.mean is None:
            raise Undefined(seen.why)
        return seen.mean

    return measure(stages, value)


def forgetting(matrix: AccuracyMatrix) -> Measure:
    """Compute mean_j (max_l R[l, j] − R[T, j]) over the old tasks j, for l in 1 … T − 1.

    Chaudhry et al., "Riemannian Walk for Incremental Learning", ECCV 2018. The maximum leaves out
    row 0 and the last row, so that forgetting is negative for a task that is best at the end. As
    in the paper, it includes rows before ``first(j)``; these may be missing, later ones may not.
    """

    import numpy as np

    def value(task: str) -> float:
        metric, first = matrix.metrics[task], matrix.first(task)
        scores = matrix.column(task)[1 : matrix.stages]
        for stage in np.flatnonzero(np.isnan(scores[first - 1 :])).tolist():
            matrix.score(first + stage, task)  # says that it is missing
        best = float(np.nanmax(scores) if metric.higher_is_better else np.nanmin(scores))
        return metric.improvement(best, matrix.score(matrix.stages, task))

    return measure(matrix.old, value, matrix.metrics)


def avalanche_forgetting(matrix: AccuracyMatrix) -> Measure:
    """Compute mean_j (R[first(j), j] − R[T, j]) over the old tasks, Avalanche's forgetting.

    It has no maximum, and equals −BWT if no task was trained twice.
    """
    return _difference(matrix, matrix.old, lambda j: (matrix.first(j), matrix.stages))


def backward_transfer(matrix: AccuracyMatrix) -> Measure:
    """Compute BWT = mean_j (R[T, j] − R[last(j), j]) over the old tasks.

    Lopez-Paz, Ranzato (2017). It starts at the last stage that trained a task, because what a task
    gains from being trained again is not backward transfer.
    """
    return _difference(matrix, matrix.old, lambda j: (matrix.stages, matrix.last(j)))


def forward_transfer(matrix: AccuracyMatrix) -> Measure:
    """Compute FWT = mean_j (R[first(j) − 1, j] − R[0, j]) over the tasks not trained in stage 1.

    Lopez-Paz, Ranzato (2017); their b[j] is R[0, j], of the same network before any training. A
    task whose head did not exist then has no value; chance level is not used in its place.
    """
    later = [task for task in matrix.metrics if matrix.first(task) > 1]
    return _difference(matrix, later, lambda j: (matrix.first(j) - 1, 0))


def intransigence(matrix: AccuracyMatrix, joint: Mapping[str, float]) -> Measure:
    """Compute mean_j (J[j] − R[last(j), j]): how much better a joint run learns each task.

    Chaudhry et al. (2018), whose joint run is on the tasks up to j; here it is the caller's choice.

    Args:
        joint: Scores J of the joint run, by task.
    """

    def value(task: str) -> float:
        learned_score = matrix.score(matrix.last(task), task)
        return matrix.metrics[task].improvement(score_of(joint, task, "joint"), learned_score)

    return measure(matrix.metrics, value, matrix.metrics)


def transfer(matrix: AccuracyMatrix, single: Mapping[str, float]) -> Measure:
    """Compute mean_j (R[last(j), j] − S[j]): the benefit of the other tasks in learning j.

    Args:
        single: Scores S of single-task runs, by task.
    """

    def value(task: str) -> float:
        learned_score = matrix.score(matrix.last(task), task)
        baseline = score_of(single, task, "single-task")
        return matrix.metrics[task].improvement(learned_score, baseline)

    return measure(matrix.metrics, value, matrix.metrics)


def _difference(
    matrix: AccuracyMatrix, tasks: Iterable[str], stages: Callable[[str], tuple[int, int]]
) -> Measure:
    """Compute by how much each task is better after the first of two stages."""

    def value(task: str) -> float:
        score, reference = (matrix.score(stage, task) for stage in stages(task))
        return matrix.metrics[task].improvement(score, reference)

    return measure(tasks, value, matrix.metrics)
