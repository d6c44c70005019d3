"""Rows of the tables of runs, as text by column."""

import math
from collections.abc import Sequence

from thalnet_mtl.metrics.metric import Metric
from thalnet_mtl.runs.records import RunRecord, TaskRecord, with_unique_names
from thalnet_mtl.runs.results import SPLITS

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


def summary_table(runs: Sequence[RunRecord]) -> list[dict[str, str]]:
    """Return the rows of ``table``, but for a run of many tasks the mean and the worst of them.

    The mean is one for each main metric. The worst are those on the test split, or on the
    validation split as long as the run is unfinished.
    """
    rows = []
    for run in with_unique_names(runs):
        if len(run.tasks) <= MANY or not any(record.metric for record in run.records):
            rows += _rows(run)
            continue
        by_metric: dict[Metric, list[TaskRecord]] = {}
        for record in run.records:
            if record.metric:
                by_metric.setdefault(record.metric, []).append(record)
        for metric, records in by_metric.items():
            rows.append(_mean_row(metric, records))
            ranked = sorted(records, key=_last_score, reverse=not metric.higher_is_better)
            worst = [row_of(r) | {"task": f"worst: {r.title}"} for r in ranked[:WORST]]
            rows += [row | {"mode": run.mode} for row in worst]
    return rows


def _mean_row(metric: Metric, records: Sequence[TaskRecord]) -> dict[str, str]:
    """Return the row of the mean over tasks of one run with the same main metric."""
    if records[0].result:
        means = {split: sum(r.score(split) for r in records) / len(records) for split in SPLITS}
    else:
        known = [score for record in records if not math.isnan(score := _last_score(record))]
        means = {"validation": sum(known) / len(known)} if known else {}
    about = {"task": f"mean of {len(records)} tasks", "mode": records[0].run.mode}
    empty = dict.fromkeys(SPLITS, "–") | {"own_best": "", "own_step": "", "task unknown": ""}
    shown = {split: metric.format(mean) for split, mean in means.items()}
    return row_of(records[0]) | about | empty | shown


def _last_score(record: TaskRecord) -> float:
    """Return the test score, or the last validation score of an unfinished run; NaN for none."""
    if record.result:
        return record.score("test")
    assert record.metric is not None
    curve = record.drawn_curve("validation", record.metric.name)
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
