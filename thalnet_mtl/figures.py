"""The figures of a report, each a data URI that a page can hold without any other file.

They know neither run directories nor HTML: a ``Group`` goes in, an image comes out. Colors are
those of Okabe and Ito, which people with any color vision can tell apart; after the last of them
the dashes change, so that 28 groups look different.
"""

import base64
import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from thalnet_mtl.metrics import Metric

Curve = Float[np.ndarray, "_ 3"]  # columns: step, seconds of training, value
Weight = Float[np.ndarray, "_ center"]

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#333333")
DASHES: tuple[tuple[int, ...], ...] = ((), (5, 2), (1, 2), (5, 2, 1, 2))
WIDTH = 10.0  # inches, shown about 1,000 pixels wide
SPLITS = {"train": "o", "validation": "D", "test": "o"}
STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.edgecolor": "0.4",
    "axes.formatter.useoffset": False,
    "xtick.color": "0.3",
    "ytick.color": "0.3",
    "text.parse_math": False,  # a run may be called a$b$
    "svg.hashsalt": "thalnet",  # the same runs give the same bytes
}


class Point(NamedTuple):
    """A finished run: its name in a figure, its size, and the metric on the three parts."""

    name: str
    parameters: int
    train: float
    validation: float
    test: float


@dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but the seed, and so share a color."""

    label: str
    style: int
    losses: Sequence[Curve]
    scores: Sequence[Curve]
    points: Sequence[Point]

    @property
    def color(self) -> str:
        return COLORS[self.style % len(COLORS)]

    @property
    def dashes(self) -> tuple[int, ...]:
        return DASHES[self.style // len(COLORS) % len(DASHES)]


def curves(groups: Sequence[Group], metric: Metric) -> str:
    """Training loss and validation metric against steps, and the latter against time."""
    longest = max((c[-1, 1] for g in groups for c in (*g.losses, *g.scores)), default=0.0)
    unit, seconds = next(u for u in (("h", 3600), ("min", 60), ("s", 1)) if longest >= 3 * u[1] - 3)
    with _figure(WIDTH, 2.9) as (figure, image):
        loss, score, time = figure.subplots(1, 3)
        for group in groups:
            _lines(loss, group, group.losses, 0, np.ones(3))
            _lines(score, group, group.scores, 0, np.array([1, 1, _scale(metric)]))
            _lines(time, group, group.scores, 1, np.array([1, 1 / seconds, _scale(metric)]))
        loss.set(title="Training", xlabel="optimizer steps", ylabel="loss (nats)")
        score.set(title="Validation", xlabel="optimizer steps", ylabel=axis_label(metric))
        time.set(title="Validation", xlabel=f"training time ({unit})", ylabel=axis_label(metric))
        for axes in (loss, score, time):
            axes.margins(x=0.02)
            axes.set_xlim(left=0)
            axes.locator_params(axis="x", nbins=5)
    return image[0]


def results(groups: Sequence[Group], metric: Metric) -> str:
    """Left, test results against parameters; right, the three parts of every finished run."""
    rows = sum(len(group.points) for group in groups)
    with _figure(WIDTH, max(2.9, 0.8 + 0.21 * rows)) as (figure, image):
        left, right = figure.subplots(1, 2)
        _against_parameters(left, groups, metric)
        _parts(right, groups, metric)
    return image[0]


def panels(weights: Mapping[str, Weight], slots: Mapping[str, int]) -> str:
    """|R| of every module as the paper's authors drew it, with the slots marked."""
    columns = min(2, len(weights))
    rows = -(-len(weights) // columns)
    ratio = max(len(w) / w.shape[1] for w in weights.values())
    width = 6.6
    height = min(max(width / columns * ratio, 0.6), 3.0)
    with _figure(width, rows * (height + 0.55), "png") as (figure, image):
        for axes, (name, weight) in zip(
            figure.subplots(rows, columns, squeeze=False).flat, weights.items(), strict=False
        ):
            axes.imshow(clipped(weight), cmap="gray", vmin=0, vmax=1, aspect="auto")
            edges = _edges(slots)
            for edge in edges[1:-1]:
                axes.axvline(edge - 0.5, color=COLORS[4], linewidth=1)
            middles = (edges[1:] + edges[:-1]) / 2 - 0.5
            axes.set_xticks(middles, _short_names(slots), fontsize=8 if len(slots) < 7 else 6)
            axes.set_yticks([0, len(weight) - 1], ["1", str(len(weight))], fontsize=7)
            axes.tick_params(length=0)
            axes.spines[:].set_visible(False)
            axes.set_title(f"{name} reads", fontsize=9)
        for axes in figure.axes[len(weights) :]:
            axes.set_axis_off()
        figure.supylabel("context element", fontsize=8, color="0.3")
        figure.supxlabel("position in the center, by slot", fontsize=8, color="0.3")
    return image[0]


def clipped(weight: Weight) -> Weight:
    """|R| from 0 (black) at its 5th percentile to 1 (white) at its 95th.

    Where those two are equal, as for a module that sees few slots, all that is above is white.
    """
    size = np.abs(weight)
    low, high = np.percentile(size, (5, 95))
    if low == high:
        return (size > low).astype(weight.dtype)
    return np.clip((size - low) / (high - low), 0, 1)


def slot_means(
    weights: Mapping[str, Weight], slots: Mapping[str, int]
) -> Float[np.ndarray, "reader slot"]:
    """Mean |R| of every module over every slot, given the widths of the slots in their order."""
    edges = _edges(slots)
    blocks = [[w[:, a:b] for a, b in pairwise(edges)] for w in weights.values()]
    return np.array([[np.abs(block).mean() for block in row] for row in blocks], dtype=float)


def axis_label(metric: Metric) -> str:
    """Name, unit and direction."""
    name = "accuracy (%)" if metric.name == "accuracy" else "bits per character"
    return f"{name}, {'higher' if metric.higher_is_better else 'lower'} is better"


def _against_parameters(axes: Any, groups: Sequence[Group], metric: Metric) -> None:
    """A dot a run, a dash the mean of seeds; names at the right edge, pushed apart."""
    marks = []
    for group in groups:
        points = [point for point in group.points if np.isfinite(point.test)]
        if not points:
            continue
        xs = np.array([point.parameters / 1000 for point in points])
        ys = np.array([point.test * _scale(metric) for point in points])
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
    places = _apart([y for y, _, _ in marks], gap)
    for (y, x, group), place in zip(marks, places, strict=True):
        axes.annotate(
            _short(group.label), (x, y), (1.04, place), textcoords=axes.get_yaxis_transform(),
            color=group.color, fontsize=8, va="center", annotation_clip=False,
            arrowprops={"arrowstyle": "-", "linewidth": 0.5, "color": "0.7", "relpos": (0, 0.5)},
        )  # fmt: skip
    axes.set(title="Test against size", xlabel="parameters (thousands)", ylabel=axis_label(metric))


def _parts(axes: Any, groups: Sequence[Group], metric: Metric) -> None:
    """Training, validation and test results of a run on one line."""
    names: list[str] = []
    for group in groups:
        for point in group.points:
            values = {split: getattr(point, split) * _scale(metric) for split in SPLITS}
            axes.plot(list(values.values()), [len(names)] * 3, color="0.8", linewidth=1, zorder=1)
            for split, value in values.items():
                face = {"train": "white", "validation": "0.75", "test": group.color}[split]
                axes.plot(
                    value, len(names), SPLITS[split], color=group.color, markerfacecolor=face,
                    markersize=5,
                )  # fmt: skip
            names.append(_short(point.name))
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.locator_params(axis="x", nbins=6)
    axes.grid(axis="x", color="0.93")
    axes.set_axisbelow(True)
    axes.set(title="Open: training, gray: validation, full: test", xlabel=axis_label(metric))


def _lines(axes: Any, group: Group, lines: Sequence[Curve], x: int, scale: np.ndarray) -> None:
    """A thin line a run, and a thick one for the mean where there are several."""
    lines = [line * scale for line in lines]
    several = len(lines) > 1
    drawn = [(line, 0.7, 0.5) for line in lines] if several else []
    drawn += [(_mean(lines), 1.6, 1.0)] if lines else []
    for line, width, alpha in drawn:
        few = len(line) < 15 and alpha == 1
        axes.plot(
            line[:, x], line[:, 2], color=group.color, linewidth=width, alpha=alpha,
            dashes=group.dashes or (None, None), marker="o" if few else "", markersize=3,
        )  # fmt: skip


def _mean(lines: Sequence[Curve]) -> Curve:
    """Over the steps that all of them have."""
    steps = reduce(np.intersect1d, [line[:, 0] for line in lines])
    return np.mean([line[np.isin(line[:, 0], steps)] for line in lines], axis=0)


def _apart(values: Sequence[float], gap: float) -> list[float]:
    """Ascending values moved as far as it takes to be ``gap`` apart, around the same mean."""
    places: list[float] = []
    for value in values:
        places.append(max(value, places[-1] + gap) if places else value)
    shift = (sum(places) - sum(values)) / max(1, len(places))
    return [place - shift for place in places]


def _edges(slots: Mapping[str, int]) -> np.ndarray:
    return np.cumsum([0, *slots.values()])


def _short_names(slots: Mapping[str, int]) -> list[str]:
    """Slot names that fit under their slots."""
    return [name if len(slots) < 7 else name.replace("side", "") for name in slots]


def _short(text: str, length: int = 28) -> str:
    """Names of runs differ at the end, labels of groups at the beginning: keep both."""
    half = length // 2
    return text if len(text) <= length else f"{text[:half]}…{text[-half + 1 :]}"


def _scale(metric: Metric) -> float:
    return 100.0 if metric.name == "accuracy" else 1.0


@contextmanager
def _figure(width: float, height: float, form: str = "svg") -> Iterator[tuple[Any, list[str]]]:
    """A figure to draw on; afterwards the list holds its data URI."""
    import matplotlib
    from matplotlib.figure import Figure

    image: list[str] = []
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a name in letters that the font lacks
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, image
        file = io.BytesIO()
        figure.savefig(file, format=form, dpi=200, metadata={"Date": None} if form == "svg" else {})
    kind = "svg+xml" if form == "svg" else form
    image.append(f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}")
