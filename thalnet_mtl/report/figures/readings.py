"""Images of reading weights, and their means by slot."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from jaxtyping import Float

from thalnet_mtl.report.figures.style import COLORS, every_few, figure
from thalnet_mtl.runs.records import ReadingWeights

MODULES = 8  # of more, so many that are spread evenly have an image, and their means are shades


def few_of(weights: Mapping[str, ReadingWeights]) -> dict[str, ReadingWeights]:
    """Return the weights of all modules, or of ``MODULES`` that are spread evenly over them."""
    names = list(weights)
    if len(names) > MODULES:
        places = np.linspace(0, len(names) - 1, MODULES).round().astype(int).tolist()
        names = [names[place] for place in places]
    return {name: weights[name] for name in names}


def means_image(means: Float[np.ndarray, "reader slot"], names: Sequence[str]) -> str:
    """Draw the means of ``slot_means`` in shades from black, 0, to white, the largest."""
    shown = every_few(names)
    with figure(5.0, 4.6, "png") as (page, image):
        axes = page.subplots()
        picture = axes.imshow(means, cmap="gray", vmin=0, aspect="auto", interpolation="none")
        axes.set_xticks(list(shown), list(shown.values()), rotation=90, fontsize=7)
        axes.set_yticks(list(shown), list(shown.values()), fontsize=7)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set(xlabel="slot", ylabel="reads")
        scale = page.colorbar(picture, ax=axes, fraction=0.04, pad=0.02)
        scale.ax.tick_params(length=0, labelsize=7)
    return image[0]


def reading_images(weights: Mapping[str, ReadingWeights], slots: Mapping[str, int]) -> str:
    """Draw |R| of every module as the authors of the paper did, with the slots marked."""
    columns = min(2, len(weights))
    rows = -(-len(weights) // columns)
    ratio = max(len(w) / w.shape[1] for w in weights.values())
    width = 6.6
    height = min(max(width / columns * ratio, 0.6), 3.0)
    turned = len("".join(slots)) > 36
    names = {"rotation": 90, "fontsize": 6} if turned else {"fontsize": 8}
    shown = every_few(list(slots))
    room = max(0.85, 0.45 + 0.06 * max(map(len, shown.values()))) if turned else 0.55
    with figure(width, rows * (height + room), "png") as (
        page,
        image,
    ):
        for axes, (name, weight) in zip(
            page.subplots(rows, columns, squeeze=False).flat, weights.items(), strict=False
        ):
            axes.imshow(clipped(weight), cmap="gray", vmin=0, vmax=1, aspect="auto")
            edges = _edges(slots)
            for edge in edges[1:-1]:
                axes.axvline(edge - 0.5, color=COLORS[4], linewidth=1)
            middles = (edges[1:] + edges[:-1]) / 2 - 0.5
            axes.set_xticks([middles[k] for k in shown], list(shown.values()), **names)
            axes.set_yticks([0, len(weight) - 1], ["1", str(len(weight))], fontsize=7)
            axes.tick_params(length=0)
            axes.spines[:].set_visible(False)
            axes.set_title(f"{name} reads", fontsize=9)
        for axes in page.axes[len(weights) :]:
            axes.set_axis_off()
        page.supylabel("context element", fontsize=8, color="0.3")
        page.supxlabel("position in the center, by slot", fontsize=8, color="0.3")
    return image[0]


def clipped(weight: ReadingWeights) -> ReadingWeights:
    """Scale |R| to brightness: 0 (black) at its 5th percentile, 1 (white) at its 95th.

    If the two percentiles are equal, as for a module that reads few slots, larger values are white.
    """
    size = np.abs(weight)
    low, high = np.percentile(size, (5, 95))
    if low == high:
        return (size > low).astype(weight.dtype)
    return np.clip((size - low) / (high - low), 0, 1)


def slot_means(
    weights: Mapping[str, ReadingWeights], slots: Mapping[str, int]
) -> Float[np.ndarray, "reader slot"]:
    """Return the mean |R| of every module over every slot; ``slots`` are their widths, in order."""
    edges = _edges(slots)
    blocks = [[w[:, a:b] for a, b in pairwise(edges)] for w in weights.values()]
    return np.array([[np.abs(block).mean() for block in row] for row in blocks], dtype=float)


def _edges(slots: Mapping[str, int]) -> np.ndarray:
    return np.cumsum([0, *slots.values()])
