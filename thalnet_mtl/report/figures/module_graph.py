"""The modules of a network as a graph: who reads whom, drawn with Matplotlib.

The modules stand on a circle, in the order of their slots, around the center through which they
communicate: the arrow from one to another, which bends towards the center, is a reading.
"""

import io
import math
import re
from collections.abc import Mapping
from itertools import cycle
from typing import Any

import numpy as np

from thalnet_mtl.report.figures.style import COLORS, every_few
from thalnet_mtl.runs.topology_file import ModuleEntry, TopologySnapshot

SHARED = "#888888"  # color of modules that several tasks use
INK = "#767676"  # legible on white and on black
LARGEST, SMALLEST = 0.16, 0.05  # radius of a module
MANY = 24  # modules: of more, names are small, and arrows have no tips
TIP = 0.05
MOST_NAMES = 40
NAMED = 7  # tasks that a legend names
SEVERAL = "several tasks"
UNIT, LETTER = 0.8, 0.085  # inches of the radius of the circle; width of a letter, in radii

Owners = Mapping[str, str | None]  # by module
Strengths = Mapping[tuple[str, str], float]  # by reader and source


def draw_graph(
    axes: Any,
    topology: TopologySnapshot,
    strengths: Strengths | None = None,
    owners: Owners | None = None,
    ink: str = INK,
) -> None:
    """Draw a circle for each module and an arrow from each source to each of its readers.

    The area of a circle grows with the parameters, a padlock marks a frozen module. Its color is
    that of its owner, gray if it has none. An arrow from outside marks a module
    that gets the input of a task, an arrow that leads outside one that a head reads. That modules
    read their own slots is not drawn. Of many modules, every k-th has its name.

    Args:
        axes: to draw on.
        topology: of the network.
        strengths: mean |R| by reader and source; the width of arrows. Without, all are alike.
        owners: task by module, None for one that tasks share. By default that is the only task
            that uses a module, and of a frozen one the first that does.
        ink: color of names and arrows.
    """
    from matplotlib.collections import PathCollection, PolyCollection
    from matplotlib.path import Path

    modules = topology.modules
    largest = max((module.parameters for module in modules), default=0) or 1
    places = _places(len(modules))
    radii = [_radius(module.parameters / largest, len(modules)) for module in modules]
    index = {module.name: k for k, module in enumerate(modules)}
    strongest = max(strengths.values(), default=0.0) if strengths else 0.0
    paths, widths, tips = [], [], []
    for reader in modules:
        for source in reader.reads:
            if source == reader.name:
                continue
            strength = strengths.get((reader.name, source), 0.0) if strengths else 0.0
            share = strength / strongest if strongest else 0.5
            a, b = index[source], index[reader.name]
            arc = _arc(places[a], places[b], radii[a], radii[b])
            paths.append(Path(arc, [Path.MOVETO, Path.CURVE3, Path.CURVE3]))
            widths.append(0.2 + 2.2 * share)
            tips.append(_tip(arc, 0.6 + 0.6 * share))
    alpha = 0.75 if len(paths) <= 60 else max(0.02, min(0.4, 80 / len(paths)))
    axes.add_collection(
        PathCollection(paths, facecolors="none", edgecolors=ink, linewidths=widths, alpha=alpha)
    )
    if len(modules) <= MANY:
        axes.add_collection(PolyCollection(tips, facecolors=ink, linewidths=0, alpha=alpha))
    colors, owners = _colors(topology), owners or _owners(topology)
    named = every_few([module.name for module in modules], MOST_NAMES).values()
    for module, place, radius in zip(modules, places, radii, strict=True):
        color = colors.get(owners.get(module.name) or "", SHARED)
        _draw_module(axes, topology, module, place, radius, color, ink)
        if module.name in named:
            _name(axes, module.name, place, radius, ink, small=len(modules) > MANY)
    width, height, top = _extent(topology)
    _legend(axes, topology, ink, any(owners.get(m.name) is None for m in modules))
    axes.set(xlim=(-width, width), ylim=(-height, height + top), aspect="equal")
    axes.set_axis_off()


def graph_size(topology: TopologySnapshot) -> tuple[float, float]:
    """Return the width and the height of a figure of the graph, in inches."""
    width, height, top = _extent(topology)
    return UNIT * 2 * width, UNIT * (2 * height + top)


