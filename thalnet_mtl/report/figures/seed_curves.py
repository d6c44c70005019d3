"""Curves over training steps, with the seeds of a configuration as a band."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from jaxtyping import Float

from thalnet_mtl.metrics.significance import bootstrap_interval
from thalnet_mtl.report.figures.style import COLORS, DASHES

CurveOfSeed = Float[np.ndarray, "_ 3"]  # as ``Curve``; seeds may differ in their points
STYLES = len(COLORS) * len(DASHES)  # lines that can be told apart
POINTS = 60  # of a band: its intervals are computed at so many steps
ENDS = 40  # of experiences: lines of more would hide the curves


@dataclass(frozen=True)
class Series:
    """A line of a figure: the curves of a configuration, one for each of its seeds."""

    label: str  # '' for the only one, which needs no name
    style: int
    curves: Sequence[CurveOfSeed]


def draw_series(axes: Any, series: Sequence[Series], factor: float = 1.0) -> None:
    """Draw a line for each series, and a band around that of several curves.

    The line is the mean over the seeds, the band its 95 % bootstrap interval, both at the steps
    that all seeds have logged.

    Args:
        axes: to draw on.
        series: what is drawn.
        factor: of the values.
    """
    for each in series:
        steps, values = common_points(each.curves)
        color = COLORS[each.style % len(COLORS)]
        dashes = DASHES[each.style // len(COLORS) % len(DASHES)]
        seeds = f" ({len(values)} seeds)" if len(values) > 1 else ""
        axes.plot(
            steps, factor * values.mean(0), color=color, linewidth=1.4, label=each.label + seeds,
            dashes=dashes or (None, None), marker="o" if len(steps) == 1 else "", markersize=3,
        )  # fmt: skip
        if len(values) > 1:
            places = np.unique(np.linspace(0, len(steps) - 1, POINTS).round().astype(int))
            low, high = np.array([interval(factor * values[:, k]) for k in places]).T
            axes.fill_between(steps[places], low, high, color=color, alpha=0.25, linewidth=0)
    axes.margins(x=0.02)
    axes.set_xlim(left=0)
    axes.set_xlabel("optimizer steps")
    axes.locator_params(axis="x", nbins=6)


def add_legend(axes: Sequence[Any], whole: bool) -> None:
    """Name the lines of all panels once, above them.

    Args:
        axes: panels of a figure.
        whole: whether they are all of the figure; otherwise the names stand in the first one.
    """
    lines: dict[str, Any] = {}
    for each in axes:
        handles, labels = each.get_legend_handles_labels()  # without the empty ones
        lines |= dict(zip(labels, handles, strict=True))
    if lines:
        width = axes[0].figure.get_figwidth() if whole else 3.0
        columns = max(1, int(width / (0.45 + 0.065 * max(map(len, lines)))))
        place: Any = {"loc": "outside upper left", "ncols": columns} if whole else {}
        (axes[0].figure if whole else axes[0]).legend([*lines.values()], [*lines], **place)


def common_points(
    curves: Sequence[CurveOfSeed],
) -> tuple[Float[np.ndarray, "shared"], Float[np.ndarray, "seeds shared"]]:
    """Return the steps that all curves have, and the values of each curve at them."""
    steps = reduce(np.intersect1d, [np.unique(curve[:, 0]) for curve in curves])
    places = [np.searchsorted(curve[:, 0], steps) for curve in curves]
    values = [curve[place, 2] for curve, place in zip(curves, places, strict=True)]
    return steps, np.array(values)


def interval(values: Float[np.ndarray, "seeds"]) -> tuple[float, float]:
    """Return the 95 % interval of the mean of the finite values; NaN for fewer than two."""
    finite = values[np.isfinite(values)]
    return bootstrap_interval(finite.tolist()) if len(finite) > 1 else (np.nan, np.nan)


def mark_ends(axes: Any, ends: Sequence[int]) -> None:
    """Draw a thin line after each experience but the last one, unless there are many."""
    for end in ends[:-1] if len(ends) <= ENDS else ():
        axes.axvline(end, color="0.6", linewidth=0.6, zorder=0)
