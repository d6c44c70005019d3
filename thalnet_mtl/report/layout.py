"""Tables as text for any width: no word is broken and nothing is cut."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, product, zip_longest

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions
from rich.text import Text

from thalnet_mtl.errors import one_line

GAP = 2  # columns between two cells, and before the lines of a block
NARROWEST = 16, 8  # columns of a cell that is wrapped: the only one of a row, or one of several
WIDEST_NOTE = 100
NUMBERS = {"parameters", "train", "validation", "test", "single-task", "n", "skill", "gain",
           "features", "context", "inputs", "#", "step", "time (s)", "slot",
           "new parameters", "steps", "extra steps", "score", "±"}  # fmt: skip

Row = dict[str, str]


@dataclass
class TextTable:
    """Some columns of rows, laid out for the width of the console.

    Where they fit, they are a table, in which so many columns of words may be ``wrapped``.
    Otherwise the rows with the same value in the first column stand in a block below that value; a
    block is a table of the other columns where that fits, and a line for every cell elsewhere.
    """

    rows: Sequence[Row]
    columns: Sequence[str]
    header: bool = True
    numbers: Collection[str] = frozenset(NUMBERS)  # columns that stand to the right, never wrapped
    wrapped: int = 1

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        rows = [{name: one_line(row[name]) for name in self.columns} for row in self.rows]
        widths = self._widths(rows, self.columns, options.max_width, self.wrapped)
        if widths or len(self.columns) == 1:
            yield from self._table(rows, self.columns, widths or {self.columns[0]: 0})
            return
        first, *rest = self.columns
        blocks, width = _blocks(rows, first), options.max_width - GAP
        widths = self._widths(rows, rest, width, max(2, self.wrapped))
        for number, block in enumerate(blocks):
            if number and self.header:
                yield _line("")
            yield _line(block[0][first], "bold" if self.header else "")
            lines = self._table(block, rest, widths) if widths else self._cells(block, rest, width)
            for line in lines:
                yield _line(" " * GAP).append_text(line) if line.plain else line

    def _widths(
        self, rows: Sequence[Row], columns: Sequence[str], width: int, wrapped: int
    ) -> dict[str, int]:
        """Return the widths of columns that fit, with so many of them wrapped; {} if none do."""
        cells = {name: [row[name] for row in rows] for name in columns}
        for name in columns if self.header else ():
            cells[name].append(name)
        widths = {name: max(map(cell_len, texts), default=0) for name, texts in cells.items()}
        excess = sum(widths.values()) + GAP * (len(columns) - 1) - width
        wordy = sorted(set(columns) - {*self.numbers}, key=lambda name: (-widths[name], name))
        for name in wordy[:wrapped]:
            words = [word for text in cells[name] for word in text.split()]
            least = max([NARROWEST[wrapped > 1], *map(cell_len, words)])
            cut = max(0, min(excess, widths[name] - least))
            widths[name] -= cut
            excess -= cut
        return widths if excess <= 0 else {}

    def _table(
        self, rows: Sequence[Row], columns: Sequence[str], widths: dict[str, int]
    ) -> Iterator[Text]:
        if self.header:
            yield from self._row({name: name for name in columns}, widths, "bold")
        for row in rows:
            yield from self._row({name: row[name] for name in columns}, widths)

    def _row(self, cells: Row, widths: dict[str, int], style: str = "") -> Iterator[Text]:
        """Yield the lines of a row: several if a cell is wrapped."""
        lines = {
            name: _wrapped(text, widths[name]) if cell_len(text) > widths[name] else [text]
            for name, text in cells.items()
        }
        for k in range(max(map(len, lines.values()))):
            parts = [
                _padded(part[k] if k < len(part) else "", widths[name], name in self.numbers)
                for name, part in lines.items()
            ]
            yield _line((" " * GAP).join(parts).rstrip(), style)

    def _cells(self, rows: Sequence[Row], columns: Sequence[str], width: int) -> Iterator[Text]:
        """Yield a line for every cell that is not empty, with the name of its column before it."""
        indent = max(map(cell_len, columns)) + GAP if self.header else 0
        for row, name in product(rows, columns):
            if self.header and indent > width // 2:
                lines = [name, *(" " * GAP + line for line in _wrapped(row[name], width - GAP))]
            else:
                names = [name] if self.header else [""]
                parts = zip_longest(names, _wrapped(row[name], width - indent), fillvalue="")
                lines = [_padded(label, indent) + part for label, part in parts]
            yield from map(_line, lines if row[name] else ())


@dataclass
class Note:
    """A text below a table, wrapped at words."""

    text: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        yield from map(_line, _wrapped(one_line(self.text), min(options.max_width, WIDEST_NOTE)))


def _blocks(rows: Sequence[Row], first: str) -> list[list[Row]]:
    """Return rows that follow each other with the same first cell, or with none."""
    names: list[str] = []
    for row in rows:
        names.append(row[first] or (names[-1] if names else ""))
    pairs = groupby(zip(names, rows, strict=True), key=lambda pair: pair[0])
    return [[row for _, row in block] for _, block in pairs]


def _wrapped(text: str, width: int) -> list[str]:
    """Return the lines of a text; a word that is wider than they are has a line of its own."""
    lines: list[str] = []
    for word in text.split():
        if lines and cell_len(lines[-1]) + 1 + cell_len(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines or [""]


def _padded(text: str, width: int, right: bool = False) -> str:
    blank = " " * (width - cell_len(text))
    return blank + text if right else text + blank


def _line(text: str, style: str = "") -> Text:
    return Text(text, style, no_wrap=True, overflow="ignore")
