"""Rows of the tables on finished and unfinished runs, ready to print."""

from collections.abc import Sequence

from thalnet_mtl.runs.records import PARTS, RunRecord, TaskRecord, with_unique_names


def table(runs: Sequence[RunRecord]) -> list[dict[str, str]]:
    """One row a run and task, ready to print; scores that are not there are '–'.

    Keys: run, body, task, mode ('joint with 2 others'), parameters, seed, steps, best_step,
    metric, train, validation, test, own_best and own_step (on validation, where this task alone
    was best at another step), train_seconds, and note ('on the first 2 batches only',
    'unfinished at step 400').
    """
    return [row_of(record) for run in with_unique_names(runs) for record in run.records]


def row_of(record: TaskRecord) -> dict[str, str]:
    """A row of ``table`` for a run that has its name already."""
    run, metric = record.run, record.metric
    row = {
        "run": run.name,
        "body": run.config["model"]["body"],
        "task": record.label,
        "mode": record.mode,
        "seed": str(run.seed),
        "metric": metric.name if metric else "–",
        "own_best": "",
        "own_step": "",
    }
    if run.result and record.result:
        assert metric is not None
        own, step = record.result["own_best"], run.result["best_step"]
        if own["step"] != step:
            row |= {"own_best": metric.format(own["value"]), "own_step": f"{own['step']:,}"}
        numbers = {key: f"{run.result[key]:,}" for key in ("steps", "best_step")}
        row |= numbers | {part: metric.format(record.score(part)) for part in PARTS}
        row["parameters"] = f"{run.result['parameters']['total']:,}"
        row["train_seconds"] = f"{run.result['train_seconds']:,.1f}"
        return row | {"note": run.limit}
    step = max((line["step"] for line in run.lines), default=0)
    seconds = max((line.get("seconds", 0.0) for line in run.lines), default=0.0)
    row |= dict.fromkeys(("parameters", "steps", "best_step", *PARTS), "–")
    if metric and len(looks := record.curve("validation", metric.name)):
        row["validation"] = metric.format(looks[-1, 2])
    limits = [f"unfinished at step {step:,}", run.limit]
    note = ", ".join(limit for limit in limits if limit)
    return row | {"train_seconds": f"{seconds:,.1f}", "note": note}
