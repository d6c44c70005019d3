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

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import mean
from typing import Any

from thalnet_mtl.errors import UserError, unknown
from thalnet_mtl.metrics.metric import Metric
from thalnet_mtl.metrics.summary import MEAN_OF_NORMALIZED, MEASURES, NORMALIZED, trained_matrix
from thalnet_mtl.report.relative import TITLES, References, Value, relative
from thalnet_mtl.runs.results import SCORED, RunResult
from thalnet_mtl.runs.summaries import RunSummary

LOSS = Metric("loss", False, 0.0, decimals=4)
GAP = "gap"  # the split that stands for train − test
SPLITS = (*SCORED, GAP)


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
    result_names = _COSTS | dict.fromkeys(_MEASURES) | dict.fromkeys(TITLES)
    if name in _COSTS:
        return Quantity(name, _COSTS[name].metric.label, partial(_cost, cost=_COSTS[name]))
    if name in _MEASURES:
        label = MEASURES[key][0] if (key := _MEASURES[name]) in MEASURES else name
        return Quantity(name, label, partial(_measure, key=key))
    if name in TITLES:
        title = TITLES[name]
        _check_references(name, references)
        return Quantity(name, title, partial(relative, name=name, references=references))
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
        if task and rest in TITLES:
            _check_references(rest, references)
            value = partial(relative, name=rest, references=references, task=task)
            return Quantity(name, name, value)
    names = [*result_names, *(f"{split}.{m}" for m in _metrics(runs) for split in SPLITS), *SPLITS]
    of_tasks = [f"{task}.{split}" for task in tasks for split in ("test", "validation")]
    raise unknown("column", name, [*names, *of_tasks[:12]])


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
    kind = next((metrics[name] for name in summary.measures[key].values if name in metrics), kind)
    if summary.measures[key].why == MEAN_OF_NORMALIZED:
        kind = replace(NORMALIZED, unit="normalized")
    return summary.measures[key].mean, _directed(kind, key)


def _directed(metric: Metric, key: str) -> Metric:
    """Return the metric of a measure: less forgetting and more transfer is better."""
    if "accuracy" in key:
        return metric
    return replace(metric, name=key, higher_is_better="forgetting" not in key)


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


_MEASURES = {
    **{label.replace(" ", "_"): key for key, (label, _) in MEASURES.items()},
    "forgetting_avalanche": "avalanche_forgetting",
    "min-ACC": "min-ACC",
}
_MEASURES.pop("forgetting_(Avalanche)")
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
