"""Curves over training steps, with the seeds of a configuration as a band."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from thalnet_mtl.report.bands import HIGHEST, LOWEST, Curves, band_of
from thalnet_mtl.report.figures.style import COLORS, DASHES

STYLES = len(COLORS) * len(DASHES)  # lines that can be told apart
POINTS = 240  # of a line
ENDS = 40  # of experiences: lines of more would hide the curves


@dataclass(frozen=True)
class Series:
    """A line of a figure: the curves of a configuration, one for each of its seeds."""

    label: str  # '' for the only one, which needs no name
    style: int
    curves: Curves  # each has a point


def draw_series(axes: Any, series: Sequence[Series], factor: float = 1.0) -> None:
    """Draw a line for each series, and a band around that of several curves.

    As in a report, the line is the median over the seeds, and the band reaches from the 10th to
    the 90th percentile; long curves are thinned to the means of values that follow one another.

    Args:
        axes: to draw on.
        series: what is drawn.
        factor: of the values.
    """
    for each in series:
        band = band_of(each.curves)
        assert band is not None
        band = band.thinned(POINTS)
        steps, seeds = band.steps, len(band.lines)
        color = COLORS[each.style % len(COLORS)]
        dashes = DASHES[each.style // len(COLORS) % len(DASHES)]
        label = each.label + f" ({seeds} seeds)" * (seeds > 1)
        axes.plot(
            steps, factor * band.median, color=color, linewidth=1.4, label=label,
            dashes=dashes or (None, None), marker="o" if len(steps) == 1 else "", markersize=3,
        )  # fmt: skip
        if seeds > 1:
            low, high = (factor * band.quantile(share) for share in (LOWEST, HIGHEST))
            axes.fill_between(steps, low, high, color=color, alpha=0.25, linewidth=0)
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


def mark_ends(axes: Any, ends: Sequence[int]) -> None:
    """Draw a thin line after each experience but the last one, unless there are many."""
    for end in ends[:-1] if len(ends) <= ENDS else ():
        axes.axvline(end, color="0.6", linewidth=0.6, zorder=0)
