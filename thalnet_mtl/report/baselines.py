"""Comparison of runs with single-task baselines: skill and gain of each task, Δm of each run.

Tasks with different metrics can only be compared through what the same network, or another,
reaches when it is trained on each of them alone. The user names those baseline runs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from thalnet_mtl.errors import UserError
from thalnet_mtl.metrics.multitask import delta_m, relative_gain, skill
from thalnet_mtl.metrics.significance import PAIRED_SEEDS
from thalnet_mtl.runs.records import RunRecord, TaskRecord, group_by_data

FORMULAS = (
    "skill = (R − b) / (S − b); gain = ±(R − S) / S, with minus where lower is better. R: test "
    "score of the run; S: mean test score of n single-task runs; b: test score of guessing, the "
    "best constant answer. Δm: mean gain over the tasks of a run."
)


@dataclass(frozen=True)
class BaselineComparison:
    """A finished run on one of its tasks, compared with single-task runs on the same data."""

    record: TaskRecord
    baselines: list[TaskRecord]
    baseline: float  # S, the mean test score of the baselines
    skill: float
    gain: float | None
    why: str = ""  # there is no gain


def compare_with_baselines(
    runs: Sequence[RunRecord], baselines: Sequence[RunRecord]
) -> dict[str, list[BaselineComparison]]:
    """Compare every trained task of every run with the baselines on the same data.

    Returns:
        Comparisons by the name of the run: an empty list for an unfinished run, no entry for a
        run that is a baseline itself.

    Raises:
        UserError: a baseline is joint, unfinished or has learned nothing, a task of a run has no
            baseline, or all runs are baselines.
    """
    for run in baselines:
        if len(run.tasks) > 1:
            raise UserError(
                f"baseline {run.name} has {len(run.tasks)} tasks: {', '.join(run.tasks)}. Name "
                f"runs of a single task each."
            )
        if not run.result:
            raise UserError(
                f"baseline {run.name} is unfinished. Train it to its end, or leave it out."
            )
    baseline_folders = {run.folder.resolve() for run in baselines}
    compared = [run for run in runs if run.folder.resolve() not in baseline_folders]
    if not compared:
        raise UserError("every run is a baseline. Name a run to compare with them.")
    records = [record for run in baselines for record in run.records]
    return {
        run.name: [
            _compare(record, records) for record in run.records if not record.config.only_scored
        ]
        if run.result
        else []
        for run in compared
    }


def table_rows(comparisons: Mapping[str, list[BaselineComparison]]) -> list[dict[str, str]]:
    """Return a row for every run and task, followed by a row with the Δm of the run.

    Keys: run, task, metric, test, guessing, single-task, n, skill, gain; a missing value is '–'.
    """
    rows = []
    for name, run_comparisons in comparisons.items():
        for comparison in run_comparisons:
            record, metric = comparison.record, comparison.record.metric
            assert metric is not None and record.result is not None
            rows.append({
                "run": name,
                "task": record.title,
                "metric": metric.title,
                "test": metric.format(record.score("test")),
                "guessing": metric.format(record.result.guess_score("test")),
                "single-task": metric.format(comparison.baseline),
                "n": str(len(comparison.baselines)),
                "skill": _digits(comparison.skill),
                "gain": "–" if comparison.gain is None else _percent(comparison.gain),
            })  # fmt: skip
        gains = [c.gain for c in run_comparisons if c.gain is not None]
        count = len(run_comparisons)
        total = dict.fromkeys(("metric", "test", "guessing", "single-task", "n", "skill"), "")
        total["gain"] = _percent(delta_m(gains)) if gains and len(gains) == count else "–"
        label = f"Δm of {count} task{'s' * (count > 1)}" if count else "unfinished"
        rows.append({"run": name, "task": label} | total)
    return rows


def caveats(comparisons: Mapping[str, list[BaselineComparison]]) -> list[str]:
    """Return warnings: few baselines, different bodies, partial evaluations, no gain."""
    flat = [
        comparison for run_comparisons in comparisons.values() for comparison in run_comparisons
    ]
    notes = []
    fewest = min((len(comparison.baselines) for comparison in flat), default=PAIRED_SEEDS)
    if fewest < PAIRED_SEEDS:
        notes.append(
            f"n is the number of single-task runs: fewer than {PAIRED_SEEDS} paired seeds do not "
            f"support a ranking."
        )
    mixed = {c.record.label: bodies for c in flat if len(bodies := _bodies(c)) > 1}
    notes += [f"{task}: the baselines are {', '.join(bodies)}." for task, bodies in mixed.items()]
    notes += [f"{c.record.run.name} on {c.record.title}: {c.why}" for c in flat if c.why]
    limits = {r.run.name: r.run.evaluation_limit for c in flat for r in (c.record, *c.baselines)}
    for limit in dict.fromkeys(filter(None, limits.values())):
        names = [name for name, run_limit in limits.items() if run_limit == limit]
        subject = "All" if len(names) == len(limits) > 1 else ", ".join(names)
        notes.append(f"{subject}: scored {limit}.")
    return notes


def _compare(record: TaskRecord, baselines: Sequence[TaskRecord]) -> BaselineComparison:
    groups = group_by_data([*baselines, record])
    *same_data, last = next(group for group in groups if group[-1] is record)
    assert last is record
    if not same_data:
        kind = record.config.name
        candidates = [
            f"{candidate.run.name} ({candidate.label}"
            f"{', other data' * (candidate.config.name == kind)})"
            for candidate in baselines
        ]
        raise UserError(
            f"run {record.run.name} has the task {record.title}, but no baseline has that alone "
            f"on the same data. There are: {', '.join(candidates)}. Add one to --baseline."
        )
    scores = [baseline_record.score("test") for baseline_record in same_data]
    baseline = sum(scores) / len(scores)
    score, metric = record.score("test"), record.metric
    assert record.result is not None and metric is not None
    _check_same_metric(record, same_data)
    try:
        run_skill = skill(score, baseline, record.result.guess_score("test"))
    except UserError as error:
        raise UserError(f"run {record.run.name} on {record.title}: {error}") from None
    try:
        gain, why = relative_gain(score, baseline, metric), ""
    except UserError as error:
        gain, why = None, str(error)
    return BaselineComparison(record, same_data, baseline, run_skill, gain, why)


def _check_same_metric(record: TaskRecord, baselines: Sequence[TaskRecord]) -> None:
    """Raise ``UserError`` if a baseline has another main metric than a run."""
    for baseline in baselines:
        assert record.result is not None and baseline.result is not None
        if baseline.result.metric != record.result.metric:
            raise UserError(
                f"run {record.run.name} on {record.title}: its main metric is "
                f"{record.result.metric}, that of baseline {baseline.run.name} is "
                f"{baseline.result.metric}."
            )


def _bodies(comparison: BaselineComparison) -> list[str]:
    """Return the distinct bodies of the baselines, in order."""
    return list(dict.fromkeys(record.run.config.model.body for record in comparison.baselines))


def _percent(value: float) -> str:
    return f"{_digits(100 * value, '+')} %"


def _digits(value: float, sign: str = "") -> str:
    """Format a number with four significant digits."""
    return f"{value:{sign}#.4g}".removesuffix(".")
