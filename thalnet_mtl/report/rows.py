"""Rows of the tables of runs, as text by column."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from thalnet_mtl.metrics.metric import Metric
from thalnet_mtl.report.cells import Cell
from thalnet_mtl.report.folding import Row, fold
from thalnet_mtl.runs.records import RunRecord, TaskRecord, with_unique_names
from thalnet_mtl.runs.results import SPLITS
from thalnet_mtl.runs.summaries import SEED, summary_of

MANY = 12  # tasks of a run: of more, a summary has the mean and the worst
WORST = 3


def table(runs: Sequence[RunRecord]) -> list[dict[str, str]]:
    """Return a row for every run, task and metric; a missing score is '–'.

    Rows of further metrics are empty but for the metric and its scores.

    Keys: run, body, task, mode ('joint with 2 others'), parameters, seed, steps, best_step,
    metric, train, validation, test, task unknown (the test score where inputs choose the path, and
    the share of sequences that choose their own), own_best and own_step (the best validation score
    of this task alone, if it was reached at another step), train_seconds, and note ('on the first 2
    batches only', 'unfinished at step 400').
    """
    return [row for run in with_unique_names(runs) for row in _rows(run)]


def _rows(run: RunRecord) -> list[dict[str, str]]:
    """Return a row for every task and metric of a run, which keeps its name."""
    rows = []
    for record in run.records:
        row = row_of(record)
        rows += [row, *(dict.fromkeys(row, "") | further for further in further_rows(record))]
    return rows


@dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but the seed, or a single run."""

    name: str  # of the run; without its seed, of several runs
    runs: Sequence[RunRecord]  # finished, or the only one
    row: Row

    @property
    def folded(self) -> bool:
        """Return whether it has several seeds."""
        return len(self.row.runs) + len(self.row.unfinished) > 1


def fold_runs(runs: Sequence[RunRecord]) -> list[Group]:
    """Fold runs that differ in nothing but the seed; a run that repeats another is by itself."""
    named = {run.folder: run for run in with_unique_names(runs)}
    _, rows, _ = fold([summary_of(run) for run in runs])
    folded = {run.path for row in rows for run in (*row.runs.values(), *row.unfinished)}
    repeated = [summary_of(run) for run in runs if run.folder not in folded]
    rows += [row for run in repeated for row in fold([run])[1]]
    groups = []
    for row in rows:
        members = [named[run.path] for run in (*row.runs.values(), *row.unfinished)]
        several = len(members) > 1
        name = SEED.sub("", members[0].name).strip("/") if several else members[0].name
        finished = [named[run.path] for run in row.runs.values()]
        groups.append(Group(name, finished or members[:1], row))
    count = Counter(group.name for group in groups)
    groups = [
        replace(group, name=group.row.label) if count[group.name] > 1 and group.folded else group
        for group in groups
    ]
    order = {folder: place for place, folder in enumerate(named)}
    return sorted(groups, key=lambda group: order[group.runs[0].folder])


def summary_table(groups: Sequence[Group]) -> list[dict[str, str]]:
    """Return a row for every group, task and metric; of many tasks, the mean and the worst.

    The mean is one for each main metric. The worst are those on the test split, or on the
    validation split as long as the run is unfinished. Keys are those of ``table``, and seeds.
    """
    rows = []
    for group in groups:
        first = group.runs[0]
        if len(first.tasks) <= MANY or not any(record.metric for record in first.records):
            rows += [row for task in first.tasks for row in _task_rows(group, task)]
            continue
        by_metric: dict[Metric, list[str]] = {}
        for record in first.records:
            if record.metric:
                by_metric.setdefault(record.metric, []).append(record.task)
        for metric, tasks in by_metric.items():
            rows.append(_mean_row(group, metric, tasks))
            ranked = sorted(tasks, key=lambda task: _last_score(group, task),
                            reverse=not metric.higher_is_better)  # fmt: skip
            for task in ranked[:WORST]:
                worst, *_ = _task_rows(group, task)
                title = f"worst: {TaskRecord(first, task).title}"
                rows.append(worst | {"task": title})
    return rows


def _task_rows(group: Group, task: str) -> list[dict[str, str]]:
    """Return the rows of a group on one task: one for each metric."""
    records = [TaskRecord(run, task) for run in group.runs]
    row = row_of(records[0]) | _about(group)
    row["task"] = records[0].title
    if records[0].config.only_scored:
        row["mode"] = "only scored"
    further = further_rows(records[0])
    if group.folded:
        row |= dict.fromkeys(("own_best", "own_step", "task unknown"), "")
        row |= {"note": records[0].run.evaluation_limit}
        metrics = records[0].metrics if records[0].result else ()
        for shown, metric in zip([row, *further], metrics, strict=False):
            shown |= {split: _over_seeds(records, split, metric) for split in SPLITS}
    return [row, *(dict.fromkeys(row, "") | other for other in further)]


def _about(group: Group) -> dict[str, str]:
    """Return the name of a group, its number of seeds, and how it was trained in short."""
    config = group.runs[0].config
    count = len(config.trained_tasks)
    mode = f"stream of {count}" if config.stream else f"joint of {count}" if count > 1 else "single"
    return {"run": group.name, "seeds": group.row.count, "mode": mode}


def _over_seeds(records: Sequence[TaskRecord], split: str, metric: Metric) -> str:
    """Return mean and interval over seeds with one decimal less than a single score has."""
    cell = Cell([record.score(split, metric.name) for record in records], metric)
    decimals = None if metric.decimals is None else max(0, metric.decimals - 1)
    return f"{cell.format(decimals)} {metric.unit}".rstrip()


def _mean_row(group: Group, metric: Metric, tasks: Sequence[str]) -> dict[str, str]:
    """Return the row of the mean over tasks with the same main metric."""
    first = TaskRecord(group.runs[0], tasks[0])
    about = _about(group) | {"task": f"mean of {len(tasks)} tasks"}
    empty = dict.fromkeys(SPLITS, "–") | {"own_best": "", "own_step": "", "task unknown": ""}
    if not first.result:
        known = [x for task in tasks if not math.isnan(x := _last_score(group, task))]
        shown = {"validation": metric.format(sum(known) / len(known))} if known else {}
        return row_of(first) | about | empty | shown
    shown = {}
    for split in SPLITS:
        means = [
            sum(TaskRecord(run, task).score(split) for task in tasks) / len(tasks)
            for run in group.runs
        ]
        shown[split] = metric.format(means[0])
        if group.folded:
            shown[split] = f"{Cell(means, metric).format()} {metric.unit}".rstrip()
    return row_of(first) | about | empty | shown


def _last_score(group: Group, task: str) -> float:
    """Return the mean test score, or the last validation score of an unfinished run; or NaN."""
    records = [TaskRecord(run, task) for run in group.runs]
    if records[0].result:
        return sum(record.score("test") for record in records) / len(records)
    assert records[0].metric is not None
    curve = records[0].drawn_curve("validation", records[0].metric.name)
    return float(curve[-1, 2]) if len(curve) else math.nan


def row_of(record: TaskRecord) -> dict[str, str]:
    """Return the row of a run on one of its tasks, in the main metric; the run keeps its name."""
    run, metric = record.run, record.metric
    row = {
        "run": run.name,
        "body": run.config.model.body,
        "task": record.label,
        "mode": record.mode,
        "seed": str(run.seed),
        "metric": metric.title if metric else "–",
        "own_best": "",
        "own_step": "",
        "task unknown": "",
    }
    if run.result and record.result:
        assert metric is not None
        best = record.result.best_validation
        if best.step != run.result.best_step:
            row |= {"own_best": metric.format(best.value), "own_step": f"{best.step:,}"}
        if unknown := record.result.unknown_task:
            shown = f"{metric.format(unknown.value)} (own path {100 * unknown.own:.1f} %)"
            row["task unknown"] = shown
        row |= {"steps": f"{run.result.steps:,}", "best_step": f"{run.result.best_step:,}"}
        row |= _scores(record, metric)
        row["parameters"] = f"{run.result.parameters.total:,}"
        row["train_seconds"] = f"{run.result.train_seconds:,.1f}"
        return row | {"note": run.evaluation_limit}
    step, seconds = run.log.step, run.log.seconds
    row |= dict.fromkeys(("parameters", "steps", "best_step", *SPLITS), "–")
    row |= _scores(record, metric) if metric else {}
    notes = [f"unfinished at step {step:,}", run.evaluation_limit]
    return row | {"train_seconds": f"{seconds:,.1f}", "note": ", ".join(filter(None, notes))}


def further_rows(record: TaskRecord) -> list[dict[str, str]]:
    """Return a row with metric, train, validation and test for each metric but the main one."""
    return [{"metric": metric.title} | _scores(record, metric) for metric in record.metrics[1:]]


def _scores(record: TaskRecord, metric: Metric) -> dict[str, str]:
    """Return the scores by split; of an unfinished run, only the last one on validation."""
    if record.result:
        return {split: metric.format(record.score(split, metric.name)) for split in SPLITS}
    curve = record.drawn_curve("validation", metric.name)
    last = metric.format(curve[-1, 2]) if len(curve) else "–"
    return dict.fromkeys(SPLITS, "–") | {"validation": last}
