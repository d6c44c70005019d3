"""Panel of lesions: the loss of score on each task when a module is switched off."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from thalnet_mtl.metrics.metric import Metric
from thalnet_mtl.report.panel import Panel, number
from thalnet_mtl.runs.records import RunRecord

SENTENCE = (
    "The loss of {split} score on the task of the column when the module of the row is switched "
    "off: its features are zero. Positive numbers: the task needs the module; negative ones: it "
    "does without it with a higher score; around zero: it is not used. A module that does not run "
    "for a task has no cell."
)
NORMALIZED = (
    "As tasks have different metrics, the loss is shown in % of the way from guessing to the "
    "perfect score."
)
LEAST = 0.05  # end of the scale, of the way from guessing to the perfect score: noise stays pale


@dataclass(frozen=True)
class Drops:
    """The loss of score of a run, in the unit that is shown, by module and task."""

    run: RunRecord
    modules: Sequence[str]
    tasks: Sequence[str]
    values: np.ndarray  # (module, task), NaN where a module does not run for a task


def lesions_panel(name: str, runs: Sequence[RunRecord]) -> Panel | None:
    """Return the lesions of runs that differ in their seed only; None if none was evaluated."""
    runs = [run for run in runs if run.lesions]
    if not runs:
        return None
    metrics = {metric for run in runs for _, metric in _metrics(run)}
    shared = metrics.pop() if len(metrics) == 1 else None
    drops = [_drops(run, shared) for run in runs]
    first, count = drops[0], len(drops)
    drops = [d for d in drops if (d.modules, d.tasks) == (first.modules, first.tasks)]
    whole = np.mean([d.values for d in drops], axis=0)
    entries = [entry for run in runs for entry in run.lesions.values()]
    splits = " or ".join(dict.fromkeys(entry.split for entry in entries))
    sentence = SENTENCE.format(split=splits) + ("" if shared else f" {NORMALIZED}")
    if limits := sorted({entry.batches for entry in entries} - {0}):
        sentence += f" Scored on the first {' or '.join(map(str, limits))} batches only."
    if len(drops) < count:
        sentence += f" {count - len(drops)} of {count} runs have other modules and are left out."
    unit = _unit(shared)
    ways = [abs(_way(first.run, task, m)) for task, m in _metrics(first.run)]
    least = LEAST * (abs(shared.factor) * min(ways) if shared else 100)
    sets = [_set(f"mean of {len(drops)} seeds" if len(drops) > 1 else "", whole, least)]
    if len(drops) > 1:
        sets += [_set(f"seed {each.run.seed}", each.values, least) for each in drops]
    table = [
        {"module": module}
        | {
            task: "–" if np.isnan(value) else f"{value:+.{_decimals(shared)}f}{unit}"
            for task, value in zip(first.tasks, whole[row].tolist(), strict=True)
        }
        for row, module in enumerate(first.modules)
    ]
    data = {"modules": first.modules, "tasks": first.tasks, "unit": unit.strip(), "sets": sets}
    return Panel("lesions", f"Lesions of {name}", sentence, data, table)


def _metrics(run: RunRecord) -> list[tuple[str, Metric]]:
    """Return the lesioned tasks with their main metric, in the order of the configuration."""
    return [(r.task, r.metric) for r in run.records if r.task in run.lesions and r.metric]


def _drops(run: RunRecord, shared: Metric | None) -> Drops:
    metrics = dict(_metrics(run))
    modules = [module.name for module in run.topology.modules] if run.topology else []
    known = [module for entry in run.lesions.values() for module in entry.without]
    modules = [name for name in dict.fromkeys([*modules, *known]) if name in known]
    values = np.full((len(modules), len(metrics)), np.nan)
    for column, (task, metric) in enumerate(metrics.items()):
        entry = run.lesions[task]
        factor = abs(metric.factor) if shared else 100 / abs(_way(run, task, metric))
        for row, module in enumerate(modules):
            if module in entry.without:
                score, without = entry.scores[metric.name], entry.without[module][metric.name]
                values[row, column] = factor * metric.improvement(score, without)
    return Drops(run, modules, list(metrics), values)


def _way(run: RunRecord, task: str, metric: Metric) -> float:
    """Return the distance from the score of guessing to the perfect one."""
    guess = run.result.tasks[task].guess_score("test") if run.result else metric.perfect
    return (metric.perfect - guess) or 1.0


def _unit(shared: Metric | None) -> str:
    unit = shared.unit if shared else "%"
    return f" {'points' if unit == '%' else unit}" if unit else ""


def _decimals(shared: Metric | None) -> int:
    return 1 if shared is None or shared.unit == "%" else 4


def _set(name: str, values: np.ndarray, least: float) -> dict[str, Any]:
    limit = max(float(np.nanmax(np.abs(values), initial=0)), least)
    rows = [[number(value) for value in row] for row in values.tolist()]
    return {"name": name, "values": rows, "limit": number(limit)}
