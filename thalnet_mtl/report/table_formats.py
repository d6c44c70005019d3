"""Grids of cells as text, Markdown, LaTeX, CSV and HTML. The first line of a grid is its header."""

import csv
import io
import re
from collections.abc import Sequence

from rich.console import Console, RenderableType

from thalnet_mtl import markup
from thalnet_mtl.errors import one_line
from thalnet_mtl.report.layout import TextTable

Grid = list[list[str]]
WIDE = 40  # letters of a last column that LaTeX wraps
LAST_LATIN = 0x17F  # letters that every LaTeX prints
LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}",
    "–": "--", "−": "$-$", "→": r"$\rightarrow$", "×": r"$\times$", "±": r"$\pm$",
    "≤": r"$\leq$", "≥": r"$\geq$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "Δ": r"$\Delta$",
    "Φ": r"$\Phi$", "φ": r"$\phi$", "²": r"$^2$", "…": r"\dots{}",
}  # fmt: skip
MARKDOWN = {letter: f"\\{letter}" for letter in "\\`*[]|"} | {"<": "&lt;", ">": "&gt;"}
NUMBER = re.compile(r"[-−]?[\d.,]+(e[+-]?\d+)?( \[[-−\d., e+]+\])?|–|\d+ of \d+")


def text_grid(grid: Grid) -> TextTable:
    """Return a grid for a terminal of any width; columns of numbers stand to the right."""
    header, *lines = grid
    names = [one_line(name) + " " * header[:k].count(name) for k, name in enumerate(header)]
    rows = [dict(zip(names, line, strict=True)) for line in lines]
    numbers = [name for name in names if all(is_number(row[name]) for row in rows)]
    return TextTable(rows, names, numbers=numbers)


def as_text(part: RenderableType, width: int) -> str:
    """Return what a terminal of some width shows."""
    file = io.StringIO()
    console = Console(
        file=file, width=width, highlight=False, color_system=None, force_jupyter=False
    )
    console.print(part, crop=False)
    return file.getvalue().rstrip("\n")


def as_markdown(grids: Sequence[Grid], notes: Sequence[str] = ()) -> str:
    """Return grids as tables in Markdown, with notes below them."""
    tables = ["\n".join(markdown_lines(grid)) for grid in grids]
    lines = [f"- {escape_markdown(note)}" for note in notes]
    return "\n\n".join([*tables, *(["\n".join(lines)] if lines else [])])


def markdown_lines(grid: Grid) -> list[str]:
    """Return the lines of a grid in Markdown."""
    lines = [f"| {' | '.join(map(escape_markdown, cells))} |" for cells in grid]
    return [lines[0], "|" + "---|" * len(grid[0]), *lines[1:]]


def escape_markdown(text: str) -> str:
    r"""Return a text that Markdown shows as it is; brackets of an interval need no escape.

    >>> print(escape_markdown("a|b <c>"), escape_markdown("0.5 [0.4, 0.6]"))
    a\|b &lt;c&gt; 0.5 [0.4, 0.6]
    """
    text = one_line(text)
    return text if is_number(text) else _escaped(text, MARKDOWN)


def as_latex(grids: Sequence[Grid], notes: Sequence[str] = ()) -> str:
    """Return grids as tables in LaTeX, with notes as comments above them."""
    body = [line for grid in grids for line in (*_latex(grid), "")]
    letters = dict.fromkeys(c for line in body for c in line if ord(c) > LAST_LATIN)
    lines = [r"% needs \usepackage{booktabs}"]
    if letters:
        lines.append(f"% needs XeLaTeX or LuaLaTeX, and a font that has: {' '.join(letters)}")
    return "\n".join([*lines, *(f"% {one_line(note)}" for note in notes), *body[:-1]])


def _latex(grid: Grid) -> list[str]:
    """Return a grid as a tabular: words to the left, numbers to the right, a long text wrapped."""
    header, *rows = grid
    kinds = ["r" if all(map(is_number, cells)) else "l" for cells in zip(*rows, strict=True)]
    if max(len(row[-1]) for row in rows) > WIDE:
        kinds[-1] = r"p{0.4\linewidth}"
    lines = [f"{' & '.join(map(escape_latex, cells))} \\\\" for cells in (header, *rows)]
    return [rf"\begin{{tabular}}{{{''.join(kinds)}}}", r"\toprule", lines[0], r"\midrule",
            *lines[1:], r"\bottomrule", r"\end{tabular}"]  # fmt: skip


def escape_latex(text: str) -> str:
    r"""Return a text that LaTeX prints as it is.

    A bracket or star at its beginning is put into braces: after the end of a row, it would be an
    argument.

    >>> print(escape_latex("a_b & 5 %"), escape_latex("[x]"))
    a\_b \& 5 \% {[}x]
    """
    escaped = _escaped(one_line(text), LATEX)
    return f"{{{escaped[0]}}}{escaped[1:]}" if escaped[:1] in ("[", "*") else escaped


def as_html(grid: Grid) -> str:
    """Return a grid as a table in HTML; columns of numbers stand to the right."""
    header, *lines = grid
    numbers = [name for name, *cells in zip(*grid, strict=True) if all(map(is_number, cells))]
    return markup.table(header, lines, numbers)


def as_csv(grid: Grid) -> str:
    """Return a grid as CSV."""
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(grid)
    return file.getvalue()


def is_number(text: str) -> bool:
    """Return whether a cell is a number, with an interval or without, or a dash for none.

    >>> is_number("1,234"), is_number("-0.5 [-1.0, 0.1]"), is_number("–"), is_number("3x")
    (True, True, True, False)
    """
    return NUMBER.fullmatch(text) is not None


def _escaped(text: str, table: dict[str, str]) -> str:
    return "".join(table.get(letter, letter) for letter in text)
