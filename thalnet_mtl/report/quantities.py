"""Quantities of a run that a table can have as columns: scores, measures of a stream, costs.

======================================  ===========================================================
``ACC``, ``AIA``, ``forgetting``, …     measures of a stream; ``TASK.forgetting``: of one task
``test``, ``validation.f1``             mean over the tasks: main metric, or the metric of that name
``TASK.test``, ``TASK.test.f1``         score on one task; splits: train, validation, test,
                                        untrained, and gap (train − test)
``transfer``, ``skill``, ``gain``,      relative to single-task runs on the same data with the same
``steps_to_90``                         seed; ``TASK.gain``: of one task
``intransigence``                       relative to joint runs with the same seed
``parameters``, ``seconds``, …          size and cost
======================================  ===========================================================
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from statistics import mean
from typing import Any

from thalnet_mtl.errors import UserError, unknown
from thalnet_mtl.metrics import continual
from thalnet_mtl.metrics.continual import AccuracyMatrix, Measure, Undefined, measure
from thalnet_mtl.metrics.learning_curves import steps_to_reach
from thalnet_mtl.metrics.metric import Metric
from thalnet_mtl.metrics.multitask import relative_gain, skill
from thalnet_mtl.metrics.summary import (
    MEAN_OF_NORMALIZED,
    MEASURES,
    NORMALIZED,
    trained_matrix,
)
from thalnet_mtl.runs.results import SCORED, RunResult
from thalnet_mtl.runs.summaries import RunSummary

LOSS = Metric("loss", False, 0.0, decimals=4)
GAP = "gap"  # the split that stands for train − test
SPLITS = (*SCORED, GAP)
Value = tuple[float | None, Metric]  # in the unit of the metric; None where it is not defined


@dataclass(frozen=True)
class References:
    """Runs that others are compared with: single-task runs, and joint runs, by seed."""

    single: Sequence[RunSummary] = ()
    joint: Sequence[RunSummary] = ()
    missing: dict[str, set[int]] = field(default_factory=dict)  # seeds without such a run

    def single_scores(self, run: RunSummary, split: str) -> dict[str, float]:
        """Return S, the score of the single-task run with the same data and seed, by task."""
        scores = {}
        for task, config in run.tasks.items():
            data = _data(config)
            matches = [
                other
                for other in self.single
                if other.seed == run.seed
                and len(other.tasks) == 1
                and _data(next(iter(other.tasks.values()))) == data
            ]
            if result := self._only(matches, f"single-task run on {task}", run.seed):
                scores[task] = next(iter(result.tasks.values())).scores[split].value
        return scores

    def joint_scores(self, run: RunSummary) -> dict[str, float]:
        """Return J, the test score of the joint run with the same seed, by task."""
        matches = [
            other
            for other in self.joint
            if other.seed == run.seed and run.tasks.keys() <= other.tasks.keys()
        ]
        result = self._only(matches, "joint run", run.seed)
        return {task: scores.test for task, scores in result.tasks.items()} if result else {}

    def _only(self, matches: Sequence[RunSummary], what: str, seed: int) -> RunResult | None:
        """Return the result of the only run; None, and say so, if there is none."""
        finished = [run for run in matches if run.result]
        if len(finished) > 1:
            names = f"{finished[0].path} and {finished[1].path}"
            raise UserError(f"there is more than one {what} with seed {seed}: {names}. Name one.")
        if not finished:
            self.missing.setdefault(what, set()).add(seed)
            return None
        return finished[0].result


def _data(config: Any) -> str:
    """Return what tells the data of a task from those of others."""
    return json.dumps([config.name, config.options], sort_keys=True)


@dataclass(frozen=True)
class Quantity:
    """A quantity by its name: ``value(run)`` returns it for a finished run."""

    name: str
    title: str
    value: Callable[[RunSummary], Value]


def find_quantity(name: str, runs: Sequence[RunSummary], references: References) -> Quantity:
    """Return the quantity that a name stands for.

    Raises:
        UserError: no run has such a quantity; names the closest one.
    """
    result_names = _COSTS | dict.fromkeys(_MEASURES) | dict.fromkeys(_RELATIVE)
    if name in _COSTS:
        return Quantity(name, _COSTS[name].metric.label, partial(_cost, cost=_COSTS[name]))
    if name in _MEASURES:
        label = MEASURES[key][0] if (key := _MEASURES[name]) in MEASURES else name
        return Quantity(name, label, partial(_measure, key=key))
    if name in _RELATIVE:
        title = {"gain": "Δm", "steps_to_90": "steps to 90 % of S"}.get(name, name)
        _check_references(name, references)
        return Quantity(name, title, partial(_relative, name=name, references=references))
    tasks = list(dict.fromkeys(task for run in runs for task in run.tasks))
    for task in sorted(["", *tasks], key=len, reverse=True):
        rest = name.removeprefix(f"{task}.") if task else name
        if task and rest == name:
            continue
        split, _, metric = rest.partition(".")
        if split in SPLITS:
            _check_metric(name, metric, task, runs)
            return Quantity(name, name, partial(_score, task=task, split=split, metric=metric))
        if task and rest in _MEASURES and rest != "min-ACC":
            return Quantity(name, name, partial(_measure, key=_MEASURES[rest], task=task))
        if task and rest in _RELATIVE:
            _check_references(rest, references)
            given = partial(_relative, name=rest, references=references, task=task)
            return Quantity(name, name, given)
    known = [*result_names, *(f"{split}.{m}" for m in _metrics(runs) for split in SPLITS), *SPLITS]
    of_tasks = [f"{task}.{split}" for task in tasks for split in ("test", "validation")]
    raise unknown("column", name, [*known, *of_tasks[:12]])


def default_columns(runs: Sequence[RunSummary]) -> list[str]:
    """Return the columns of a table whose columns are not named."""
    if any(run.result and run.result.continual for run in runs):
        return ["ACC", "forgetting", "BWT", "FWT", "parameters"]
    mains = {task.metric: None for run in runs if run.result for task in run.result.tasks.values()}
    if len(mains) < 2:
        return ["test", "validation", "parameters"]
    tasks = dict.fromkeys(task for run in runs for task in run.tasks)
    return [*(f"{task}.test" for task in tasks), "parameters"]


def _metrics(runs: Sequence[RunSummary], task: str = "") -> list[str]:
    """Return the names of the metrics of a task, or of all tasks."""
    results = [
        result for run in runs if run.result for name, result in run.result.tasks.items()
        if task in ("", name)
    ]  # fmt: skip
    return list(dict.fromkeys(metric.name for result in results for metric in result.metrics))


def _check_metric(name: str, metric: str, task: str, runs: Sequence[RunSummary]) -> None:
    """Raise ``UserError`` if no run has a metric on a task."""
    allowed = [*_metrics(runs, task), "loss"]
    if metric and len(allowed) > 1 and metric not in allowed:
        raise UserError(f"column {name}: {unknown('metric', metric, allowed)}")


def _check_references(name: str, references: References) -> None:
    """Raise ``UserError`` if a relative quantity has nothing to be relative to."""
    kind = "joint" if name == "intransigence" else "single"
    if not getattr(references, kind):
        kinds = {"joint": "joint training", "single": "a single task each"}[kind]
        raise UserError(f"column {name} is relative to runs of {kinds}: name them with --{kind}.")


def _score(run: RunSummary, task: str, split: str, metric: str) -> Value:
    """Return a score on one task, or the mean over the tasks that have the metric."""
    assert run.result is not None
    names = [task] if task else [name for name, c in run.tasks.items() if not c.only_scored]
    scores, metrics = [], dict[str, Metric]()
    for name in names:
        result = run.result.tasks.get(name)
        by_name = {m.name: m for m in result.metrics} | {"loss": LOSS} if result else {}
        wanted = metric or (result.metric if result else "")
        if result and wanted in by_name:
            metrics[wanted] = by_name[wanted]
            parts = ("train", "test") if split == GAP else (split,)
            values = [
                result.scores[p].loss if wanted == "loss" else result.scores[p].values[wanted]
                for p in parts
            ]
            scores.append(values[0] - values[1] if split == GAP else values[0])
    if len(metrics) > 1:
        raise UserError(
            f"column {split}: the tasks of {run.path} are scored in {' and '.join(metrics)}, of "
            f"which there is no mean. Name a metric, as in {split}.{next(iter(metrics))}, or a "
            f"task, as in {names[0]}.{split}."
        )
    if not scores:
        return None, NORMALIZED
    (kind,) = metrics.values()
    if split == GAP:
        kind = replace(kind, higher_is_better=not kind.higher_is_better)
    return mean(scores), kind


def _measure(run: RunSummary, key: str, task: str = "") -> Value:
    """Return a measure of a stream, or its value of one task."""
    assert run.result is not None
    summary, tasks = run.result.continual, run.result.tasks
    same_unit = len({result.metric for result in tasks.values()}) == 1
    if key == "average_accuracy" and not task and (summary is None or same_unit):
        return _score(run, "", "test", "")  # the last row of R, and defined for any run
    if summary is None:
        return None, NORMALIZED
    metrics = {name: result.metrics[0] for name, result in tasks.items()}
    matrix = trained_matrix(metrics, summary.trained, summary.scores)
    kind = next(iter(matrix.metrics.values()))
    if key == "min-ACC":
        curves = {t: [(n, 0.0, x) for n, x in run.curve(t, metrics[t].name)] for t in metrics}
        return summary.minimum_accuracy(metrics, curves).mean, kind
    if task:
        kind = metrics.get(task, kind)
        return summary.measures[key].values.get(task), _directed(kind, key)
    if summary.measures[key].why == MEAN_OF_NORMALIZED:
        kind = replace(NORMALIZED, unit="normalized")
    return summary.measures[key].mean, _directed(kind, key)


def _directed(metric: Metric, key: str) -> Metric:
    """Return the metric of a measure: less forgetting and more transfer is better."""
    if "accuracy" in key:
        return metric
    return replace(metric, name=key, higher_is_better="forgetting" not in key)


def _relative(run: RunSummary, name: str, references: References, task: str = "") -> Value:
    """Return a quantity relative to other runs, of one task or as the mean over all."""
    assert run.result is not None
    tasks = {n: r for n, r in run.result.tasks.items() if not run.tasks[n].only_scored}
    metrics = {name: result.metrics[0] for name, result in tasks.items()}
    kind = next(iter(metrics.values()))
    if name in ("transfer", "intransigence"):
        compared = _learned(run, name, metrics, references)
        unit = replace(kind, name=name, higher_is_better=name == "transfer")
    elif name == "steps_to_90":
        compared, unit = _steps_to_90(run, metrics, references), _STEPS
    else:
        singles = references.single_scores(run, "test")
        unit = _SKILL if name == "skill" else _GAIN

        def value(name: str) -> float:
            baseline, result = continual.score_of(singles, name, "single-task"), tasks[name]
            if unit is _SKILL:
                return skill(result.test, baseline, result.guess_score("test"))
            return relative_gain(result.test, baseline, metrics[name])

        compared = measure(tasks, value)
    return (compared.values.get(task) if task else compared.mean), unit


def _learned(
    run: RunSummary, name: str, metrics: Mapping[str, Metric], references: References
) -> Measure:
    """Return how well tasks were learned relative to single-task runs, or to a joint run."""
    assert run.result is not None
    summary = run.result.continual
    if summary is None:
        return measure([], lambda task: 0.0)
    matrix: AccuracyMatrix = trained_matrix(metrics, summary.trained, summary.scores)
    if name == "transfer":
        return continual.transfer(matrix, references.single_scores(run, "test"))
    return continual.intransigence(matrix, references.joint_scores(run))


def _steps_to_90(run: RunSummary, metrics: Mapping[str, Metric], references: References) -> Measure:
    """Return the steps from the start of a task to 90 % of S on validation.

    A task that does not get there counts with all steps of its experience.
    """
    assert run.result is not None
    singles = references.single_scores(run, "validation")
    summary, steps = run.result.continual, run.result.steps
    trained, ends = (summary.trained, summary.ends) if summary else ([list(metrics)], [steps])
    first = {t: k for k, names in reversed(list(enumerate(trained))) for t in names}
    starts = {task: ends[k - 1] if k else 0 for task, k in first.items()}
    curves = {
        task: [(n - start, x) for n, x in run.curve(task, metrics[task].name) if n > start]
        for task, start in starts.items()
    }
    reached = steps_to_reach(metrics, curves, singles).values

    def value(task: str) -> float:
        if task not in singles or not curves[task]:
            raise Undefined("no single-task run, or no curve")
        return reached.get(task, float(ends[first[task]] - starts[task]))

    return measure(starts, value)


@dataclass(frozen=True)
class _Cost:
    """A number of the size or the cost of a run."""

    metric: Metric
    read: Callable[[RunResult], float | None]


def _last_stage(read: Callable[[Any], float | None]) -> Callable[[RunResult], float | None]:
    """Return a function of the last stage of a stream; None for other runs."""
    return lambda result: read(result.continual.stages[-1]) if result.continual else None


def _cost(run: RunSummary, cost: _Cost) -> Value:
    assert run.result is not None
    return cost.read(run.result), cost.metric


def _cost_of(
    title: str, read: Callable[[RunResult], float | None], decimals: int = 0, **unit: Any
) -> _Cost:
    return _Cost(Metric(title, False, 0.0, decimals=decimals, label=title, **unit), read)


_GAIN = Metric("gain", True, 1.0, "%")
_SKILL = Metric("skill", True, 1.0, "%")
_STEPS = Metric("steps", False, 0.0, decimals=0)
_MEASURES = {
    **{label.replace(" ", "_"): key for key, (label, _) in MEASURES.items()},
    "forgetting_avalanche": "avalanche_forgetting",
    "min-ACC": "min-ACC",
}
_MEASURES.pop("forgetting_(Avalanche)")
_RELATIVE = ("transfer", "skill", "gain", "steps_to_90", "intransigence")
_COSTS = {
    "parameters": _cost_of("parameters", lambda r: r.parameters.total),
    "parameters.start": _cost_of(
        "parameters at the start",
        lambda r: (r.continual.stages[0] if r.continual else r.parameters).total,
    ),
    "parameters.trainable": _cost_of("trainable", lambda r: r.parameters.trainable),
    "parameters.frozen": _cost_of("frozen", lambda r: r.parameters.frozen),
    "multiply_adds": _cost_of(
        "multiply-adds",
        _last_stage(lambda s: sum(s.multiply_adds.values()) / max(1, len(s.multiply_adds))),
        decimals=2,
        unit="M",
        factor=1e-6,
    ),
    "stored": _cost_of("stored", _last_stage(lambda s: s.stored_bytes), unit="kB", factor=1e-3),
    "steps": _cost_of("steps", lambda r: r.steps),
    "best_step": _cost_of("best step", lambda r: r.best_step),
    "seconds": _cost_of("training", lambda r: r.train_seconds, decimals=1, unit="s"),
}
