"""The matrix of scores of a stream, drawn with Matplotlib from the data of its panel."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from thalnet_mtl.report.figures.style import COLORS, every_few

FEW, FEW_ROWS = 15, 40  # tasks and stages: of more, shades have a scale instead of numbers
SHADES = np.linspace(0, 1, 101)


def draw_matrix(
    axes: Any, data: Mapping[str, Any], scores: Sequence[Sequence[float | None]]
) -> None:
    """Draw R: white is the score of guessing, blue the perfect one; trained tasks are framed.

    Args:
        axes: to draw on.
        data: of ``matrix_panel``, whose scores are rounded.
        scores: in the units of their metrics.
    """
    tasks: Sequence[str] = data["tasks"]
    shades = np.array(data["shades"], dtype=float)
    few = len(tasks) <= FEW and len(shades) <= FEW_ROWS
    picture = axes.imshow(
        shades, cmap="Blues", vmin=0, vmax=1.15, aspect="auto", interpolation="none"
    )
    if few:
        for (stage, column), score in np.ndenumerate(np.array(scores, dtype=float)):
            color = "white" if shades[stage, column] > 0.7 else "0.15"
            text = "" if np.isnan(score) else f"{score:.3g}"
            axes.text(column, stage, text, ha="center", va="center", fontsize=8, color=color)
    else:
        axes.set_facecolor("0.9")
        scale = axes.figure.colorbar(picture, ax=axes, fraction=0.04, pad=0.02, boundaries=SHADES)
        scale.set_ticks([0, 1], labels=["guessing", "perfect"], rotation=90, va="center")
        scale.outline.set_visible(False)
        scale.ax.tick_params(length=0)
    _frame(axes, data["trained"], 1.2 if few else 0.5)
    names = every_few(tasks)
    stages = every_few(["untrained", *map(str, range(1, len(shades)))])
    turned = {"rotation": 90} if turned_height(tasks) else {}
    axes.set_xticks(list(names), list(names.values()), **turned)
    axes.set_yticks(list(stages), list(stages.values()))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    units = {unit for unit in data["units"] if unit}
    unit = f" ({units.pop()})" if len(units) == 1 and all(data["units"]) else ""
    axes.set(xlabel=f"test score of each task{unit}", ylabel="after experience")


def turned_height(tasks: Sequence[str]) -> float:
    """Return the height in inches of the names of tasks where they are turned, otherwise 0."""
    names = every_few(tasks).values()
    return 0.08 * max(map(len, names)) if sum(map(len, names)) > 5 * len(names) + 3 else 0.0


def _frame(axes: Any, trained: Sequence[Sequence[int]], width: float) -> None:
    """Frame the tasks that each experience has trained."""
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    frames = [
        Rectangle((column - 0.5, stage - 0.5), 1, 1)
        for stage, columns in enumerate(trained)
        for column in columns
    ]
    axes.add_collection(
        PatchCollection(frames, facecolor="none", edgecolor=COLORS[1], linewidth=width)
    )
