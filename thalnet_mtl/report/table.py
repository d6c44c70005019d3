"""A table of runs: its rows, its columns, how rows compare, and what is missing."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from rich.console import Group, RenderableType

from thalnet_mtl import markup
from thalnet_mtl.errors import UserError, one_line, unknown
from thalnet_mtl.metrics.significance import MOST_PAIRS, least_pairs
from thalnet_mtl.report import table_formats
from thalnet_mtl.report.cells import Column, Comparison
from thalnet_mtl.report.folding import MISSING, Row
from thalnet_mtl.report.layout import Note
from thalnet_mtl.report.table_formats import Grid

INTERVALS = "Mean over the seeds, with the 95 % bootstrap interval of the mean."
OF_COLUMN = "low", "high", "n"
OF_COMPARISON = ("against", "difference", "difference.low", "difference.high", "pairs", "p",
                 "p.holm", "verdict")  # fmt: skip


@dataclass(repr=False)
class Table:
    """Rows of runs, columns of quantities, comparisons, and notes on what is missing.

    It is shown as text of 80 columns; ``text``, ``markdown``, ``latex`` and ``csv`` return it in
    a format.
    """

    fields: list[str]  # that tell the rows apart
    rows: list[Row]
    columns: list[Column]
    comparisons: list[Comparison] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)  # on what is missing
    titles: Mapping[str, str] = field(default_factory=dict)
    decimals: Mapping[str, int] = field(default_factory=dict)  # by the name of the column

    def title(self, name: str) -> str:
        """Return the title of a field or of a value; its own name by default."""
        return self.titles.get(name, name)

    def row_title(self, row: Row) -> str:
        """Return the values of the fields of a row as one text."""
        return self.titles.get(row.label, ", ".join(map(self.title, row.cells)))

    def cell(self, row: Row, column: Column) -> str:
        """Return a cell as it is shown."""
        return column.cells[self.rows.index(row)].format(self.decimals.get(column.name))

    def row(self, label: str) -> Row:
        """Return the row with a label, such as 'naive' or 'naive, 0.01'.

        Raises:
            UserError: there is none; names the closest one.
        """
        for row in self.rows:
            if label in (row.label, self.row_title(row)):
                return row
        raise unknown("row", label, [row.label for row in self.rows])

    def pairs_against(self, baseline: str) -> list[tuple[Row, Row]]:
        """Return every other row with the row that it is compared with.

        Args:
            baseline: label of a row; or FIELD=VALUE, or a value that only one field has, for the
                row that has this value and else those of the row compared.

        Raises:
            UserError: there is no such row.
        """
        if any(baseline in (row.label, self.row_title(row)) for row in self.rows):
            base = self.row(baseline)
            return [(row, base) for row in self.rows if row is not base]
        place, value = self._field_value(baseline)
        pairs = []
        for row in self.rows:
            others = row.cells[:place], row.cells[place + 1 :]
            partners = [
                other
                for other in self.rows
                if self._has(other, place, value)
                and (other.cells[:place], other.cells[place + 1 :]) == others
            ]
            if partners and not self._has(row, place, value):
                pairs.append((row, partners[0]))
            elif not partners:
                self.remarks.append(
                    f"{row.label}: not compared, as no row with {self.fields[place]} {value} has "
                    f"its other values"
                )
        return pairs

    def _has(self, row: Row, place: int, value: str) -> bool:
        return value in (row.cells[place], self.title(row.cells[place]))

    def _field_value(self, baseline: str) -> tuple[int, str]:
        """Return the place of a field among the fields, and its value."""
        name, equals, value = baseline.rpartition("=")
        if equals and name not in self.fields and name != "":
            name, value = "", baseline
        places = [
            k
            for k, field_name in enumerate(self.fields)
            if name in ("", field_name) and any(self._has(row, k, value) for row in self.rows)
        ]
        if len(places) > 1:
            names = " and ".join(self.fields[k] for k in places)
            raise UserError(f"--against {baseline}: {names} both have it; give FIELD={value}.")
        if not places:
            quote = "'" if len(self.fields) > 1 else ""  # labels such as 'naive, 0.01'
            allowed = dict.fromkeys(f"{quote}{row.label}{quote}" for row in self.rows)
            if len(self.fields) > 1:
                allowed |= dict.fromkeys(cell for row in self.rows for cell in row.cells)
            raise unknown("row", baseline, allowed)
        return places[0], value

    def main_grid(self) -> Grid:
        """Return the cells of the rows and columns, with their header."""
        names = map(self.title, self.fields)
        lines = [[*names, self.title("seeds"), *(column.title for column in self.columns)]]
        for row in self.rows:
            cells = [self.cell(row, column) for column in self.columns]
            lines.append([*map(self.title, row.cells), row.count, *cells])
        return lines

    def comparison_grid(self) -> Grid:
        """Return the cells of the comparisons, with their header; [] if there are none."""
        if not self.comparisons:
            return []
        columns = dict.fromkeys(c.column.difference_title for c in self.comparisons)
        baselines = dict.fromkeys(self.row_title(c.baseline) for c in self.comparisons)
        base = f" with {next(iter(baselines))}" if len(baselines) == 1 else ""
        head = [f"compared{base}", *(["with"] if not base else [])]
        head += ["column"] * (len(columns) > 1)
        head += ["difference" if len(columns) > 1 else f"difference in {next(iter(columns))}"]
        lines = [[*head, "pairs", "p", "verdict"]]
        for c in self.comparisons:
            cells = [self.row_title(c.row), *([self.row_title(c.baseline)] if not base else [])]
            cells += [c.column.difference_title] * (len(columns) > 1)
            cells.append(c.difference.format(self.decimals.get(c.column.name)))
            p = MISSING if c.corrected_p is None else f"{c.corrected_p:.3g}"
            lines.append([*cells, str(c.pairs), p, c.result.word])
        return lines

    def raw_grid(self) -> Grid:
        """Return all numbers in full precision, in the units of ``result.json``.

        Of a column there are the mean, the ends of its interval (``.low``, ``.high``) and the
        number of values (``.n``); of a compared one the mean difference with its interval, the
        number of pairs, p, p after Holm's correction and the verdict.
        """
        compared = list(dict.fromkeys(c.column.name for c in self.comparisons))
        header = [*self.fields, "runs", "seeds"]
        for column in self.columns:
            header += [column.name, *(f"{column.name}.{part}" for part in OF_COLUMN)]
        header += [f"{name}.{part}" for name in compared for part in OF_COMPARISON]
        lines = [header]
        for number, row in enumerate(self.rows):
            cells: list[object] = [*row.cells, len(row.runs), " ".join(map(str, row.seeds))]
            for column in self.columns:
                cell = column.cells[number]
                cells += [cell.mean, *(cell.interval or (None, None)), len(cell.values)]
            for name in compared:
                compared_cells = [
                    c for c in self.comparisons if c.row is row and c.column.name == name
                ]
                cells += compared_cells[0].raw() if compared_cells else [None] * len(OF_COMPARISON)
            lines.append(["" if cell is None else str(cell) for cell in cells])
        return lines

    def notes(self) -> list[str]:
        """Return the notes below the table: how it was made, and what is missing."""
        lines = [INTERVALS] * any(len(row.runs) > 1 for row in self.rows)
        tests = [c for c in self.comparisons if c.p is not None]
        if tests:
            lines.append(
                f"p is that of exact sign-flip tests over pairs of runs with the same seed, "
                f"corrected by Holm's method for {len(tests)} test{'s' * (len(tests) > 1)}. A "
                f"verdict needs p < 0.05."
            )
            if any(c.pairs < least_pairs(len(tests)) for c in tests):
                few = f"{len(tests)} tests decide" if len(tests) > 1 else "a test decides"
                lines.append(
                    f"Too few pairs stay undecided, however large the difference: {few} only "
                    f"with {least_pairs(len(tests))} pairs or more."
                )
        if len(tests) < len(self.comparisons):
            lines.append(f"Without p: a test takes 2 to {MOST_PAIRS} pairs.")
        return [*lines, *map(one_line, self.remarks)]

    def grids(self) -> list[Grid]:
        """Return the table, and that of its comparisons if there are any."""
        return [grid for grid in (self.main_grid(), self.comparison_grid()) if grid]

    def renderable(self) -> RenderableType:
        """Return the table for a terminal of any width: one block a row where it is narrow."""
        parts: list[RenderableType] = []
        for grid in self.grids():
            parts += [table_formats.text_grid(grid), ""]
        return Group(*parts, *map(Note, self.notes()))

    def text(self, width: int = 80) -> str:
        """Return the table as text for a terminal of some width."""
        return table_formats.as_text(self.renderable(), width)

    def markdown(self) -> str:
        """Return the table in Markdown, for a README."""
        return table_formats.as_markdown(self.grids(), self.notes())

    def latex(self) -> str:
        """Return the table in LaTeX; the document needs the package booktabs."""
        return table_formats.as_latex(self.grids(), self.notes())

    def csv(self) -> str:
        """Return the table as CSV in full precision; see ``raw_grid``."""
        return table_formats.as_csv(self.raw_grid())

    def __repr__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        """Return the table as HTML, as notebooks show it."""
        parts = map(table_formats.as_html, self.grids())
        return "".join([*parts, *map(markup.note, self.notes())])
