"""Tables of runs for the terminal, made with rich."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Group as Lines
from rich.console import RenderableType

from thalnet_mtl.metrics.summary import FORMULAS
from thalnet_mtl.report import baselines
from thalnet_mtl.report.layout import NUMBERS, Note, TextTable
from thalnet_mtl.report.make_table import column
from thalnet_mtl.report.quantities import find_quantity
from thalnet_mtl.report.relative import References
from thalnet_mtl.report.rows import MANY, Group, fold_runs, summary_table
from thalnet_mtl.report.table import INTERVALS
from thalnet_mtl.report.table_formats import text_grid
from thalnet_mtl.runs.records import RunRecord, read_runs

STREAM_COLUMNS = ("parameters.start", "parameters", "ACC", "AIA", "forgetting",
                  "forgetting_avalanche", "BWT", "FWT")  # fmt: skip


def runs_table(folders: Sequence[Path], baseline_folders: Sequence[Path] = ()) -> RenderableType:
    """Return runs side by side, a row for each task, and their gains over single-task baselines.

    Runs that differ in nothing but the seed are one row. Of a run of many tasks, rows are the mean
    and the worst of them.
    """
    runs = read_runs(folders)
    groups = fold_runs(runs)
    rows = summary_table(groups)
    folded = any(group.folded for group in groups)
    kinds = dict.fromkeys(m for run in runs for record in run.records for m in record.metrics)
    shown = {
        "seeds": folded,
        "metric": len(kinds) > 1,
        "train": not folded,
        "task unknown": any(row["task unknown"] for row in rows),
    }
    columns = [
        name
        for name in ("run", "task", "seeds", "parameters", "metric", "train", "validation",
                     "test", "task unknown")
        if shown.get(name, True)
    ]  # fmt: skip
    numbers = NUMBERS | ({"seeds"} if folded else set())
    notes = _notes(rows)
    modes = {row["mode"] for row in rows if row["run"]}
    for row in rows if len(modes) > 1 else ():
        row["run"] += f" ({row['mode']})" * bool(row["run"])
    notes += [f"All runs: {mode}" for mode in modes - {"single"} if len(modes) == 1]
    parts: list[RenderableType] = [TextTable(rows, columns, numbers=numbers)]
    if summarized := [run for run in runs if len(run.tasks) > MANY]:
        where = ", ".join(str(run.folder) for run in summarized)
        notes.append(f"All tasks: thalnet report, or accuracy_matrix.csv in {where}")
    notes += [f"{kind.label}: {kind.direction}" for kind in kinds] * (len(kinds) == 1)
    notes += [INTERVALS] * folded
    parts += ["", *map(Note, notes)] if notes else []
    for streams in _by_metrics([group for group in groups if group.runs[0].continual]):
        parts += ["", _stream_table(streams)]
    if any(run.continual for run in runs):
        parts += ["", Note(FORMULAS)]
    if baseline_folders:
        parts += ["", _baseline_table(runs, read_runs(baseline_folders))]
    return Lines(*parts)


def _notes(rows: Sequence[dict[str, str]]) -> list[str]:
    """Return the notes on runs, each once, with their names unless it is on all of them."""
    by_note: dict[str, dict[str, None]] = {}
    for row in rows:
        if row["run"]:
            by_note.setdefault(row["note"], {})[row["run"]] = None
    return [
        f"{'All runs' if len(by_note) == 1 else ', '.join(names)}: {note}"
        for note, names in by_note.items()
        if note
    ]


def _by_metrics(groups: Sequence[Group]) -> list[list[Group]]:
    """Return groups of runs with the same main metrics, whose measures have the same unit."""
    by_metrics: dict[frozenset[str], list[Group]] = {}
    for group in groups:
        tasks = group.runs[0].result.tasks if group.runs[0].result else {}
        by_metrics.setdefault(frozenset(task.metric for task in tasks.values()), []).append(group)
    return list(by_metrics.values())


def _stream_table(groups: Sequence[Group]) -> RenderableType:
    """Return the measures of streams, a row a group; what is the same in all stands below."""
    summaries = [group.runs[0].continual for group in groups]
    about = {
        name: [getattr(summary, name) for summary in summaries]
        for name in ("scenario", "strategy", "growth")
    }
    fields = [name for name, values in about.items() if len(set(values)) > 1]
    runs = [run for group in groups for run in group.row.runs.values()]
    columns = [column(find_quantity(name, runs, References()), [group.row for group in groups])
               for name in STREAM_COLUMNS]  # fmt: skip
    start = columns[0].values != columns[1].values
    header = ["run", *fields, *(each.title for each in columns[1 - start :])]
    lines = [
        [group.name, *(about[name][k] for name in fields)]
        + [each.cells[k].format() for each in columns[1 - start :]]
        for k, group in enumerate(groups)
    ]
    same = [f"{name} {values[0]}" for name, values in about.items() if name not in fields]
    below: list[RenderableType] = ["", Note(f"All: {', '.join(same)}")] if same else []
    return Lines(text_grid([header, *lines]), *below)


def _baseline_table(runs: Sequence[RunRecord], baseline_runs: Sequence[RunRecord]) -> Lines:
    """Return skill and gain of every task, Δm of every run, and their formulas."""
    comparisons = baselines.compare_with_baselines(runs, baseline_runs)
    columns = ("run", "task", "metric", "test", "single-task", "n", "skill", "gain")
    notes = [baselines.FORMULAS, *baselines.caveats(comparisons)]
    grid = TextTable(baselines.table_rows(comparisons), columns)
    return Lines(grid, "", *map(Note, notes))
