"""The outcome of a sweep: a row for every point of its grid and every task, over the seeds."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

from rich.console import Group, RenderableType

from thalnet_mtl.metrics.significance import bootstrap_interval
from thalnet_mtl.report.layout import Note, TextTable
from thalnet_mtl.runs.records import TaskRecord, read_run
from thalnet_mtl.sweep.plan import PlannedRun, column_names, format_value

INTERVAL = "95 % interval"
NOTE = "Means over seeds; 95 % bootstrap intervals of the mean on validation."
BEST = "* best mean on validation, among rows with all seeds done"


@dataclass
class Row:
    """The finished runs of one point of the grid, as records of one task."""

    run: str
    task: str
    values: dict[str, str]
    seeds: str = ""  # '2 done, 1 failed'
    complete: bool = False  # whether all seeds are done
    records: list[TaskRecord] = field(default_factory=list)

    def mean(self, split: str) -> float:
        """Return the mean score over the seeds."""
        return fmean(record.score(split) for record in self.records)


def sweep_table(
    plan: Sequence[PlannedRun], status: Mapping[str, str], out: Path, failures: Sequence[str] = ()
) -> RenderableType:
    """Return the table of a sweep with its notes; a small sweep fits 80 columns."""
    rows, notes = summarize(plan, status, out)
    return Group(TextTable(rows, list(rows[0])), "", *map(Note, [*notes, *failures]))


def summarize(
    plan: Sequence[PlannedRun], status: Mapping[str, str], out: Path
) -> tuple[list[dict[str, str]], list[str]]:
    """Return rows in the order of the grid, all with the same columns, and notes.

    One row of each task is marked as the best. It is chosen on validation; test scores play no
    part in the choice.

    Args:
        plan: The runs of the sweep.
        status: 'done', 'failed' or 'stopped' by the name of the run.
        out: The folder of the sweep.
    """
    rows = _rows(plan, status, out)
    best = _best_rows(rows)
    distinct = [name for name in ("run", "task") if len({getattr(row, name) for row in rows}) > 1]
    table = []
    for row in rows:
        cells = {name: getattr(row, name) for name in distinct} | row.values | {"seeds": row.seeds}
        cells |= dict.fromkeys(("validation", INTERVAL, "test"), "–")
        if row.records:
            metric = row.records[0].metric
            assert metric is not None
            cells |= {split: metric.format(row.mean(split)) for split in ("validation", "test")}
            if len(row.records) > 1:
                ends = bootstrap_interval([record.score("validation") for record in row.records])
                cells[INTERVAL] = " – ".join(metric.format(end).split()[0] for end in ends)
        table.append(cells | ({"": "*" * (row in best)} if best else {}))
    limits = dict.fromkeys(record.run.evaluation_limit for row in rows for record in row.records)
    notes = [NOTE, *[BEST] * bool(best), *(f"Scores {limit}." for limit in limits if limit)]
    return table, notes


def _rows(plan: Sequence[PlannedRun], status: Mapping[str, str], out: Path) -> list[Row]:
    points: dict[tuple[str, str], list[PlannedRun]] = {}
    for planned in plan:
        points.setdefault((planned.run, repr(planned.values)), []).append(planned)
    rows = []
    for (run, _), runs in points.items():
        counts = Counter(status[planned.name] for planned in runs)
        seeds = ", ".join(f"{counts[key]} {key}" for key in ("done", "failed") if counts[key])
        done = [read_run(out / planned.name) for planned in runs if status[planned.name] == "done"]
        names = column_names(list(runs[0].values))
        values = {names[key]: format_value(value) for key, value in runs[0].values.items()}
        for task in runs[0].config.named_tasks:
            records = [TaskRecord(record, task) for record in done]
            rows.append(Row(run, task, values, seeds, len(done) == len(runs), records))
    return rows


def _best_rows(rows: Sequence[Row]) -> list[Row]:
    """Return the complete row with the best mean on validation of each task that has several."""
    best = []
    for task in dict.fromkeys(row.task for row in rows):
        complete = [row for row in rows if row.task == task and row.complete]
        if len(complete) > 1:
            metric = complete[0].records[0].metric
            assert metric is not None
            best_row = complete[0]
            for row in complete[1:]:
                if metric.better(row.mean("validation"), best_row.mean("validation")):
                    best_row = row
            best.append(best_row)
    return best
