"""Figures for papers and notebooks, drawn with Matplotlib."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from thalnet_mtl.notebook import in_notebook
from thalnet_mtl.report.figures.style import STYLE

PAPER: Any = STYLE | {"axes.edgecolor": "0.3", "legend.frameon": False, "legend.fontsize": 8}
FONTS: Any = {"pdf.fonttype": 42, "ps.fonttype": 42}  # TrueType; conferences refuse Type 3


class PaperFigure(Figure):
    """A figure that ``savefig`` writes with letters as text, in fonts that conferences accept."""

    def savefig(self, *args: Any, **options: Any) -> None:
        """Save the figure; arguments are those of ``matplotlib.figure.Figure.savefig``."""
        with rc_context(FONTS):
            super().savefig(*args, **options)


@contextmanager
def canvas(ax: Any, count: int, width: float, height: float) -> Iterator[tuple[Any, list[Any]]]:
    """Yield what a plot returns and the axes to draw on, in the style of papers.

    Without axes of the user it is a new figure. Outside of notebooks ``matplotlib.pyplot.show``
    shows it. A notebook shows it where it is the value of a cell; pyplot would show it once more.

    Args:
        ax: axes of the user, or None.
        count: panels side by side.
        width, height: of a new figure, in inches.
    """
    import matplotlib.pyplot as plt

    if ax is None:
        plt.draw_if_interactive()  # loads the backend, whose settings have to outlive the style
    with rc_context(PAPER):
        if ax is not None:
            yield ax, [ax]
            return
        figure = plt.figure(FigureClass=PaperFigure, figsize=(width, height), layout="constrained")
        if in_notebook():
            plt.close(figure)
        yield figure, list(figure.subplots(1, count, squeeze=False).flat)
