"""Learning curves and results of groups of runs, each drawn as a data URI.

The figures know neither run directories nor HTML: ``SeedGroup``s go in, an image comes out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, NamedTuple

import numpy as np

from thalnet_mtl.metrics.metric import Metric
from thalnet_mtl.report.figures.style import COLORS, DASHES, WIDTH, axis_label, figure, numbered
from thalnet_mtl.runs.records import Curve

MARKERS = {"train": "o", "validation": "D", "test": "o"}


class ResultPoint(NamedTuple):
    """A finished run in a figure: its name, its size, and its metric on the three splits."""

    name: str
    parameters: int
    train: float
    validation: float
    test: float


@dataclass(frozen=True)
class SeedGroup:
    """Runs that differ only in their seed, and therefore share a color."""

    label: str
    style: int
    losses: Sequence[Curve]
    scores: Sequence[Curve]
    points: Sequence[ResultPoint]

    @property
    def color(self) -> str:
        """Color of all lines of the group."""
        return COLORS[self.style % len(COLORS)]

    @property
    def dashes(self) -> tuple[int, ...]:
        """Dashes of all lines of the group, () for solid ones."""
        return DASHES[self.style // len(COLORS) % len(DASHES)]


class ChangeMark(NamedTuple):
    """A topology change, after so many steps and seconds of training."""

    step: float
    seconds: float


def curves(groups: Sequence[SeedGroup], metric: Metric, marks: Sequence[ChangeMark] = ()) -> str:
    """Draw training loss and validation metric over steps, and validation metric over time.

    Marks are thin vertical lines with numbers above; numbers that would overlap become a range.
    """
    longest = max((c[-1, 1] for g in groups for c in (*g.losses, *g.scores)), default=0.0)
    unit, seconds = next(u for u in (("h", 3600), ("min", 60), ("s", 1)) if longest >= 3 * u[1] - 3)
    with figure(WIDTH, 2.9) as (page, image):
        loss, score, time = page.subplots(1, 3)
        for group in groups:
            _lines(loss, group, group.losses, 0, np.ones(3))
            _lines(score, group, group.scores, 0, np.array([1, 1, metric.factor]))
            _lines(time, group, group.scores, 1, np.array([1, 1 / seconds, metric.factor]))
        loss.set(xlabel="optimizer steps", ylabel="loss")
        score.set(xlabel="optimizer steps", ylabel=axis_label(metric))
        time.set(xlabel=f"training time ({unit})", ylabel=axis_label(metric))
        steps = [mark.step for mark in marks]
        times = [mark.seconds / seconds for mark in marks]
        for axes, title, places in (
            (loss, "Training", steps), (score, "Validation", steps), (time, "Validation", times)
        ):  # fmt: skip
            axes.set_title(title, pad=14 if marks else 6)
            for place in places:
                axes.axvline(place, color="0.55", linewidth=0.6, zorder=0)
            axes.margins(x=0.02)
            axes.set_xlim(left=0)
            axes.locator_params(axis="x", nbins=5)
            _number(axes, places)
    return image[0]


def results(groups: Sequence[SeedGroup], metric: Metric) -> str:
    """Draw test results over parameters (left) and all splits of every finished run (right)."""
    rows = sum(len(group.points) for group in groups)
    with figure(WIDTH, max(2.9, 0.8 + 0.21 * rows)) as (page, image):
        left, right = page.subplots(1, 2)
        _against_parameters(left, groups, metric)
        _splits(right, groups, metric)
    return image[0]


def _against_parameters(axes: Any, groups: Sequence[SeedGroup], metric: Metric) -> None:
    """Draw a dot for each run and a dash for the mean of seeds, with names at the right edge."""
    marks = []
    for group in groups:
        points = [point for point in group.points if np.isfinite(point.test)]
        if not points:
            continue
        xs = np.array([point.parameters / 1000 for point in points])
        ys = np.array([point.test * metric.factor for point in points])
        axes.plot(xs, ys, "o", color=group.color, markersize=5, alpha=0.8)
        if len(ys) > 1:
            axes.plot(xs.mean(), ys.mean(), "_", color=group.color, markersize=12)
        marks.append((ys.mean(), xs.mean(), group))
    sizes = [x for _, x, _ in marks]
    if sizes and max(sizes) > 10 * min(sizes) > 0:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:,g}")
        axes.xaxis.set_minor_formatter("")
    else:
        axes.set_xlim(0, 1.08 * max(sizes, default=1.0) or 1.0)
    axes.margins(y=0.1)
    marks.sort(key=lambda mark: mark[0])
    low, high = axes.get_ylim()
    gap = (high - low) * 0.18 / axes.figure.get_figheight()
    places = _spread([y for y, _, _ in marks], gap)
    for (y, x, group), place in zip(marks, places, strict=True):
        axes.annotate(
            _short(group.label), (x, y), (1.04, place), textcoords=axes.get_yaxis_transform(),
            color=group.color, fontsize=8, va="center", annotation_clip=False,
            arrowprops={"arrowstyle": "-", "linewidth": 0.5, "color": "0.7", "relpos": (0, 0.5)},
        )  # fmt: skip
    axes.set(title="Test against size", xlabel="parameters (thousands)", ylabel=axis_label(metric))


def _splits(axes: Any, groups: Sequence[SeedGroup], metric: Metric) -> None:
    """Draw training, validation and test results of each run on one line."""
    names: list[str] = []
    for group in groups:
        for point in group.points:
            values = {split: getattr(point, split) * metric.factor for split in MARKERS}
            axes.plot(list(values.values()), [len(names)] * 3, color="0.8", linewidth=1, zorder=1)
            for split, value in values.items():
                face = {"train": "white", "validation": "0.75", "test": group.color}[split]
                axes.plot(
                    value, len(names), MARKERS[split], color=group.color, markerfacecolor=face,
                    markersize=5,
                )  # fmt: skip
            names.append(_short(point.name))
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.locator_params(axis="x", nbins=6)
    axes.grid(axis="x", color="0.93")
    axes.set_axisbelow(True)
    axes.set(title="Open: training, gray: validation, filled: test", xlabel=axis_label(metric))


def _lines(axes: Any, group: SeedGroup, lines: Sequence[Curve], x: int, scale: np.ndarray) -> None:
    """Draw a thin line for each of several runs, and a thick one for their mean."""
    lines = [line * scale for line in lines]
    strokes = [(line, 0.7, 0.5) for line in lines] if len(lines) > 1 else []
    strokes += [(_mean(lines), 1.6, 1.0)] if lines else []
    for line, width, alpha in strokes:
        dotted = len(line) < 15 and alpha == 1
        axes.plot(
            line[:, x], line[:, 2], color=group.color, linewidth=width, alpha=alpha,
            dashes=group.dashes or (None, None), marker="o" if dotted else "", markersize=3,
        )  # fmt: skip


def _number(axes: Any, places: Sequence[float]) -> None:
    """Write the numbers of marks above the axes, as many as fit."""
    width = axes.get_xlim()[1]
    for place, label in numbered([place / width for place in places]):
        axes.annotate(
            label, (place, 1), (0, 2), xycoords="axes fraction", textcoords="offset points",
            fontsize=7, color="0.3", ha="center", va="bottom", annotation_clip=False,
        )  # fmt: skip


def _mean(lines: Sequence[Curve]) -> Curve:
    """Return the mean of curves at the steps that all of them have."""
    steps = reduce(np.intersect1d, [line[:, 0] for line in lines])
    return np.mean([line[np.isin(line[:, 0], steps)] for line in lines], axis=0)


def _spread(values: Sequence[float], gap: float) -> list[float]:
    """Move ascending values until they are at least ``gap`` apart, around the same mean."""
    places: list[float] = []
    for value in values:
        places.append(max(value, places[-1] + gap) if places else value)
    shift = (sum(places) - sum(values)) / max(1, len(places))
    return [place - shift for place in places]


def _short(text: str, length: int = 28) -> str:
    """Shorten a name in its middle: runs differ at the end, labels of groups at the beginning."""
    half = length // 2
    return text if len(text) <= length else f"{text[:half]}…{text[-half + 1 :]}"
