"""Draw the figure of the README: modules around a routing center, for light and dark pages.

    python -m benchmarks.readme_figure

The figure shows two tasks. ``rows`` was learned first and is frozen; ``text`` came later with an
input and an output module of its own, which read the slots of the frozen modules as well.
"""

from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Polygon, Rectangle

FOLDER = Path(__file__).parent
INK = {"light": "#24292f", "dark": "#e6edf3"}
FAINT = {"light": "#8c959f", "dark": "#7d8590"}
COLORS = {"rows": "#0072B2", "shared": "#7a7f85", "text": "#D55E00"}
STEP, WIDTH, HEIGHT = 2.3, 1.75, 0.86  # distance between modules, width and height of a box
CENTER, BOTTLENECK, MODULE = 0.0, 1.62, 2.1  # heights at which things stand


class Part(NamedTuple):
    """A module of the figure: its task, what it reads, and what is outside of the center."""

    name: str
    task: str
    reads: tuple[int, ...]
    outside: str = ""  # "in" takes the task's input, "out" feeds its head
    frozen: bool = False


PARTS = (
    Part("rows_in", "rows", (0, 1), "in", frozen=True),
    Part("trunk", "shared", (0, 1, 2), frozen=True),
    Part("rows_out", "rows", (0, 1, 2), "out", frozen=True),
    Part("text_in", "text", (1, 3), "in"),
    Part("text_out", "text", (0, 1, 3, 4), "out"),
)


def draw(theme: str, path: Path) -> None:
    """Write the figure for one theme, with a transparent background."""
    ink, faint = INK[theme], FAINT[theme]
    plt.rcParams.update({"svg.hashsalt": "thalnet", "svg.fonttype": "path", "font.size": 10.5})
    figure, axes = plt.subplots(figsize=(8.4, 3.5))
    axes.set(xlim=(-1.75, STEP * len(PARTS) - 0.55), ylim=(-1.2, 4.25), aspect="equal")
    axes.set_axis_off()
    for number, part in enumerate(PARTS):
        draw_module(axes, number, part, ink, faint)
    left = -WIDTH / 2 - 0.08
    axes.text(
        left,
        -0.28,
        "routing center Φ: a slot for the features of every module",
        color=ink,
        va="top",
        ha="left",
    )
    axes.text(
        left,
        -0.8,
        "thick: a module writes its slot     thin: it reads slots through a learned bottleneck",
        color=faint,
        va="top",
        ha="left",
        fontsize=9.5,
    )
    figure.savefig(
        path, transparent=True, bbox_inches="tight", pad_inches=0.05, metadata={"Date": None}
    )
    plt.close(figure)


def draw_module(axes: Any, number: int, part: Part, ink: str, faint: str) -> None:
    """Draw a module, its slot in the center, what it reads and what it has to do with a task."""
    x, color = STEP * number, COLORS[part.task]
    slot = Rectangle((x - STEP / 2 + 0.06, CENTER), STEP - 0.12, 0.36, color=color, alpha=0.85)
    axes.add_patch(slot)
    read = x - 0.42
    for source in part.reads:
        start = STEP * source + 0.1 * (number - source)
        axes.plot((start, read), (CENTER + 0.38, BOTTLENECK), color=faint, linewidth=0.9, zorder=0)
    funnel = [
        (read - 0.3, BOTTLENECK),
        (read + 0.3, BOTTLENECK),
        (read + 0.14, MODULE),
        (read - 0.14, MODULE),
    ]
    axes.add_patch(Polygon(funnel, closed=True, facecolor=faint, edgecolor="none"))
    box = FancyBboxPatch(
        (x - WIDTH / 2, MODULE),
        WIDTH,
        HEIGHT,
        linewidth=1.6,
        edgecolor=color,
        boxstyle="round,pad=0,rounding_size=0.14",
        facecolor=color + "26",
        linestyle="-",
    )
    axes.add_patch(box)
    axes.text(
        x,
        MODULE + HEIGHT / 2 + (0.14 if part.frozen else 0),
        part.name,
        color=ink,
        ha="center",
        va="center",
    )
    if part.frozen:
        axes.text(x, MODULE + 0.2, "frozen", color=faint, ha="center", va="center", fontsize=8.5)
    arrow(axes, (x + 0.45, MODULE), (x + 0.45, CENTER + 0.36), color, 2.2)
    if part.outside == "in":
        arrow(axes, (x, 3.85), (x, MODULE + HEIGHT), ink, 1.2)
        axes.text(
            x, 3.9, f"input of “{part.task}”", color=ink, ha="center", va="bottom", fontsize=9.5
        )
    if part.outside == "out":
        arrow(axes, (x, MODULE + HEIGHT), (x, 3.85), ink, 1.2)
        axes.text(
            x, 3.9, f"head of “{part.task}”", color=ink, ha="center", va="bottom", fontsize=9.5
        )


def arrow(
    axes: Any, start: tuple[float, float], end: tuple[float, float], color: str, width: float
) -> None:
    """Draw an arrow between two points."""
    axes.add_patch(
        FancyArrowPatch(
            start,
            end,
            arrowstyle="-|>",
            mutation_scale=9 + 2 * width,
            color=color,
            linewidth=width,
            shrinkA=0,
            shrinkB=0,
        )
    )


if __name__ == "__main__":
    for name in INK:
        draw(name, FOLDER / f"center-{name}.svg")
