"""The graph of the modules of a run, at each stage of training and growth."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from thalnet_mtl.report.decisions import expected, prior_sentence
from thalnet_mtl.report.panel import Panel, number
from thalnet_mtl.report.reading_changes import slot_means
from thalnet_mtl.report.stages import Stage, sizes, stages, summary
from thalnet_mtl.runs.records import RunRecord, TaskRecord
from thalnet_mtl.runs.topology_file import ModuleEntry, TaskEntry, TopologySnapshot

MOST = 40  # stages at which a run without experiences was only scored

SENTENCE = (
    "Area: parameters. Color: the task that a module came with, gray if tasks share it. Padlock: "
    "frozen. Arrows run from a module to those that read it; their width is "
)
WEIGHED = "the mean |R| at the end of training."
UNWEIGHED = "the same, as the run has not saved its reading weights."
UNKNOWN = " The run has not recorded its earlier graphs: the last one is shown at each stage."

Spans = list[tuple[int, int]]  # of stages, each the first one and the one after the last


def graph_panel(run: RunRecord, topology: TopologySnapshot, title: str = "Modules") -> Panel:
    """Return the modules, readings and tasks of a run, with the stages at which each is there."""
    every = stages(topology, _scored_steps(run))
    heads = _heads(run, topology, every)
    weights = _weights(run)
    entries = {module.name: module for module in topology.modules}
    names = list(dict.fromkeys(name for stage in every for name in stage.after))
    places, known = {name: place for place, name in enumerate(names)}, sizes(topology)
    first = {name: next(s for s in every if name in s.after) for name in names}
    data = {
        "stages": [
            {"step": stage.step, "words": _words(stage, run), "lines": _lines(stage, run, topology)}
            for stage in every
        ],
        "modules": [
            {
                "name": name,
                "task": _owner(entries.get(name), first[name], heads, topology),
                "input": first[name].after[name].inputs > 0,
                "output": first[name].after[name].output,
                "parameters": known.get(name, 0),
                "about": _about(entries.get(name)),
                "there": _spans(name in stage.after for stage in every),
                "frozen": _spans(name in s.after and s.after[name].frozen for s in every),
            }
            for name in names
        ],
        "readings": [
            [places[source], places[reader], weights.get((source, reader)), spans]
            for (source, reader), spans in _readings(every).items()
        ],
        "tasks": [
            _task(head, records, topology.tasks.get(head), places, every)
            for head, records in heads.items()
        ],
    }
    table = [
        {"step": f"{s.step:,}", "stage": _words(s, run), "what happened": " ".join(line)}
        for s in every
        if (line := _lines(s, run, topology)) or s.changes
    ]
    sentence = SENTENCE + (WEIGHED if weights else UNWEIGHED)
    if any(change.verb == "attach" and not change.before for change in topology.history):
        sentence += UNKNOWN
    return Panel("graph", title, sentence, data, table, "The stages as a table")


def _scored_steps(run: RunRecord) -> list[int]:
    """Return the ends of experiences; of a run without them, steps of validation, spread evenly."""
    if run.continual:
        return list(run.continual.ends)
    steps = set[int]()
    for record in run.records:
        if record.metric:
            curve = record.drawn_curve("validation", record.metric.name)
            steps |= {int(step) for step in curve[:, 0]}
    every = sorted(steps)
    if len(every) <= MOST:
        return every
    return [every[k] for k in np.linspace(0, len(every) - 1, MOST).round().astype(int)]


def _heads(
    run: RunRecord, topology: TopologySnapshot, every: Sequence[Stage]
) -> dict[str, list[TaskRecord]]:
    """Return the tasks of each head that was ever there; several tasks may share one."""
    heads: dict[str, list[TaskRecord]] = {head: [] for head in topology.tasks}
    heads |= {head: [] for stage in every for head in stage.tasks if head not in heads}
    for record in run.records:
        heads.get(record.config.head or record.task, []).append(record)
    return heads


def _weights(run: RunRecord) -> dict[tuple[str, str], float | None]:
    """Return the mean |R| of the slot of a source over the context of a reader."""
    if not run.reading_weights:
        return {}
    means = slot_means(run.reading_weights, run.slot_widths)
    return {
        (source, reader): number(float(means[row, column]), 3)
        for row, reader in enumerate(run.reading_weights)
        for column, source in enumerate(run.slot_widths)
    }


def _owner(
    module: ModuleEntry | None,
    stage: Stage,
    heads: dict[str, list[TaskRecord]],
    topology: TopologySnapshot,
) -> int | None:
    """Return the place of the task that a module came with, or is for; None for a shared one."""
    names = list(heads)
    tasks = list(module.tasks) if module else []
    if not tasks:
        tasks = list(stage.new_tasks) or [d.task for d in stage.decisions][:1]
    if not tasks and not stage.before and len(stage.tasks) == 1:
        tasks = list(stage.tasks)
    return names.index(tasks[0]) if len(tasks) == 1 and tasks[0] in names else None


def _about(module: ModuleEntry | None) -> str:
    if module is None:
        return "removed later"
    return f"{module.module}, {module.features:,} features, {module.reading} reading"


def _spans(flags: Iterable[bool]) -> Spans:
    """Return the runs of true values among flags, each as its first place and the one after.

    >>> _spans([False, True, True, False, True])
    [(1, 3), (4, 5)]
    """
    spans: Spans = []
    for place, flag in enumerate(flags):
        if flag and spans and spans[-1][1] == place:
            spans[-1] = spans[-1][0], place + 1
        elif flag:
            spans.append((place, place + 1))
    return spans


def _readings(every: Sequence[Stage]) -> dict[tuple[str, str], Spans]:
    """Return the stages at which each module reads each other one, or itself."""
    spans: dict[tuple[str, str], Spans] = {}
    for place, stage in enumerate(every):
        for reader, module in stage.after.items():
            for source in module.reads:
                there = spans.setdefault((source, reader), [])
                if there and there[-1][1] == place:
                    there[-1] = there[-1][0], place + 1
                else:
                    there.append((place, place + 1))
    return spans


def _task(
    head: str,
    records: Sequence[TaskRecord],
    entry: TaskEntry | None,
    places: dict[str, int],
    every: Sequence[Stage],
) -> dict[str, Any]:
    """Return a head with its modules, its size and the last validation scores at each stage."""
    scores = list[Any]()
    record = next((record for record in records if record.metric), None)
    if record and record.metric:
        curve = record.drawn_curve("validation", record.metric.name)
        steps, values = curve[:, 0].tolist(), curve[:, 2].tolist()
        for place, stage in enumerate(every):
            count = int(np.searchsorted(steps, stage.step, side="right"))
            shown = record.metric.format(values[count - 1]) if count else None
            if shown and (not scores or scores[-1][1] != shown):
                scores.append((place, shown))
    names = [record.task for record in records]
    return {
        "name": head,
        "tasks": names if names != [head] else [],
        "input": _places(entry.input_modules if entry else (), places),
        "output": _places(entry.output_modules if entry else (), places),
        "active": _places(entry.active if entry else (), places),
        "parameters": entry.parameters if entry else 0,
        "encoded": bool(entry and entry.encode),
        "there": _spans(head in stage.tasks for stage in every),
        "trained": _trained(records, every),
        "scores": scores,
    }


def _places(names: Iterable[str], places: dict[str, int]) -> list[int]:
    return [places[name] for name in names if name in places]


def _trained(records: Sequence[TaskRecord], every: Sequence[Stage]) -> Spans:
    """Return the stages at which a task is trained; all of a run without experiences."""
    names = {record.task for record in records}
    summary = records[0].run.continual if records else None
    if summary is None:
        return [(0, len(every))]
    now = [min(bisect_right(summary.ends, stage.step), len(summary.ends) - 1) for stage in every]
    return _spans(not names.isdisjoint(summary.trained[experience]) for experience in now)


def _words(stage: Stage, run: RunRecord) -> str:
    """Return a stage in few words."""
    if not stage.before:
        return "the network at the start"
    ends = run.continual.ends if run.continual else ()
    parts = [f"end of experience {ends.index(stage.step) + 1}"] if stage.step in ends else []
    parts += [f"{d.task} gets {d.chosen.candidate}" for d in stage.decisions]
    if stage.new_tasks and not stage.decisions:
        parts.append(f"new task {', '.join(stage.new_tasks)}")
    if not stage.new_tasks and not stage.decisions:
        parts += dict.fromkeys(change.verb for change in stage.changes)
    return ", ".join(parts) or "validation"


def _lines(stage: Stage, run: RunRecord, topology: TopologySnapshot) -> list[str]:
    """Return what happened at a stage, a sentence each."""
    lines = [] if not stage.before else [summary(stage, topology)]
    for decision in stage.decisions:
        about = "" if decision.about == "task" else f"{decision.about.capitalize()}: "
        lines.append(f"{about}{decision.reason}.")
        if key := expected(decision, run.config.stream):
            lines.append(f"Expected: {' or '.join(key)}.")
        lines.append(prior_sentence(decision))
    return [line for line in lines if line]
