"""The curves and results of a report, each a data URI that a page can hold without any other file.

They know neither run directories nor HTML: a ``Group`` goes in, an image comes out. Colors are
those of Okabe and Ito, which people with any color vision can tell apart; after the last of them
the dashes change, so that 28 groups look different.
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
    """Name, unit and direction."""
    name = "accuracy (%)" if metric.name == "accuracy" else "bits per character"
    return f"{name}, {'higher' if metric.higher_is_better else 'lower'} is better"


def numbered(places: Sequence[float], digit: float = 0.022) -> list[tuple[float, str]]:
    """Where the numbers of marks are written, given ascending parts of an axis' width.

    Numbers too close to stand side by side, each digit so wide, become one range in their middle.
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


@contextmanager
def figure(width: float, height: float, form: str = "svg") -> Iterator[tuple[Any, list[str]]]:
    """A figure to draw on; afterwards the list holds its data URI."""
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
