"""A figure of a run over several experiences: its matrix of scores, and its validation scores."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from thalnet_mtl.metrics.metric import Metric
from thalnet_mtl.report.figures.style import COLORS, DASHES, WIDTH, every_few, figure
from thalnet_mtl.runs.records import Curve

FEW = 15  # tasks: of more, shades have a scale instead of numbers, and curves are summarized
FEW_ROWS = 40  # of the matrix: of more, it has no numbers either
SHADES = np.linspace(0, 1, 101)


def stream_figure(
    metrics: Mapping[str, Metric],
    trained: Sequence[Sequence[str]],
    scores: Sequence[Sequence[float | None]],
    curves: Mapping[str, Curve],
    ends: Sequence[int],
    guesses: Mapping[str, float],
) -> str:
    """Draw R (trained tasks framed) on the left, validation over the whole stream on the right.

    The color of a score runs from white, the score of guessing, to blue, the perfect one. With many
    tasks there is a scale instead of numbers, names are thinned out, and the curves are summarized.

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
    few = has_numbers(len(metrics), len(scores))
    height = min(max(2.9, rows), 8) if few else max(4.4, 2.4 * len(kinds))
    with figure(WIDTH, height) as (page, image):
        left, right = page.subfigures(1, 2, width_ratios=(1, 1))
        _matrix(left.subplots(), metrics, trained, scores, guesses)
        for axes, metric in zip(
            right.subplots(len(kinds), 1, squeeze=False).flat, kinds, strict=True
        ):
            tasks = [task for task in metrics if metrics[task] == metric]
            own = {task: curves[task] for task in tasks}
            _validation(axes, metric, own, list(metrics), trained, ends)
    return image[0]


def has_numbers(tasks: int, rows: int) -> bool:
    """Return whether a matrix of this size has a number in each cell."""
    return tasks <= FEW and rows <= FEW_ROWS


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
    few = has_numbers(*values.T.shape)
    picture = axes.imshow(
        np.where(np.isnan(values), np.nan, shown), cmap="Blues", vmin=0, vmax=1.15, aspect="auto",
        interpolation="none",
    )  # fmt: skip
    if few:
        _write_numbers(axes, values, shown, metrics)
    else:
        axes.set_facecolor("0.9")
        scale = axes.figure.colorbar(picture, ax=axes, fraction=0.04, pad=0.02, boundaries=SHADES)
        scale.set_ticks(
            [0, 1], labels=["guessing", "perfect"], fontsize=7, rotation=90, va="center"
        )
        scale.outline.set_visible(False)
        scale.ax.tick_params(length=0)
    _frame_trained(axes, tasks, trained, 1.2 if few else 0.5)
    names = every_few(tasks)
    stages = every_few(["untrained", *map(str, range(1, len(scores)))])
    turned = {"rotation": 90} if sum(map(len, names.values())) > 48 else {}
    axes.set_xticks(list(names), list(names.values()), fontsize=7, **turned)
    axes.set_yticks(list(stages), list(stages.values()), fontsize=8)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set(title="Test score of each task", ylabel="after experience")


def _write_numbers(
    axes: Any, values: np.ndarray, shown: np.ndarray, metrics: Mapping[str, Metric]
) -> None:
    """Write every score into its cell, in white where the cell is dark."""
    size = 7 if len(metrics) > 6 else 8
    for stage, row in enumerate(values):
        for column, (value, metric) in enumerate(zip(row, metrics.values(), strict=True)):
            text = "" if np.isnan(value) else f"{metric.scale(value):.3g}"
            color = "white" if shown[stage, column] > 0.7 else "0.2"
            axes.text(column, stage, text, ha="center", va="center", fontsize=size, color=color)


def _frame_trained(
    axes: Any, tasks: Sequence[str], trained: Sequence[Sequence[str]], width: float
) -> None:
    """Frame the tasks that each experience has trained."""
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    places = {task: place for place, task in enumerate(tasks)}
    cells = [
        (places[n] - 0.5, stage - 0.5) for stage, names in enumerate(trained, 1) for n in names
    ]
    frames = [Rectangle(corner, 1, 1) for corner in cells]
    axes.add_collection(
        PatchCollection(frames, facecolor="none", edgecolor=COLORS[1], linewidth=width)
    )


def _validation(
    axes: Any,
    metric: Metric,
    curves: Mapping[str, Curve],
    tasks: Sequence[str],
    trained: Sequence[Sequence[str]],
    ends: Sequence[int],
) -> None:
    if len(tasks) > FEW:
        _many_curves(axes, metric, curves, trained, ends)
    else:
        for task, curve in curves.items():
            style = tasks.index(task)
            axes.plot(
                curve[:, 0], metric.factor * curve[:, 2], label=task,
                color=COLORS[style % len(COLORS)], linewidth=1.2,
                dashes=DASHES[style // len(COLORS) % len(DASHES)] or (None, None),
                marker="o" if len(curve) == 1 else "", markersize=3,
            )  # fmt: skip
        axes.legend(fontsize=6, ncols=1 + len(curves) // 6, frameon=False, loc="best")
        for end in ends[:-1] if len(ends) < FEW_ROWS else ():
            axes.axvline(end, color="0.55", linewidth=0.6, zorder=0)
    axes.margins(x=0.02)
    axes.set_xlim(0, ends[-1])
    axes.locator_params(axis="x", nbins=5)
    axes.set(title="Validation over the stream", xlabel="optimizer steps")
    axes.set_ylabel(metric.label)


def _many_curves(
    axes: Any,
    metric: Metric,
    curves: Mapping[str, Curve],
    trained: Sequence[Sequence[str]],
    ends: Sequence[int],
) -> None:
    """Draw the mean, the quartiles and the extremes of the tasks that have been trained so far."""
    starts = [0, *ends[:-1]]
    since: dict[str, int] = {}  # the step at which the first experience of a task begins
    for start, tasks in zip(starts, trained, strict=True):
        since |= {task: start for task in tasks if task in curves and task not in since}
    begun = sorted(since.values())
    scores: dict[float, list[float]] = {}
    for task, start in since.items():
        for step, _, score in curves[task]:
            if step > start:
                scores.setdefault(step, []).append(metric.factor * score)
    # A step at which only some tasks have a point is left out: long curves are thinned.
    steps = [step for step in sorted(scores) if len(scores[step]) == bisect_left(begun, step)]
    if not steps:
        return
    marks = [(np.mean(scores[n]), *np.quantile(scores[n], (0, 0.25, 0.75, 1))) for n in steps]
    mean, low, lower, upper, high = np.array(marks).T
    style: Any = {"color": COLORS[0], "linewidth": 0}
    axes.fill_between(steps, low, high, alpha=0.15, label="lowest to highest", **style)
    axes.fill_between(steps, lower, upper, alpha=0.3, label="middle half", **style)
    axes.plot(steps, mean, color=COLORS[0], linewidth=1.4, label="mean")
    axes.legend(fontsize=6, frameon=False, loc="best", title="of the tasks trained so far",
                title_fontsize=6)  # fmt: skip