def _extent(topology: TopologySnapshot) -> tuple[float, float, float]:
    """Return half the width and height of the graph, and the height of its legend above it."""
    longest = max((len(module.name) for module in topology.modules), default=0)
    width = 1.4 + LETTER * longest
    rows = -(-(len(topology.tasks) + 1) // _legend_columns(topology, width))
    return width, 1.45, (0.1 + 0.21 * rows) * _has_legend(topology)


def _has_legend(topology: TopologySnapshot) -> bool:
    return 1 < len(topology.tasks) <= NAMED


def _legend_columns(topology: TopologySnapshot, width: float) -> int:
    longest = max(map(len, [*topology.tasks, SEVERAL]))
    return max(1, int(2 * width / (0.4 + LETTER * longest)))


def _draw_module(
    axes: Any,
    topology: TopologySnapshot,
    module: ModuleEntry,
    place: complex,
    radius: float,
    color: str,
    ink: str,
) -> None:
    from matplotlib.patches import Circle

    axes.add_patch(Circle((place.real, place.imag), radius, facecolor=color, linewidth=0))
    ends = [
        sign
        for sign, names in (
            (-1, [n for task in topology.tasks.values() for n in task.input_modules]),
            (1, [n for task in topology.tasks.values() for n in task.output_modules]),
        )
        if module.name in names
    ]
    way = place / (abs(place) or 1)
    for sign in ends:  # the input of a task comes from outside, its head reads what goes there
        side = way * (1 + sign * 0.22j)
        inner, outer = place + side * (radius + 0.02), place + side * (radius + 0.16)
        a, b = (outer, inner) if sign < 0 else (inner, outer)
        axes.annotate(
            "", (b.real, b.imag), (a.real, a.imag),
            arrowprops={"arrowstyle": "-|>", "color": ink, "linewidth": 1, "shrinkA": 0,
                        "shrinkB": 0, "mutation_scale": 7},
        )  # fmt: skip
    if module.frozen:
        _padlock(axes, place, 0.55 * radius)


def _name(axes: Any, name: str, place: complex, radius: float, ink: str, small: bool) -> None:
    """Write the name of a module outside of the circle."""
    way = place / (abs(place) or 1)
    label = place + way * (radius + 0.2)
    across = "center" if abs(way.real) < 0.3 else "left" if way.real > 0 else "right"
    height = "center" if across != "center" else "bottom" if way.imag > 0 else "top"
    axes.text(
        label.real, label.imag, name, color=ink, ha=across, va=height, fontsize=5 if small else 8
    )


def _padlock(axes: Any, place: complex, size: float) -> None:
    """Draw a padlock in white: a body and a shackle."""
    from matplotlib.patches import Arc, Rectangle

    x, y = place.real, place.imag - 0.25 * size
    corner = (x - 0.6 * size, y - 0.5 * size)
    axes.add_patch(Rectangle(corner, 1.2 * size, size, facecolor="white", linewidth=0))
    axes.add_patch(
        Arc((x, y + 0.5 * size), 0.8 * size, 1.1 * size, theta1=0, theta2=180, color="white",
            linewidth=1.2)
    )  # fmt: skip


def _legend(axes: Any, topology: TopologySnapshot, ink: str, shared: bool) -> None:
    """Name the color of each task, unless there is one, or more than there are colors."""
    from matplotlib.patches import Patch

    if _has_legend(topology):
        named = _colors(topology) | ({SEVERAL: SHARED} if shared else {})
        handles = [Patch(color=color, label=task) for task, color in named.items()]
        axes.legend(
            handles=handles, fontsize=8, frameon=False, labelcolor=ink, loc="upper center",
            ncols=_legend_columns(topology, _extent(topology)[0]), handlelength=0.8,
            borderaxespad=0, columnspacing=1,
        )  # fmt: skip


def _colors(topology: TopologySnapshot) -> dict[str, str]:
    return dict(zip(topology.tasks, cycle(COLORS), strict=False))


def _owners(topology: TopologySnapshot) -> dict[str, str | None]:
    owners = {}
    for module in topology.modules:
        users = [name for name, task in topology.tasks.items() if module.name in task.active]
        alone = len(users) == 1 or (users and module.frozen)
        owners[module.name] = users[0] if alone else None
    return owners


def _places(count: int) -> list[complex]:
    """Return places on a circle, from the left one clockwise; a single module is in its middle."""
    if count == 1:
        return [0j]
    turns = [math.pi * (1 - 2 * k / count) for k in range(count)]
    return [complex(math.cos(turn), math.sin(turn)) for turn in turns]


def _radius(share: float, count: int) -> float:
    room = 2.2 / max(count, 1)
    return max(SMALLEST, LARGEST * share**0.5) if room > LARGEST else max(0.3, share**0.5) * room


def _arc(a: complex, b: complex, from_edge: float, to_edge: float) -> np.ndarray:
    """Return the three points of a curve between the edges of two circles, bent to the center."""
    middle = (a + b) / 2 * 0.55 + 0.12j * (b - a)
    start = a + from_edge * (middle - a) / (abs(middle - a) or 1)
    end = b + (to_edge + TIP) * (middle - b) / (abs(middle - b) or 1)
    return np.array([[p.real, p.imag] for p in (start, middle, end)])


def _tip(arc: np.ndarray, size: float) -> np.ndarray:
    """Return the triangle at the end of a curve."""
    way = arc[2] - arc[1]
    way = TIP * size * way / (np.hypot(*way) or 1)
    across = 0.5 * np.array([-way[1], way[0]])
    return np.array([arc[2] + way, arc[2] + across, arc[2] - across])


def graph_svg(topology: TopologySnapshot) -> str:
    """Return the graph as a small SVG for a page of any color: names have that of its text."""
    import matplotlib
    from matplotlib.figure import Figure

    sentinel = "#010203"
    style: Any = {"svg.fonttype": "none", "svg.hashsalt": "thalnet", "text.parse_math": False}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=graph_size(topology))
        axes = figure.add_axes((0, 0, 1, 1))
        draw_graph(axes, topology, ink=sentinel)
        file = io.StringIO()
        nothing: Any = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :].replace(sentinel, "currentColor")
    svg = re.sub(r"<defs>.*?</defs>", "", svg, flags=re.S)  # its style is for the whole page
    svg = re.sub(r' clip-path="[^"]*"', "", svg)
    return re.sub(r"\n\s*", "\n", re.sub(r"(\.\d)\d\d+", r"\1", svg))
