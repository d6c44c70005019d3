"""Tables of the READMEs in Markdown: rows, means with intervals, commands, marks in a text."""

import re
from collections.abc import Iterable, Mapping

from benchmarks.records import Record
from thalnet_mtl.report.cells import Comparison
from thalnet_mtl.report.table_formats import Grid

MARKS = "<!-- results -->", "<!-- end of results -->"


def header(*cells: str) -> list[str]:
    """Return the first two lines of a table."""
    return [row(*cells), "|" + "---|" * len(cells)]


def row(*cells: str) -> str:
    """Return a line of a table."""
    return f"| {' | '.join(cells)} |"


def lines_of(grid: Grid) -> list[str]:
    """Return the lines of a table, whose first row is its header."""
    return [*header(*grid[0]), *(row(*cells) for cells in grid[1:])] if len(grid) > 1 else []


def select(grid: Grid, titles: Mapping[str, str]) -> Grid:
    """Return some columns of a table by their header, in an order and under titles of one's own."""
    places = [grid[0].index(name) for name in titles]
    return [[*titles.values()], *([cells[k] for k in places] for cells in grid[1:])]


def verdict(comparison: Comparison) -> str:
    """Return the verdict of a comparison, with its reason."""
    return f"**{comparison.result.word}**: {comparison.result.line}"


def commands(records: Iterable[Record]) -> str:
    """Return the folded list of commands that reproduce a table, with SEED where it is enough."""
    by_pattern: dict[str, set[str]] = {}
    for record in records:
        pattern = re.sub(r"(--train\.seed) \d+", r"\1 SEED", record["command"])
        by_pattern.setdefault(pattern, set()).add(record["command"])
    lines = [
        pattern if len(variants) > 1 else variants.pop() for pattern, variants in by_pattern.items()
    ]
    return "\n".join([
        "<details><summary>Commands that reproduce these numbers</summary>", "",
        "```bash", *lines, "```", "", "</details>",
    ])  # fmt: skip


def with_table(text: str, table: str) -> str:
    """Return the text of a README with the table between its marks."""
    before, _, rest = text.partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    return f"{before}{MARKS[0]}\n{table}\n{MARKS[1]}{after}"
