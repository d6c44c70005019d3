"""A figure of a run over several experiences: its matrix of scores, and its validation scores."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from thalnet_mtl.metrics.metric import Metric
from thalnet_mtl.report.figures.style import COLORS, DASHES, WIDTH, figure
from thalnet_mtl.runs.records import Curve


def stream_figure(
    metrics: Mapping[str, Metric],
    trained: Sequence[Sequence[str]],
    scores: Sequence[Sequence[float | None]],
    curves: Mapping[str, Curve],
    ends: Sequence[int],
    guesses: Mapping[str, float],
) -> str:
    """Draw R (trained tasks framed) on the left, validation over the whole stream on the right.

    The color of a score runs from white, the score of guessing, to blue, the perfect one.

    Args:
        metrics: by task, in the order of the columns of R.
        trained: tasks of each experience.
        scores: R.
        curves: validation scores, by task.
        ends: last steps of the experiences.
        guesses: test scores of guessing, by task.
    """
    kinds = list(dict.fromkeys(metrics.values()))
    rows = max(0.22 * len(scores) + 0.9, 1.9 * len(kinds))
    with figure(WIDTH, min(max(2.9, rows), 8)) as (page, image):
        left, right = page.subfigures(1, 2, width_ratios=(1, 1))
        _matrix(left.subplots(), metrics, trained, scores, guesses)
        for axes, metric in zip(
            right.subplots(len(kinds), 1, squeeze=False).flat, kinds, strict=True
        ):
            tasks = [task for task in metrics if metrics[task] == metric]
            _validation(axes, metric, {task: curves[task] for task in tasks}, list(metrics), ends)
    return image[0]


def _matrix(
    axes: Any,
    metrics: Mapping[str, Metric],
    trained: Sequence[Sequence[str]],
    scores: Sequence[Sequence[float | None]],
    guesses: Mapping[str, float],
) -> None:
    tasks = list(metrics)
    values = np.array([[np.nan if s is None else s for s in row] for row in scores], dtype=float)
    shown = np.zeros_like(values)
    for column, (task, metric) in enumerate(metrics.items()):
        if guesses[task] != metric.perfect:
            scores_of_task = [metric.normalized_score(x, guesses[task]) for x in values[:, column]]
            shown[:, column] = scores_of_task
    axes.imshow(shown, cmap="Blues", vmin=0, vmax=1.15, aspect="auto")
    size = 7 if len(tasks) > 6 else 8
    for stage, row in enumerate(values):
        for column, value in enumerate(row):
            text = "" if np.isnan(value) else f"{metrics[tasks[column]].scale(value):.3g}"
            color = "white" if shown[stage, column] > 0.7 else "0.2"
            axes.text(column, stage, text, ha="center", va="center", fontsize=size, color=color)
            if stage and tasks[column] in trained[stage - 1]:
                corner = (column - 0.5, stage - 0.5)
                frame = {"fill": False, "edgecolor": COLORS[1], "linewidth": 1.2}
                axes.add_patch(_rectangle(corner, frame))
    turned = {"rotation": 90} if sum(map(len, tasks)) > 48 else {}
    axes.set_xticks(range(len(tasks)), tasks, fontsize=7, **turned)
    axes.set_yticks(range(len(scores)), ["untrained", *map(str, range(1, len(scores)))], fontsize=8)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set(title="Test score of each task", ylabel="after experience")


def _rectangle(corner: tuple[float, float], frame: dict[str, Any]) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle(corner, 1, 1, **frame)


def _validation(
    axes: Any,
    metric: Metric,
    curves: Mapping[str, Curve],
    tasks: Sequence[str],
    ends: Sequence[int],
) -> None:
    for task, curve in curves.items():
        style = tasks.index(task)
        axes.plot(
            curve[:, 0], metric.factor * curve[:, 2], label=task, color=COLORS[style % len(COLORS)],
            dashes=DASHES[style // len(COLORS) % len(DASHES)] or (None, None), linewidth=1.2,
            marker="o" if len(curve) == 1 else "", markersize=3,
        )  # fmt: skip
    for end in ends[:-1]:
        axes.axvline(end, color="0.55", linewidth=0.6, zorder=0)
    axes.margins(x=0.02)
    axes.set_xlim(0, ends[-1])
    axes.locator_params(axis="x", nbins=5)
    axes.set(title="Validation over the stream", xlabel="optimizer steps")
    axes.set_ylabel(metric.label)
    axes.legend(fontsize=6, ncols=1 + len(curves) // 6, frameon=False, loc="best")
