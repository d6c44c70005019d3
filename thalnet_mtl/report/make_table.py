"""Make tables of runs: a row for each configuration, its seeds folded to mean and interval.

print(table("runs/sweep", rows=["train.strategy"], columns=["ACC", "forgetting"],
            against="naive"))
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from pathlib import Path

from thalnet_mtl.errors import UserError, unknown
from thalnet_mtl.metrics.metric import Metric, list_names
from thalnet_mtl.report.cells import Cell, Column, compare, seed_means
from thalnet_mtl.report.folding import SEED_FIELD, Row, fold
from thalnet_mtl.report.quantities import Quantity, default_columns, find_quantity
from thalnet_mtl.report.relative import References
from thalnet_mtl.report.table import Table
from thalnet_mtl.runs.summaries import RunSummary, read_summaries

Paths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]


def table(
    runs: Paths,
    *,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    against: str = "",
    test: Sequence[str] = (),
    fold: Sequence[str] = (),
    single: Paths = (),
    joint: Paths = (),
    titles: Mapping[str, str] | None = None,
    decimals: Mapping[str, int] | None = None,
) -> Table:
    """Make a table of runs, in which runs that differ in nothing but the seed are one row.

    Args:
        runs: run directories, folders of them (such as that of a sweep), and records of runs.
        rows: fields of the configuration that tell rows apart, such as 'train.strategy', or 'run'
            for names of runs. By default all in which the runs differ.
        columns: quantities, such as 'ACC', 'test.accuracy' or 'parameters'; see
            ``thalnet_mtl.report.quantities``. By default those of a stream, or test scores.
        against: the row that the others are compared with. See ``Table.pairs_against``.
        test: columns that are compared; by default the first one.
        fold: fields that are averaged over like the seed, such as 'stream' for orders of tasks.
        single: runs on a single task each, which 'transfer', 'skill' and 'gain' are relative to.
        joint: joint runs, which 'intransigence' is relative to.
        titles: of columns, fields and values, by their name. Rows named here come first, in order.
        decimals: by the name of the column; under '', those of all other columns.

    Raises:
        UserError: there is no run, row, field or column of that name; names the closest one.
    """
    summaries, notes = read_summaries(_paths(runs))
    singles, joints = (
        read_summaries(among)[0] if (among := _paths(paths)) else [] for paths in (single, joint)
    )
    references = References(singles, joints)
    return make_table(
        summaries,
        references,
        rows=rows,
        columns=columns,
        against=against,
        test=test,
        over=fold,
        titles=titles or {},
        decimals=decimals,
        notes=notes,
    )


def make_table(
    runs: Sequence[RunSummary],
    references: References | None = None,
    *,
    rows: Sequence[str] = (),
    columns: Sequence[str | Quantity] = (),
    against: str = "",
    test: Sequence[str] = (),
    over: Sequence[str] = (),
    titles: Mapping[str, str] | None = None,
    decimals: Mapping[str, int] | None = None,
    notes: Sequence[str] = (),
) -> Table:
    """Make a table of runs that have been read; see ``table``."""
    references, titles = references or References(), titles or {}
    fields, folded, fold_notes = fold(runs, rows, over)
    places = {label: place for place, label in enumerate(titles)}
    folded.sort(key=lambda row: (places.get(row.label, len(places)), row.label != against))
    quantities = [
        each if isinstance(each, Quantity) else find_quantity(each, runs, references)
        for each in dict.fromkeys(columns or default_columns(runs))
    ]
    names = [quantity.name for quantity in quantities]
    for name in test:
        if name not in names:
            raise UserError(f"--test {name}: {unknown('column', name, names)}")
    table_columns = [column(quantity, folded, titles) for quantity in quantities]
    result = Table(
        fields, folded, table_columns, [], [*notes, *fold_notes], titles, _decimals(decimals, names)
    )
    if test and not against:
        raise UserError("--test needs --against: the row that the others are compared with.")
    if against:
        pairs, tested = result.pairs_against(against), test or names[:1]
        result.comparisons = compare(pairs, [c for c in table_columns if c.name in tested])
    result.remarks += _missing(result, references)
    return result


def _decimals(decimals: Mapping[str, int] | None, names: Sequence[str]) -> dict[str, int]:
    """Return the decimals of the columns for which they are given."""
    by_name = dict(decimals or {})
    for name in by_name:
        if name and name not in names:
            raise UserError(f"decimals of {name}: {unknown('column', name, names)}")
    default = dict.fromkeys(names, by_name.pop("")) if "" in by_name else {}
    return default | by_name


def column(
    quantity: Quantity, rows: Sequence[Row], titles: Mapping[str, str] | None = None
) -> Column:
    """Return a column, whose values must have the same unit."""
    values: dict[Path, float] = {}
    metrics: dict[str, Metric] = {}
    for run in (run for row in rows for run in row.runs.values()):
        value, metric = quantity.value(run)
        if value is not None and isfinite(value):
            values[run.path], metrics[metric.name] = float(value), metric
    if len(metrics) > 1:
        raise UserError(
            f"column {quantity.name}: some runs are scored in {' and others in '.join(metrics)}. "
            f"Name a metric or a task, or fewer runs."
        )
    kind = next(iter(metrics.values()), None)
    unit = f", {kind.unit}" if kind and kind.unit else ""
    title = (titles or {}).get(quantity.name, f"{quantity.title}{unit}")
    cells = [Cell([*seed_means(row, values).values()], kind) for row in rows]
    return Column(quantity.name, title, kind, values, cells)


def _missing(table: Table, references: References) -> list[str]:
    """Return a line on everything that is missing: runs, seeds, values, pairs."""
    lines = [f"{run.path}: {run.problem}" for row in table.rows for run in row.unfinished]
    by_seeds: dict[str, list[str]] = {}
    for row in table.rows:
        by_seeds.setdefault(seed_ranges(row.seeds) or "none", []).append(row.label)
    if len(by_seeds) > 1 and SEED_FIELD not in table.fields:
        parts = [f"{seeds} of {list_names(labels)}" for seeds, labels in by_seeds.items()]
        lines.append(f"Seeds differ: {'; '.join(parts)}")
    for each in table.columns:
        partial = [
            f"{row.label} ({len(cell.values)} of {len(row.seeds)} seeds)"
            for row, cell in zip(table.rows, each.cells, strict=True)
            if len(cell.values) < len(row.seeds)
        ]
        if partial:
            lines.append(f"{each.name}: no value for {list_names(partial)}")
    shared: dict[tuple[str, str, int, int], list[str]] = {}
    for c in table.comparisons:
        most = max(len(c.row.seeds), len(c.baseline.seeds))
        if c.pairs < most:
            key = c.column.name, c.baseline.label, c.pairs, most
            shared.setdefault(key, []).append(c.row.label)
    lines += [
        f"{name}: {list_names(rows)} and {baseline} share {pairs} of {most} seeds"
        for (name, baseline, pairs, most), rows in shared.items()
    ]
    lines += [
        f"No finished {kind} with seed {seed_ranges(sorted(seeds))}"
        for kind, seeds in references.missing.items()
    ]
    results = [run.result for row in table.rows for run in row.runs.values()]
    limits = dict.fromkeys(result.evaluation_batches for result in results if result)
    counts = ["batch" if n == 1 else f"{n} batches" for n in limits if n]
    lines += [f"Scores are on the first {count} only" for count in counts]
    return lines


def seed_ranges(seeds: Sequence[int]) -> str:
    """Return seeds as text, with those that follow each other as a range.

    >>> seed_ranges([0, 1, 2, 5])
    '0–2 5'
    """
    parts: list[list[int]] = []
    for seed in seeds:
        if parts and seed == parts[-1][-1] + 1:
            parts[-1].append(seed)
        else:
            parts.append([seed])
    return " ".join(f"{p[0]}–{p[-1]}" if len(p) > 2 else " ".join(map(str, p)) for p in parts)


def _paths(paths: Paths) -> list[Path]:
    """Return one path or several as a list."""
    if isinstance(paths, str | os.PathLike):
        return [Path(paths)]
    return [Path(path) for path in paths]
