"""Pictures of a network that grows, one for each stage: places and shapes, which the page draws.

A picture has a column for each stage so far, with the modules that it brought. In a column stand,
from below, the data of its task, the modules by level, and its head. Columns of which the task of
the picture uses nothing are narrow.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import inf
from typing import NamedTuple

from thalnet_mtl.report.figures.style import COLORS
from thalnet_mtl.report.stages import Modules, Stage

WIDTH, GUTTER = 360.0, 44.0  # of a picture, and of the names of its rows, in pixels
WIDEST, WIDER = 64.0, 4.0  # column; how much wider a column is if something in it is used
TALL, LOWEST, HIGHEST = 240.0, 26.0, 44.0  # rows together, and one
LARGEST, SMALLEST, END = 11.0, 2.0, 4.5  # radius of a module, and of the mark of a head
ROOM = 14.0  # for the number of a column
BEND, LEAST = 0.12, 5.0  # of an arc: as a share of its length, and at least
TIP = 4.5  # length of the tip of an arrow
ORDER = ("other", "removed", "reused", "new")  # in which marks are drawn


class Mark(NamedTuple):
    """A module, the data or the head of a task in a picture.

    Args:
        kind: 'module', 'head', 'data' or 'encoder'.
        state: one of ``ORDER``.
        x, y: place of its middle.
        radius: half of its width.
        color: number of its color in ``COLORS``.
        frozen: whether it was not trained in this stage.
        title: what it is, in words.
    """

    kind: str
    state: str
    x: float
    y: float
    radius: float
    color: int
    frozen: bool
    title: str

    @property
    def place(self) -> complex:
        """Its middle."""
        return complex(self.x, self.y)


class Column(NamedTuple):
    """A column of a picture: its middle and its width."""

    x: float
    width: float


@dataclass(frozen=True)
class Picture:
    """A stage, ready to be drawn: marks from the lowest to the top one, and paths in SVG syntax."""

    width: float
    height: float
    column: Column  # of the stage
    marks: Sequence[Mark]
    new: str  # lines of new readings, and of those of the head and of the data
    tips: str  # of the arrows of ``new``
    reused: str  # lines of earlier readings
    rows: Sequence[tuple[str, float]]  # names of rows and their height
    numbers: Sequence[tuple[int, float]]  # of columns and their place; the last is of the stage


class Layout:
    """The places of all modules that a run ever had.

    Args:
        stages: of the run.
        sizes: parameters by module.
    """

    def __init__(self, stages: Sequence[Stage], sizes: Mapping[str, int]):
        self.stages, self.sizes = stages, sizes
        self.size_of_largest = max(sizes.values(), default=0) or 1
        self.columns, levels = dict[str, int](), dict[str, float]()
        for number, stage in enumerate(stages):
            for name in stage.all_modules:
                if name not in self.columns:
                    self.columns[name] = number
                    levels[name] = _level(name, stage.all_modules)
        # Modules of a level in the same column stand above each other.
        ranks, counts = dict[str, int](), Counter[tuple[int, float]]()
        for name, column in self.columns.items():
            ranks[name] = counts[column, levels[name]]
            counts[column, levels[name]] += 1
        self.first_rows, rows = dict[float, int](), 1  # the first row is for the data
        for level in sorted(set(levels.values())):
            self.first_rows[level] = rows
            rows += max(count for (_, each), count in counts.items() if each == level)
        self.rows = {name: self.first_rows[levels[name]] + rank for name, rank in ranks.items()}
        self.top = rows  # the last row is for the heads
        self.row_height = min(max(TALL / self.top, LOWEST), HIGHEST)
        self.height = (self.top + 1) * self.row_height + 16

    def picture(self, number: int) -> Picture:
        """Return the picture of a stage, by its place in the order."""
        stage, columns = self.stages[number], self._columns(number)
        modules = {n: self._module(n, stage, columns) for n in stage.all_modules}
        lines = [(modules[a], modules[b], is_new) for a, b, is_new in stage.edges()]
        ends = list[Mark]()
        for task, entry in stage.tasks.items():
            data, head = self._data(stage, task, columns), self._head(number, task, "new", columns)
            ends += [data, head]
            for name, module in modules.items():
                is_new = name in stage.new or not stage.within
                lines += [(data, module, is_new)] * (name in entry.input_modules)
                lines += [(module, head, is_new)] * (name in entry.output_modules)
        earlier = [
            self._head(column, task, "other", columns)
            for column, each in enumerate(self.stages[:number])
            for task in each.tasks
            if task not in stage.tasks
        ]
        in_order = sorted(modules.values(), key=lambda mark: ORDER.index(mark.state))
        new = [_arc(a, b, in_order) for a, b, is_new in lines if is_new]
        return Picture(
            width=WIDTH,
            height=self.height,
            column=columns[-1],
            marks=[*earlier, *in_order, *ends],
            new="".join(line for line, _ in new),
            tips="".join(tip for _, tip in new),
            reused="".join(_arc(a, b, in_order)[0] for a, b, is_new in lines if not is_new),
            rows=self._row_names(),
            numbers=_numbers(columns),
        )

    def _columns(self, number: int) -> list[Column]:
        """Return the columns of a picture: wider ones of what its task uses."""
        stage = self.stages[number]
        used = {number, *(self.columns[name] for name in (*stage.reused, *stage.removed))}
        shares = [WIDER if k in used else 1.0 for k in range(number + 1)]
        unit = min(WIDEST / WIDER, (WIDTH - GUTTER) / sum(shares))
        ends = accumulate(unit * share for share in shares)
        return [
            Column(GUTTER + end - unit * share / 2, unit * share)
            for end, share in zip(ends, shares, strict=True)
        ]

    def _y(self, row: int) -> float:
        return (self.top + 0.5 - row) * self.row_height

    def _module(self, name: str, stage: Stage, columns: Sequence[Column]) -> Mark:
        frozen = name in stage.begin and stage.begin[name].frozen
        if name in stage.removed:
            state = "removed"
        elif name not in stage.begin:
            state = "new"
        else:
            state = "reused" if name in stage.reused else "other"
        size, number = self.sizes.get(name, 0), self.columns[name]
        largest = min(LARGEST, 0.42 * columns[number].width, 0.34 * self.row_height)
        words = [name, "not used" if state == "other" else state, *["frozen"] * frozen]
        return Mark(
            "module",
            state,
            columns[number].x,
            self._y(self.rows[name]),
            max(SMALLEST, largest * (size / self.size_of_largest) ** 0.5),
            number % len(COLORS),
            frozen,
            ", ".join([*words, f"{size:,} parameters"]),
        )

    def _data(self, stage: Stage, task: str, columns: Sequence[Column]) -> Mark:
        kind, words = ("encoder", "data, encoded") if stage.encodes(task) else ("data", "data")
        return self._end(len(columns) - 1, task, columns, 0, kind, "new", f"{words}: {task}")

    def _head(self, number: int, task: str, state: str, columns: Sequence[Column]) -> Mark:
        return self._end(number, task, columns, self.top, "head", state, f"head of {task}")

    def _end(
        self, number: int, task: str, columns: Sequence[Column], row: int, *about: str
    ) -> Mark:
        """Return a mark of a task in the column of its stage; several stand side by side."""
        tasks, (x, width) = list(self.stages[number].tasks), columns[number]
        kind, state, title = about
        x += width * ((tasks.index(task) + 1) / (len(tasks) + 1) - 0.5)
        radius = min(END, 0.36 * width)
        return Mark(kind, state, x, self._y(row), radius, number % len(COLORS), False, title)

    def _row_names(self) -> list[tuple[str, float]]:
        names = {"data": 0, "head": self.top}
        for level, row in self.first_rows.items():
            names.setdefault({0: "input", inf: "output"}.get(level, "inner"), row)
        return [(name, self._y(row)) for name, row in names.items()]


def _level(name: str, modules: Modules) -> float:
    """Return the level of a module: 0 for an input, ∞ for an output, and else its distance.

    The distance is the number of readings on the shortest way from an input module.
    """
    if modules[name].inputs:
        return 0
    if modules[name].output:
        return inf
    reached = {each for each, module in modules.items() if module.inputs}
    for distance in range(1, len(modules)):
        reached |= {each for each, m in modules.items() if not reached.isdisjoint(m.reads)}
        if name in reached:
            return distance
    return 1


def _numbers(columns: Sequence[Column]) -> list[tuple[int, float]]:
    """Return the numbers of columns with their place: as many as there is room for."""
    *rest, last = enumerate(columns, start=1)
    shown = [(last[0], last[1].x)]
    for number, column in sorted(rest, key=lambda each: (-each[1].width, each[0])):
        if all(abs(column.x - x) >= ROOM for _, x in shown):
            shown.append((number, column.x))
    return sorted(shown)


def _arc(source: Mark, reader: Mark, others: Iterable[Mark]) -> tuple[str, str]:
    """Return a slight arc from the edge of a mark to that of another, and the tip of its arrow.

    It goes around those of the others that stand in the same column between the two.
    """
    a, b = source.place, reader.place
    way, bend = (b - a) / (abs(b - a) or 1), max(BEND * abs(b - a), LEAST)
    low, high = sorted((source.y, reader.y))
    between = [m.radius for m in others if m.x == source.x == reader.x and low < m.y < high]
    if between:
        bend = 2 * max(between) + LEAST
    elif source.x == reader.x and {source.kind, reader.kind} != {"module"}:
        bend = 0
    a, b = a + way * (source.radius + 1), b - way * (reader.radius + 1)
    middle = (a + b) / 2 + bend * way * 1j
    back = TIP * (b - middle) / (abs(b - middle) or 1)
    tip = [b, b - back * (1 + 0.45j), b - back * (1 - 0.45j)]
    line = [a, middle, b - back / 2]
    return "M{}Q{} {}".format(*map(_point, line)), "M{}L{}L{}Z".format(*map(_point, tip))


def _point(place: complex) -> str:
    return f"{place.real:.1f} {place.imag:.1f}"
