"""Scores on the three splits side by side, and test scores against the size of the network."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from thalnet_mtl.metrics.metric import Metric
from thalnet_mtl.report.cells import Cell
from thalnet_mtl.report.figures.style import axis_label
from thalnet_mtl.report.panel import Panel, number
from thalnet_mtl.report.task_views import SeedView, TaskView
from thalnet_mtl.runs.results import SPLITS

ROWS = 24  # of a figure; of more, as many that are spread evenly are drawn


@dataclass(frozen=True)
class Scores:
    """The finished runs of a group of seeds on a task."""

    task: TaskView
    group: SeedView
    metric: Metric

    @property
    def cells(self) -> dict[str, Cell]:
        """Scores over the seeds by split."""
        return {s: Cell([r.score(s) for r in self.group.finished], self.metric) for s in SPLITS}

    @property
    def parameters(self) -> float:
        """Mean number of parameters of the runs."""
        sizes = [r.run.result.parameters.total for r in self.group.finished if r.run.result]
        return sum(sizes) / len(sizes)

    def data(self) -> dict[str, Any]:
        """Return the scores as the scripts draw them."""
        content: dict[str, Any] = {
            "task": self.task.title,
            "group": self.group.label,
            "style": self.group.style,
            "count": len(self.group.finished),
            "parameters": round(self.parameters),
        }
        for split, cell in self.cells.items():
            assert cell.mean is not None
            content[split] = number(self.metric.scale(cell.mean))
        test = self.cells["test"]
        if len(test.values) > 1 and all(np.isfinite(test.values)):
            assert test.interval is not None
            content["interval"] = [number(self.metric.scale(end)) for end in test.interval]
        return content

    def row(self) -> dict[str, str]:
        """Return the scores as a row of a table."""
        return {
            "task": self.task.title,
            "runs": self.group.label,
            "n": str(len(self.group.finished)),
            "parameters": f"{self.parameters:,.0f}",
            **{split: cell.format() for split, cell in self.cells.items()},
        }


def splits_panel(tasks: Sequence[TaskView]) -> Panel | None:
    """Return the scores on all splits; None for fewer than two rows, which need no figure."""
    scores = _scores(tasks)
    if len(scores) < 2:
        return None
    sentence = (
        "Open: training split, on as many batches as the test split has; gray: validation; filled: "
        "test. The distance from training to test is the generalization gap."
    )
    if any(len(each.group.finished) > 1 for each in scores):
        sentence += " Marks are means over seeds, lines a 95 % interval of the test score."
    drawn = scores
    if len(scores) > ROWS:
        places = np.linspace(0, len(scores) - 1, ROWS).round().astype(int).tolist()
        drawn = [scores[place] for place in places]
        sentence += f" Drawn are {ROWS} of {len(scores)} rows, spread evenly; the table has all."
    sentence += _limit(scores)
    return Panel(
        "splits",
        "Training, validation and test",
        sentence,
        {"metrics": _by_metric(drawn)},
        [each.row() for each in scores],
    )


def sizes_panel(tasks: Sequence[TaskView]) -> Panel | None:
    """Return test scores against sizes; None where all networks have the same size.

    Of several tasks with the same metric, the mean over the tasks that a group of runs has.
    """
    points: dict[tuple[str, str, int], list[Scores]] = {}
    for each in _scores(tasks):
        points.setdefault((axis_label(each.metric), each.group.label, each.group.style), []).append(
            each
        )
    sizes = {round(each.parameters) for members in points.values() for each in members}
    if len(sizes) < 2:
        return None
    metrics: dict[str, list[dict[str, Any]]] = {}
    rows = []
    for (label, group, style), members in points.items():
        means = [each.metric.scale(each.cells["test"].mean or 0.0) for each in members]
        mean, parameters = sum(means) / len(means), members[0].parameters
        metrics.setdefault(label, []).append({
            "group": group, "style": style, "parameters": round(parameters),
            "test": number(mean), "tasks": len(members),
        })  # fmt: skip
        rows.append({
            "runs": group, "parameters": f"{parameters:,.0f}", "tasks": str(len(members)),
            f"mean test {label}": f"{mean:#.4g}",
        })  # fmt: skip
    rows = [dict.fromkeys({k: "" for row in rows for k in row}, "") | row for row in rows]
    several = max(len(members) for members in points.values()) > 1
    sentence = "Mean test score over the parameters of the whole network, a dot for each group of "
    sentence += "runs that differ in their seed only"
    sentence += ", over the tasks that it has." if several else "."
    return Panel(
        "sizes",
        "Test against size",
        sentence + _limit(_scores(tasks)),
        {"metrics": [{"label": label, "points": each} for label, each in metrics.items()]},
        rows,
    )


def _scores(tasks: Sequence[TaskView]) -> list[Scores]:
    return [
        Scores(task, group, task.metric)
        for task in tasks
        for group in task.groups
        if group.finished and task.metric
    ]


def _by_metric(scores: Sequence[Scores]) -> list[dict[str, Any]]:
    metrics: dict[str, list[Scores]] = {}
    for each in scores:
        metrics.setdefault(axis_label(each.metric), []).append(each)
    return [
        {"label": label, "unit": members[0].metric.unit, "rows": [each.data() for each in members]}
        for label, members in metrics.items()
    ]


def _limit(scores: Sequence[Scores]) -> str:
    """Return a caveat if some runs were not scored on all of their data."""
    limits = dict.fromkeys(r.run.evaluation_limit for each in scores for r in each.group.finished)
    limited = [limit for limit in limits if limit]
    subject = "All runs" if len(limits) == 1 else "Some runs"
    return f" {subject} were scored {' or '.join(limited)}." if limited else ""
