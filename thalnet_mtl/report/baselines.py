"""Runs against single-task runs: skill and relative gain of each task, and Δm of each run.

Tasks of different metrics can only be looked at together through what the same network, or
another, reaches on each of them alone. Those baselines are runs that the user names, never what
some run scored before it was trained.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from thalnet_mtl.errors import UserError
from thalnet_mtl.metrics.multitask import delta_m, relative_gain, skill
from thalnet_mtl.metrics.significance import PAIRED_SEEDS
from thalnet_mtl.runs.records import RunRecord, TaskRecord, group_by_data

FORMULAS = (
    "Skill is (R − b) / (S − b), gain ±(R − S) / S, minus where lower is better: R is the test "
    "score, S the mean of n single-task runs, b the score before training. Δm is the mean gain."
)


@dataclass(frozen=True)
class BaselineComparison:
    """A finished run on one of its tasks beside the single-task runs on the same data."""

    record: TaskRecord
    baselines: list[TaskRecord]
    baseline: float  # S, their mean score on the test part
    skill: float
    gain: float


def compare_with_baselines(
    runs: Sequence[RunRecord], baselines: Sequence[RunRecord]
) -> dict[str, list[BaselineComparison]]:
    """By the name of each run, its gains; none while it is unfinished. Baselines have none.

    Raises:
        UserError: a baseline is joint, unfinished or has learned nothing, a task of a run has no
            baseline, or nothing but baselines was given.
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
    folders = {run.folder.resolve() for run in baselines}
    others = [run for run in runs if run.folder.resolve() not in folders]
    if not others:
        raise UserError("every run is a baseline. Name a run to compare with them.")
    records = [record for run in baselines for record in run.records]
    return {
        run.name: [_gain(record, records) for record in run.records] if run.result else []
        for run in others
    }


def table_rows(gains: dict[str, list[BaselineComparison]]) -> list[dict[str, str]]:
    """One row a run and task, then one with Δm of the run; what is not there is '–'.

    Keys: run, task, test, untrained, single-task, n, skill, gain.
    """
    made = []
    for name, of_run in gains.items():
        for gain in of_run:
            record, metric = gain.record, gain.record.metric
            assert metric is not None
            made.append({
                "run": name,
                "task": record.title,
                "test": metric.format(record.score("test")),
                "untrained": metric.format(record.score("untrained")),
                "single-task": metric.format(gain.baseline),
                "n": str(len(gain.baselines)),
                "skill": _digits(gain.skill),
                "gain": _percent(gain.gain),
            })  # fmt: skip
        tasks = f"{len(of_run)} task{'s' * (len(of_run) > 1)}"
        last = dict.fromkeys(("test", "untrained", "single-task", "n", "skill"), "")
        last["gain"] = _percent(delta_m([gain.gain for gain in of_run])) if of_run else "–"
        made.append({"run": name, "task": f"Δm of {tasks}" if of_run else "unfinished"} | last)
    return made


def caveats(gains: dict[str, list[BaselineComparison]]) -> list[str]:
    """What a reader has to know before reading the rows."""
    every = [gain for of_run in gains.values() for gain in of_run]
    made = []
    least = min((len(gain.baselines) for gain in every), default=PAIRED_SEEDS)
    if least < PAIRED_SEEDS:
        made.append(
            f"n is the number of single-task runs: fewer than {PAIRED_SEEDS} paired seeds do not "
            f"support a ranking."
        )
    mixed = {gain.record.label: kinds for gain in every if len(kinds := _bodies(gain)) > 1}
    made += [f"{task}: the baselines are {', '.join(kinds)}." for task, kinds in mixed.items()]
    runs = {r.run.name: r.run.limit for g in every for r in (g.record, *g.baselines)}
    for limit in dict.fromkeys(filter(None, runs.values())):
        names = [name for name, own in runs.items() if own == limit]
        made.append(
            f"{'All' if len(names) == len(runs) > 1 else ', '.join(names)}: scored {limit}."
        )
    return made


def _gain(record: TaskRecord, baselines: Sequence[TaskRecord]) -> BaselineComparison:
    alike = next(group for group in group_by_data([*baselines, record]) if group[-1] is record)
    if len(alike) == 1:
        kind = record.config["name"]
        there = [
            f"{other.run.name} ({other.label}{', other data' * (other.config['name'] == kind)})"
            for other in baselines
        ]
        raise UserError(
            f"run {record.run.name} has the task {record.title}, but no baseline has that alone "
            f"on the same data. There are: {', '.join(there)}. Add one to --baseline."
        )
    scores = [other.score("test") for other in alike[:-1]]
    baseline = sum(scores) / len(scores)
    score, untrained = record.score("test"), record.score("untrained")
    assert record.metric is not None
    try:
        part = skill(score, baseline, untrained)
        gain = relative_gain(score, baseline, record.metric)
    except UserError as error:
        raise UserError(f"run {record.run.name} on {record.title}: {error}") from None
    return BaselineComparison(record, alike[:-1], baseline, part, gain)


def _bodies(gain: BaselineComparison) -> list[str]:
    """The different bodies of the baselines, in order."""
    return list(dict.fromkeys(other.run.config["model"]["body"] for other in gain.baselines))


def _percent(value: float) -> str:
    return f"{_digits(100 * value, '+')} %"


def _digits(value: float, sign: str = "") -> str:
    """Four that count."""
    return f"{value:{sign}#.4g}".removesuffix(".")
