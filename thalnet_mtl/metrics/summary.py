"""What a run over several experiences came to: its accuracy matrix, measures and sizes by stage."""

from collections.abc import Mapping, Sequence
from typing import Any

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
from thalnet_mtl.metrics.metric import Metric

MEASURES = {
    "average_accuracy": ("ACC", average_accuracy),
    "average_incremental_accuracy": ("AIA", average_incremental_accuracy),
    "forgetting": ("forgetting", forgetting),
    "avalanche_forgetting": ("forgetting (Avalanche)", avalanche_forgetting),
    "backward_transfer": ("BWT", backward_transfer),
    "forward_transfer": ("FWT", forward_transfer),
}
KEYS = ("scenario", "strategy", "growth", "trained", "ends", "scores", "stages", "measures")
FORMULAS = (
    "R[i, j] is the test score on task j after experience i. ACC is the mean of the last row, AIA "
    "that over the rows of the mean over the tasks seen. Forgetting: best of the rows before the "
    "last one minus the last; Avalanche's: first minus last. BWT: last minus when learned. FWT: "
    "before it was learned minus untrained. Positive is more of it; of bits, lower is better. "
    "min-ACC is the mean over old tasks of their worst validation since they were learned."
)


def summary(
    metrics: Mapping[str, Metric],
    trained: Sequence[Sequence[str]],
    rows: Sequence[Mapping[str, float]],
) -> dict[str, Any]:
    """Plain data for ``result.json``: the matrix, and every measure with its mean or why not."""
    scores = [[row.get(task) for task in metrics] for row in rows]
    matrix = AccuracyMatrix(metrics, trained, scores)
    found = {name: measure(matrix) for name, (_, measure) in MEASURES.items()}
    return {
        "trained": [list(tasks) for tasks in trained],
        "scores": scores,
        "measures": {name: plain(measure) for name, measure in found.items()},
    }


def plain(measure: Measure) -> dict[str, Any]:
    """As data."""
    values = {"mean": measure.mean, "values": dict(measure.values)}
    return values | ({"why": measure.why} if measure.why else {})


def line(content: Mapping[str, Any]) -> str:
    """The means in one line, for people; where there is none, the values of the tasks."""
    shown = []
    for name, (label, _) in MEASURES.items():
        found = content["measures"][name]
        values = [f"{task} {number(value)}" for task, value in found["values"].items()]
        several = ", ".join(values) if values and found["mean"] is None else ""
        shown.append(f"{label} {several or number(found['mean'])}")
    return "; ".join(shown)


def row(content: Mapping[str, Any]) -> dict[str, str]:
    """The means, as cells of a table."""
    cells = {key: str(content[key]) for key in ("scenario", "strategy", "growth")}
    sizes = [f"{stage['total']:,}" for stage in content["stages"]]
    cells["parameters"] = " → ".join(dict.fromkeys((sizes[0], sizes[-1])))
    return cells | {
        label: number(content["measures"][name]["mean"]) for name, (label, _) in MEASURES.items()
    }


def along(
    content: Mapping[str, Any], metrics: Mapping[str, Metric], curves: Mapping[str, Any]
) -> dict[str, str]:
    """Cells of what happened between the ends of experiences: the stability gap.

    ``curves`` are rows of step, seconds and score on validation.
    """
    matrix = AccuracyMatrix(metrics, content["trained"], content["scores"])
    points = {task: [(int(n), float(v)) for n, _, v in curve] for task, curve in curves.items()}
    found = minimum_accuracy(matrix, points, content["ends"])
    return {"min-ACC": number(found.mean)}


def number(value: float | None) -> str:
    """Four digits behind the point, an exact zero as such, and a dash where there is no value."""
    if value is None:
        return "–"
    return "0.0" if value == 0 else f"{value:.4f}"
