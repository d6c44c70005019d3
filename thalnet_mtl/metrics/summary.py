"""The summary of a run over several experiences: matrix of scores, measures, costs by stage."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from thalnet_mtl.errors import UserError
from thalnet_mtl.json_fields import from_fields, require, typed
from thalnet_mtl.metrics.continual import (
    AccuracyMatrix,
    Measure,
    avalanche_forgetting,
    average_accuracy,
    average_incremental_accuracy,
    backward_transfer,
    forgetting,
    forward_transfer,
)
from thalnet_mtl.metrics.learning_curves import minimum_accuracy
from thalnet_mtl.metrics.metric import Metric, list_names

MEASURES = {
    "average_accuracy": ("ACC", average_accuracy),
    "average_incremental_accuracy": ("AIA", average_incremental_accuracy),
    "forgetting": ("forgetting", forgetting),
    "avalanche_forgetting": ("forgetting (Avalanche)", avalanche_forgetting),
    "backward_transfer": ("BWT", backward_transfer),
    "forward_transfer": ("FWT", forward_transfer),
}
NORMALIZED = Metric("normalized_score", higher_is_better=True, perfect=1.0)
MEAN_OF_NORMALIZED = (
    "the tasks differ in their metric, so this is a mean of normalized scores: 0 for guessing, 1 "
    "for a perfect answer"
)
FORMULAS = (
    "R[i, j] is the test score on task j after experience i, in its main metric. ACC: mean of the "
    "last row of R. AIA: mean over the rows of the mean over the tasks seen so far. Forgetting: "
    "best score before the last experience minus the last score; Avalanche's: score when first "
    "learned minus the last. BWT: last score minus the score when learned. FWT: score before the "
    "task was learned minus the untrained score. Differences are signed so that positive means "
    "more forgetting or more transfer, also where lower scores are better. min-ACC: mean over the "
    "old tasks of the worst validation score since they were learned. Where tasks differ in their "
    "metric, a mean is one of normalized scores (0 for guessing, 1 for a perfect answer)."
)


@dataclass(frozen=True)
class StageCost:
    """The size and the cost of the network at the end of a stage; stage 0 is before training."""

    total: int  # parameters
    trainable: int
    frozen: int
    multiply_adds: Mapping[str, int]  # of one sequence, by task
    stored_bytes: int | None  # kept by the strategy; None if it cannot be known (Avalanche)


@dataclass(frozen=True)
class MeasureSummary:
    """The mean of a measure and its values by task.

    ``why`` says why a mean is missing, or that it is one of normalized scores.
    """

    mean: float | None
    values: Mapping[str, float]
    why: str = ""

    def format(self, metric: Metric | None = None) -> str:
        """Format the mean, and say if it is one of normalized scores.

        Args:
            metric: of all tasks, whose unit is shown; None if they differ or it is unknown.
        """
        if self.why == MEAN_OF_NORMALIZED:
            return f"{format_score(self.mean)} (normalized)"
        return format_score(self.mean, metric)

    def to_json(self) -> dict[str, Any]:
        """Return the entry of the measure in ``result.json``."""
        content = {"mean": self.mean, "values": dict(self.values)}
        return content | ({"why": self.why} if self.why else {})


@dataclass(frozen=True)
class ContinualSummary:
    """The outcome of a run over several experiences, ``continual`` in ``result.json``.

    Attributes:
        scenario: 'task-incremental', 'class-incremental', 'domain-incremental', …
        strategy: its name.
        growth: 'never', or when and how the network grows.
        ends: the last step of each experience.
        stages: size and cost of the network before training and after each experience.
        trained: the tasks of each experience.
        scores: the matrix of test scores: a row a stage, the first before training, and a column a
            task; None before a task has a head.
        measures: ``mean`` and ``values`` by task of 'average_accuracy',
            'average_incremental_accuracy', 'forgetting', 'avalanche_forgetting',
            'backward_transfer' and 'forward_transfer'.
        kept: with early stopping, the step whose weights each experience kept.
    """

    scenario: str
    strategy: str
    growth: str
    ends: Sequence[int]
    stages: Sequence[StageCost]
    trained: Sequence[Sequence[str]]
    scores: Sequence[Sequence[float | None]]
    measures: Mapping[str, MeasureSummary]
    kept: Sequence[int] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the entry ``continual`` of ``result.json``."""
        return {
            "scenario": self.scenario,
            "strategy": self.strategy,
            "growth": self.growth,
            "ends": list(self.ends),
            "stages": [asdict(stage) for stage in self.stages],
            "trained": [list(tasks) for tasks in self.trained],
            "scores": [list(row) for row in self.scores],
            "measures": {name: measure.to_json() for name, measure in self.measures.items()},
        } | ({"kept": list(self.kept)} if self.kept else {})

    @classmethod
    def from_json(cls, content: Any, where: str) -> "ContinualSummary":
        """Read the entry ``continual`` of ``result.json``; ``where`` names it in errors."""
        require(content, ("measures",), where)
        absent = MeasureSummary(None, {}, "the version that wrote the run does not have it")
        saved = typed(content["measures"], Mapping[str, MeasureSummary], f"{where}: measures")
        measures = {name: saved.get(name, absent) for name in MEASURES}
        summary = from_fields(cls, content | {"measures": measures}, where)
        stages = len(summary.trained) + 1
        if stages < 2 or {len(summary.scores), len(summary.stages), len(summary.ends) + 1} != {
            stages
        }:
            raise UserError(f"{where} is damaged: its lists are not those of the same experiences.")
        return summary

    def line(self, metrics: Mapping[str, Metric] | None = None) -> str:
        """Return the means in one line; where there is no mean, the values of the tasks.

        Args:
            metrics: of the tasks, whose units are shown; by default numbers without a unit.
        """
        parts = []
        by_name = metrics or {}
        for name, (label, _) in MEASURES.items():
            measure = self.measures[name]
            values = [
                f"{task} {format_score(value, by_name.get(task))}"
                for task, value in measure.values.items()
            ]
            by_task = list_names(values) if measure.mean is None else ""
            parts.append(f"{label} {by_task or measure.format(shared_metric(by_name))}")
        return "; ".join(parts)

    def row(self, metrics: Mapping[str, Metric] | None = None) -> dict[str, str]:
        """Return scenario, strategy, growth, parameters and means as cells of a table."""
        sizes = [f"{stage.total:,}" for stage in self.stages]
        cells = {"scenario": self.scenario, "strategy": self.strategy, "growth": self.growth}
        cells["parameters"] = " → ".join(dict.fromkeys((sizes[0], sizes[-1])))
        shared = shared_metric(metrics or {})
        means = {label: self.measures[name].format(shared) for name, (label, _) in MEASURES.items()}
        return cells | means

    def minimum_accuracy(self, metrics: Mapping[str, Metric], curves: Mapping[str, Any]) -> Measure:
        """Compute min-ACC, which shows the stability gap between the ends of experiences.

        Args:
            metrics: By task, in the order of the columns of ``scores``.
            curves: By task, rows of step, seconds and validation score.
        """
        matrix = trained_matrix(metrics, self.trained, self.scores)
        points = {
            task: [(int(step), float(score)) for step, _, score in curve]
            for task, curve in curves.items()
        }
        return minimum_accuracy(matrix, points, self.ends)


