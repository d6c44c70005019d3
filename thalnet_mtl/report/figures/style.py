"""The style of figures: colors, dashes, axis labels.

The colors are those of Okabe and Ito, which people with any color vision can tell apart. After the
last color the dashes change, so that 28 groups look different.
"""

from collections.abc import Sequence
from typing import Any

from thalnet_mtl.metrics.metric import Metric

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#333333")
DASHES: tuple[tuple[int, ...], ...] = ((), (5, 2), (1, 2), (5, 2, 1, 2))
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


def axis_label(metric: Metric) -> str:
    """Return the label of an axis: name, unit and direction of a metric."""
    return f"{metric.label}, {metric.direction}"


def every_few(names: Sequence[str], most: int = 20) -> dict[int, str]:
    """Return names for an axis by place: all, or every k-th so that they can be read."""
    step = max(1, -(-len(names) // most))
    return dict(list(enumerate(names))[::step])
