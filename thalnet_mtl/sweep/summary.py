"""What a sweep came to: a row for every point of its grid and every task, over the seeds."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

from thalnet_mtl.metrics.significance import bootstrap_interval
from thalnet_mtl.runs.records import TaskRecord, read_run
from thalnet_mtl.sweep.plan import PlannedRun, column_names, format_value

INTERVAL = "95 % interval"
NOTE = "Means over seeds; 95 % bootstrap intervals of the mean on validation."
CHOSEN = "* first on validation, of rows with all seeds done"


@dataclass
class Row:
    """The runs of one point that are done, as records of one task."""

    run: str
    task: str
    values: dict[str, str]
    seeds: str = ""
    complete: bool = False
    records: list[TaskRecord] = field(default_factory=list)

    def mean(self, part: str) -> float:
        return fmean(record.score(part) for record in self.records)


def summarize(
    plan: Sequence[PlannedRun], status: Mapping[str, str], out: Path
) -> tuple[list[dict[str, str]], list[str]]:
    """Rows ready to print, in the order of the grid, all with the same columns; and notes.

    ``status`` says of every run by its name whether it is done, failed or stopped. One row of each
    task is marked: chosen on validation, the test part has no say in it.
    """
    rows = _rows(plan, status, out)
    chosen = _chosen(rows)
    several = [name for name in ("run", "task") if len({getattr(row, name) for row in rows}) > 1]
    cells = []
    for row in rows:
        line = {name: getattr(row, name) for name in several} | row.values | {"seeds": row.seeds}
        line |= dict.fromkeys(("validation", INTERVAL, "test"), "–")
        if row.records:
            metric = row.records[0].metric
            assert metric is not None
            line |= {part: metric.format(row.mean(part)) for part in ("validation", "test")}
            if len(row.records) > 1:
                ends = bootstrap_interval([record.score("validation") for record in row.records])
                line[INTERVAL] = " – ".join(metric.format(end).split()[0] for end in ends)
        cells.append(line | ({"": "*" * (row in chosen)} if chosen else {}))
    limits = dict.fromkeys(record.run.limit for row in rows for record in row.records)
    notes = [NOTE, *[CHOSEN] * bool(chosen), *(f"Scores {limit}." for limit in limits if limit)]
    return cells, notes


def _rows(plan: Sequence[PlannedRun], status: Mapping[str, str], out: Path) -> list[Row]:
    points: dict[tuple[str, str], list[PlannedRun]] = {}
    for one in plan:
        points.setdefault((one.run, repr(one.values)), []).append(one)
    rows = []
    for (run, _), runs in points.items():
        counts = Counter(status[one.name] for one in runs)
        seeds = ", ".join(f"{counts[what]} {what}" for what in ("done", "failed") if counts[what])
        done = [read_run(out / one.name) for one in runs if status[one.name] == "done"]
        names = column_names(list(runs[0].values))
        values = {names[key]: format_value(value) for key, value in runs[0].values.items()}
        for task in runs[0].config.named_tasks:
            records = [TaskRecord(one, task) for one in done]
            rows.append(Row(run, task, values, seeds, len(done) == len(runs), records))
    return rows


def _chosen(rows: Sequence[Row]) -> list[Row]:
    """Of every task the row with the best mean on validation, where there is a choice."""
    chosen = []
    for task in dict.fromkeys(row.task for row in rows):
        complete = [row for row in rows if row.task == task and row.complete]
        if len(complete) > 1:
            metric = complete[0].records[0].metric
            assert metric is not None
            sign = 1 if metric.higher_is_better else -1
            chosen.append(max(complete, key=lambda row: sign * row.mean("validation")))
    return chosen