def summarize(
    metrics: Mapping[str, Metric],
    trained: Sequence[Sequence[str]],
    scores: Sequence[Mapping[str, float]],
    *,
    scenario: str,
    strategy: str,
    growth: str,
    ends: Sequence[int],
    stages: Sequence[StageCost],
    guess: Mapping[str, float] | None = None,
    kept: Sequence[int] = (),
) -> ContinualSummary:
    """Compute all measures of a run over several experiences.

    Where tasks differ in their metric, means are those of normalized scores, on which guessing is
    0 and a perfect answer 1.

    Args:
        metrics: By task, in the order of the columns of the matrix of scores.
        trained: The tasks of each experience.
        scores: Test scores by task, before training and after each experience; a task without a
            head yet has none.
        scenario, strategy, growth, ends, stages, kept: See ``ContinualSummary``.
        guess: The test score of guessing by task.
    """
    rows = [[row.get(task) for task in metrics] for row in scores]
    return ContinualSummary(
        scenario=scenario,
        strategy=strategy,
        growth=growth,
        ends=ends,
        stages=stages,
        trained=trained,
        scores=rows,
        measures=stream_measures(metrics, trained, rows, guess or {}),
        kept=kept,
    )


def stream_measures(
    metrics: Mapping[str, Metric],
    trained: Sequence[Sequence[str]],
    rows: Sequence[Sequence[float | None]],
    guess: Mapping[str, float],
) -> dict[str, MeasureSummary]:
    """Compute the measures of ``MEASURES``.

    Args:
        metrics: By task, in the order of the columns.
        trained: The tasks of each experience.
        rows: The matrix of scores.
        guess: The test score of guessing by task, for means over tasks of different metrics.
    """
    matrix = trained_matrix(metrics, trained, rows)
    normalized = normalized_matrix(matrix, guess)
    return {
        name: _measure(function, matrix, normalized) for name, (_, function) in MEASURES.items()
    }


