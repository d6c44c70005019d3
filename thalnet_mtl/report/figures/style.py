"""The style of all figures of a report: colors, dashes, axis labels, and the canvas.

The colors are those of Okabe and Ito, which people with any color vision can tell apart. After the
last color the dashes change, so that 28 groups look different.
"""

import base64
import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from thalnet_mtl.metrics.metric import Metric

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#333333")
DASHES: tuple[tuple[int, ...], ...] = ((), (5, 2), (1, 2), (5, 2, 1, 2))
WIDTH = 10.0  # inches, shown about 1,000 pixels wide
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


def numbered(places: Sequence[float], digit: float = 0.022) -> list[tuple[float, str]]:
    """Place the numbers 1, 2, … above marks; return positions and labels.

    Numbers that would overlap are merged into one range ('2–4') at their middle.

    Args:
        places: Positions of the marks, ascending, as fractions of the width of the axis.
        digit: Width of a digit, as such a fraction.
    """
    spans: list[tuple[int, int]] = []

    def label(first: int, last: int) -> str:
        return str(first + 1) if first == last else f"{first + 1}–{last + 1}"

    def middle(first: int, last: int) -> float:
        return (places[first] + places[last]) / 2

    for number in range(len(places)):
        spans.append((number, number))
        while len(spans) > 1:
            left, right = spans[-2:]
            room = digit * (len(label(*left)) + len(label(*right)) + 1) / 2
            if middle(*right) - middle(*left) >= room:
                break
            spans[-2:] = [(left[0], right[1])]
    return [(middle(*span), label(*span)) for span in spans]


def every_few(names: Sequence[str], most: int = 20) -> dict[int, str]:
    """Return names for an axis by place: all, or every k-th so that they can be read."""
    step = max(1, -(-len(names) // most))
    return dict(list(enumerate(names))[::step])


@contextmanager
def figure(width: float, height: float, form: str = "svg") -> Iterator[tuple[Any, list[str]]]:
    """Open a figure to draw on; at the end its image is appended to the list as a data URI.

    A data URI holds the image itself, so that a page with it needs no other file.

    Args:
        width, height: Size in inches.
        form: 'svg' or 'png'.
    """
    import matplotlib
    from matplotlib.figure import Figure

    image: list[str] = []
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a name in letters that the font lacks
        page = Figure(figsize=(width, height), layout="constrained")
        yield page, image
        file = io.BytesIO()
        page.savefig(file, format=form, dpi=200, metadata={"Date": None} if form == "svg" else {})
    kind = "svg+xml" if form == "svg" else form
    image.append(f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}")
