"""What a continual run learned, kept and passed on, from its accuracy matrix R.

R[i, j] is the score on task j after stage i, and row 0 that before training. A stage trains one
task or several. ``first(j)`` and ``last(j)`` are the stages that trained task j first and last:
where every stage trains one new task, both are the j of the usual formulas.

A difference is positive when there is more of what its name says, whether a metric counts up or
down: forgetting 0.1 bits means 0.1 bits more. Levels (ACC, AIA) stay in the unit of the metric.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from thalnet_mtl.errors import UserError
from thalnet_mtl.metrics.metric import Metric
from thalnet_mtl.metrics.multitask import relative_gain, skill


@dataclass(frozen=True)
class Measure:
    """A value of each task, or why it has none, and the mean of them all.

    The mean is None, and ``why`` says so, where a task has no value (a mean over fewer tasks is
    another number), where there is no task, and where the tasks differ in their metric.
    """

    values: Mapping[str, float]
    missing: Mapping[str, str]
    mean: float | None
    why: str


class Undefined(Exception):
    """Why a task has no value."""


def measure(
    tasks: Iterable[str],
    value: Callable[[str], float],
    units: Mapping[str, Metric] | None = None,
) -> Measure:
    """Of each task its value; ``units`` are the metrics that they have to share for a mean."""
    values, missing = {}, {}
    for task in tasks:
        try:
            values[task] = value(task)
        except (Undefined, UserError) as reason:
            missing[task] = str(reason)
    names = list(dict.fromkeys(units[task].name for task in values)) if units else []
    why = "; ".join(f"{task}: {reason}" for task, reason in missing.items())
    if not why and not values:
        why = "there is no such task"
    if not why and len(names) > 1:
        why = f"the tasks are measured in {' and '.join(names)}, of which there is no mean"
    return Measure(values, missing, None if why else math.fsum(values.values()) / len(values), why)


def score_of(scores: Mapping[str, float], task: str, kind: str) -> float:
    """What another run scored on a task, if it did."""
    if not math.isfinite(scores.get(task, math.nan)):
        raise Undefined(f"no score of a {kind} run")
    return scores[task]


@dataclass(frozen=True)
class AccuracyMatrix:
    """R[i, j], with the metric of each task and the tasks that each stage trained.

    None, or what is not finite, is a score that is not there: no head yet, not evaluated, diverged.

    >>> from thalnet_mtl.metrics.metric import ACCURACY
    >>> scores = [[0.1, 0.1], [0.9, 0.2], [0.7, 0.8]]
    >>> matrix = AccuracyMatrix({"a": ACCURACY, "b": ACCURACY}, [["a"], ["b"]], scores)
    >>> print(f"{average_accuracy(matrix).mean:.2f} {forgetting(matrix).mean:.2f}")
    0.75 0.20

    Raises:
        ValueError: the shapes do not fit, or a task is unknown or never trained.
    """

    metrics: Mapping[str, Metric]  # of the columns, in the order of the stream
    trained: Sequence[Sequence[str]]  # by the stages 1 … T
    scores: Sequence[Sequence[float | None]]  # rows 0 … T

    def __post_init__(self) -> None:
        stages, rows = len(self.trained), len(self.scores)
        if not stages or rows != stages + 1:
            raise ValueError(
                f"{stages} stages and {rows} rows: there has to be a stage, a row before training, "
                f"and one after each stage."
            )
        if any(len(row) != len(self.metrics) for row in self.scores):
            raise ValueError(f"a row has not one score for each of: {', '.join(self.metrics)}.")
        if set(self.metrics) != {task for stage in self.trained for task in stage}:
            raise ValueError(f"the stages have to train these, and no others: {[*self.metrics]}.")

    @property
    def stages(self) -> int:
        """T, the last one."""
        return len(self.trained)

    @property
    def old(self) -> list[str]:
        """The tasks that the last stage did not train: the j < T of the usual formulas."""
        return [task for task in self.metrics if task not in self.trained[-1]]

    def first(self, task: str) -> int:
        """The stage that trained a task first, from 1."""
        return next(i for i, tasks in enumerate(self.trained, 1) if task in tasks)

    def last(self, task: str) -> int:
        """The stage that trained a task last, from 1."""
        return max(i for i, tasks in enumerate(self.trained, 1) if task in tasks)

    def cell(self, stage: int, task: str) -> float | None:
        """R[stage, task]; None where it is not there."""
        score = self.scores[stage][list(self.metrics).index(task)]
        return score if score is not None and math.isfinite(score) else None

    def score(self, stage: int, task: str) -> float:
        """R[stage, task], or ``Undefined`` where it is not there."""
        score = self.cell(stage, task)
        if score is None:
            raise Undefined(
                f"no score after stage {stage}" if stage else "no score before training"
            )
        return score

    def until(self, stage: int) -> "AccuracyMatrix":
        """What it was after a stage: its rows up to there, of the tasks seen by then."""
        seen = [j for j, task in enumerate(self.metrics) if self.first(task) <= stage]
        tasks = list(self.metrics)
        return AccuracyMatrix(
            {tasks[j]: self.metrics[tasks[j]] for j in seen},
            self.trained[:stage],
            [[row[j] for j in seen] for row in self.scores[: stage + 1]],
        )


def average_accuracy(matrix: AccuracyMatrix) -> Measure:
    """ACC = mean_j R[T, j] (Lopez-Paz, Ranzato, "Gradient Episodic Memory", NIPS 2017)."""
    return measure(matrix.metrics, lambda j: matrix.score(matrix.stages, j), matrix.metrics)


def average_incremental_accuracy(matrix: AccuracyMatrix) -> Measure:
    """AIA = mean_k of the mean of R[k, j] over the tasks seen by stage k, for k in 1 … T.

    Rebuffi et al., "iCaRL", CVPR 2017. The values are those of the stages: 'stage 1', ….
    """
    stages = {f"stage {k}": matrix.until(k) for k in range(1, matrix.stages + 1)}

    def value(stage: str) -> float:
        seen = average_accuracy(stages[stage])
        if seen.mean is None:
            raise Undefined(seen.why)
        return seen.mean

    return measure(stages, value)


def forgetting(matrix: AccuracyMatrix) -> Measure:
    """mean_j (max_l R[l, j] − R[T, j]) over the old tasks j, for l in 1 … T − 1.

    Chaudhry et al., "Riemannian Walk for Incremental Learning", ECCV 2018. Row 0 and the last one
    are not in the maximum: it is negative where a task is at its best at the end. Rows before
    ``first(j)`` are, where they exist, as in the paper; later ones all have to.
    """

    def value(task: str) -> float:
        metric, first = matrix.metrics[task], matrix.first(task)
        before = [i for i in range(1, first) if matrix.cell(i, task) is not None]
        scores = [matrix.score(i, task) for i in (*before, *range(first, matrix.stages))]
        best = max(scores) if metric.higher_is_better else min(scores)
        return _past(metric, best, matrix.score(matrix.stages, task))

    return measure(matrix.old, value, matrix.metrics)


def avalanche_forgetting(matrix: AccuracyMatrix) -> Measure:
    """mean_j (R[first(j), j] − R[T, j]) over the old tasks: what Avalanche calls forgetting.

    First minus last, without a maximum: −BWT where no task was trained twice.
    """
    return _difference(matrix, matrix.old, lambda j: (matrix.first(j), matrix.stages))


def backward_transfer(matrix: AccuracyMatrix) -> Measure:
    """BWT = mean_j (R[T, j] − R[last(j), j]) over the old tasks (Lopez-Paz, Ranzato, 2017).

    From the last stage that trained a task: what it gained by training again is not backward.
    """
    return _difference(matrix, matrix.old, lambda j: (matrix.stages, matrix.last(j)))


def forward_transfer(matrix: AccuracyMatrix) -> Measure:
    """FWT = mean_j (R[first(j) − 1, j] − R[0, j]) over the tasks that stage 1 did not train.

    Lopez-Paz, Ranzato (2017): b[j] is R[0, j], of the same network before any training. A task
    whose head did not exist by then has none, and no chance level stands in for it.
    """
    later = [task for task in matrix.metrics if matrix.first(task) > 1]
    return _difference(matrix, later, lambda j: (matrix.first(j) - 1, 0))


def intransigence(matrix: AccuracyMatrix, joint: Mapping[str, float]) -> Measure:
    """mean_j (J[j] − R[last(j), j]): what a joint run can learn and this one could not.

    Chaudhry et al. (2018), there with a joint run on the tasks up to j, here as it is given.
    """

    def value(task: str) -> float:
        own = matrix.score(matrix.last(task), task)
        return _past(matrix.metrics[task], score_of(joint, task, "joint"), own)

    return measure(matrix.metrics, value, matrix.metrics)


def transfer(matrix: AccuracyMatrix, single: Mapping[str, float]) -> Measure:
    """mean_j (R[last(j), j] − S[j]): what the other tasks were good for when j was learned."""

    def value(task: str) -> float:
        own = matrix.score(matrix.last(task), task)
        return _past(matrix.metrics[task], own, score_of(single, task, "single-task"))

    return measure(matrix.metrics, value, matrix.metrics)


def final_skill(matrix: AccuracyMatrix, single: Mapping[str, float]) -> Measure:
    """mean_j (R[T, j] − R[0, j]) / (S[j] − R[0, j]), over tasks of any metrics."""

    def value(task: str) -> float:
        baseline, untrained = score_of(single, task, "single-task"), matrix.score(0, task)
        return skill(matrix.score(matrix.stages, task), baseline, untrained)

    return measure(matrix.metrics, value)


def final_gain(matrix: AccuracyMatrix, single: Mapping[str, float]) -> Measure:
    """Δm = mean_j ±(R[T, j] − S[j]) / S[j], over tasks of any metrics."""

    def value(task: str) -> float:
        baseline = score_of(single, task, "single-task")
        return relative_gain(matrix.score(matrix.stages, task), baseline, matrix.metrics[task])

    return measure(matrix.metrics, value)


def _difference(
    matrix: AccuracyMatrix, tasks: Iterable[str], stages: Callable[[str], tuple[int, int]]
) -> Measure:
    """How far each task is, after one stage, past what it was after another."""

    def value(task: str) -> float:
        one, other = (matrix.score(stage, task) for stage in stages(task))
        return _past(matrix.metrics[task], one, other)

    return measure(tasks, value, matrix.metrics)


def _past(metric: Metric, a: float, b: float) -> float:
    """How much better a is than b."""
    return a - b if metric.higher_is_better else b - a