def _measure(
    function: Callable[[AccuracyMatrix], Measure],
    matrix: AccuracyMatrix,
    normalized: AccuracyMatrix | None,
) -> MeasureSummary:
    """Compute a measure; its mean over normalized scores if there is no other."""
    measure = function(matrix)
    if measure.mean is None and normalized:
        normalized_measure = function(normalized)
        if normalized_measure.mean is not None:
            values = normalized_measure.values if measure.missing else measure.values
            return MeasureSummary(normalized_measure.mean, values, MEAN_OF_NORMALIZED)
    return MeasureSummary(measure.mean, measure.values, measure.why)


def normalized_matrix(matrix: AccuracyMatrix, guess: Mapping[str, float]) -> AccuracyMatrix | None:
    """Return the matrix with every score normalized: 0 for guessing, 1 for a perfect answer.

    None if the tasks have the same metric, or if guessing is unknown or perfect for one of them.
    """
    metrics = matrix.metrics
    if len({metric.name for metric in metrics.values()}) < 2:
        return None
    if any(guess.get(task, metric.perfect) == metric.perfect for task, metric in metrics.items()):
        return None
    rows = [
        [
            None if score is None else metric.normalized_score(score, guess[task])
            for score, (task, metric) in zip(row, metrics.items(), strict=True)
        ]
        for row in matrix.scores
    ]
    return AccuracyMatrix(dict.fromkeys(metrics, NORMALIZED), matrix.trained, rows)


def trained_matrix(
    metrics: Mapping[str, Metric],
    trained: Sequence[Sequence[str]],
    scores: Sequence[Sequence[float | None]],
) -> AccuracyMatrix:
    """Return the matrix of scores without the columns of tasks that are only scored."""
    names = {task for stage in trained for task in stage}
    columns = [j for j, task in enumerate(metrics) if task in names]
    return AccuracyMatrix(
        {task: metric for task, metric in metrics.items() if task in names},
        trained,
        [[row[j] for j in columns] for row in scores],
    )


def shared_metric(metrics: Mapping[str, Metric]) -> Metric | None:
    """Return the metric of all tasks, None if they differ."""
    distinct = set(metrics.values())
    return distinct.pop() if len(distinct) == 1 else None


def format_score(value: float | None, metric: Metric | None = None) -> str:
    """Format a score in the unit of a metric, or with four decimals without one.

    An exact zero is '0.0', and no value a dash.
    """
    if value is None:
        return "–"
    if value == 0:
        return "0.0"
    return metric.format(value) if metric else f"{value:.4f}"
