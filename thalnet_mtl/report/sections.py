"""Sections of a report, one for each data set: tables, figures and caveats of comparable runs."""

import json
import math
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any, NamedTuple, TypeVar

import numpy as np

from thalnet_mtl.metrics.metric import Metric
from thalnet_mtl.metrics.significance import PAIRED_SEEDS
from thalnet_mtl.report.figures.style import COLORS, DASHES
from thalnet_mtl.report.rows import further_rows, row_of
from thalnet_mtl.runs.records import RunRecord, TaskRecord, group_by_data
from thalnet_mtl.runs.results import SPLITS
from thalnet_mtl.runs.summaries import SEED

T = TypeVar("T")
MANY = 12  # groups that are drawn of too many
MARKS = 40
STYLES = len(COLORS) * len(DASHES)  # groups that can be told apart in a figure


class SeedGroup(NamedTuple):
    """The label and the line style of runs that differ only in their seed."""

    label: str
    style: int


def make_sections(runs: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """Return the sections: only runs on the same data are shown side by side."""
    styles_by_config: dict[str, int] = {}
    sections = []
    by_data = group_by_data([record for run in runs for record in run.records])
    for members in by_data:
        seed_groups = group_by_key(members, lambda record: record.run.seedless_config + record.task)
        keys = [_taskless_config(records[0].run) for records in seed_groups]
        # Two tasks of one joint run may have the same data.
        keys = [f"{key} {keys[:place].count(key)}" for place, key in enumerate(keys)]
        styles = _styles(keys, styles_by_config)
        metric = next((record.metric for record in members if record.metric), None)
        groups = [
            SeedGroup(label, style)
            for label, style in zip(_labels(seed_groups), styles, strict=True)
        ]
        places = _spread(len(groups), STYLES, MANY)
        sections.append({
            "title": _title(members),
            "metric": metric,
            "groups": [
                {"group": group, "runs": records, "rows": [row_of(record) for record in records],
                 "further": [further_rows(record) for record in records],
                 "mean": _mean(records, metric), "drawn": place in places}
                for place, (group, records) in enumerate(zip(groups, seed_groups, strict=True))
            ],
            "notes": _notes(members, seed_groups),
            "marks": _marks(members),
            "joint": any(len(record.run.tasks) > 1 for record in members),
        })  # fmt: skip
    return sections


def _spread(count: int, most: int, few: int) -> set[int]:
    """Return all places if there are at most ``most``, otherwise ``few`` spread evenly."""
    if count <= most:
        return set(range(count))
    return set(np.linspace(0, count - 1, few).round().astype(int).tolist())


def _taskless_config(run: RunRecord) -> str:
    """Return the configuration as text, without the seed and the task of a single-task run."""
    if run.config.tasks:
        return run.seedless_config
    return json.dumps(json.loads(run.seedless_config) | {"task": None}, sort_keys=True)


def group_by_key(items: Sequence[T], key: Callable[[T], str]) -> list[list[T]]:
    """Group items with equal keys, in the order in which the keys first occur."""
    groups: dict[str, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return list(groups.values())


def _title(records: Sequence[TaskRecord]) -> str:
    """Return the label of the data, after the name that runs give to the task if there is one."""
    label = next((record.label for record in records if record.result), records[0].label)
    names = {record.task for record in records if record.task not in (record.config.name, label)}
    return f"{names.pop()} ({label})" if len(names) == 1 else label


class Mark(NamedTuple):
    """What happened after so many steps and seconds of training."""

    step: int
    seconds: float
    words: str


def _marks(records: Sequence[TaskRecord]) -> list[Mark]:
    """Return the topology changes and ends of experiences that all runs share, in order.

    The time of a change is the mean over the runs; that of an end is unknown. Marks of more than
    ``MARKS`` would hide the curves.
    """
    runs = list({record.run.folder: record.run for record in records}.values())
    marks = []
    if len({tuple((c.step, c.verb, c.about) for c in run.history) for run in runs}) == 1:
        for changes in zip(*(run.history for run in runs), strict=True):
            seconds = float(np.mean([change.seconds for change in changes]))
            marks.append(Mark(changes[0].step, seconds, f"{changes[0].verb} {changes[0].about}"))
    ends = {tuple(run.continual.ends) if run.continual else () for run in runs}
    if len(ends) == 1:
        for number, end in enumerate(ends.pop(), start=1):
            marks.append(Mark(end, math.nan, f"end of experience {number}"))
    return sorted(marks) if len(marks) <= MARKS else []


def _styles(keys: Sequence[str], used: dict[str, int]) -> list[int]:
    """Assign line styles, distinct within a section.

    A configuration keeps the style that it has in earlier sections (``used``, which is updated),
    unless another configuration of this section has it.
    """
    owners = {used[key]: key for key in reversed(keys) if key in used}
    free = (style for style in count() if style not in owners)
    styles = [used[key] if owners.get(used.get(key, -1)) == key else next(free) for key in keys]
    used |= {key: style for key, style in zip(keys, styles, strict=True) if key not in used}
    return styles


def _labels(seed_groups: Sequence[Sequence[TaskRecord]]) -> list[str]:
    """Label groups: a single run by its name, seeds by their body and the options that differ."""
    labels = []
    for records in seed_groups:
        run = records[0].run
        if len(records) == 1:
            labels.append(run.name)
            continue
        body, config = run.config.model.body, run.plain_config
        same_body = [r[0].run for r in seed_groups if r[0].run.config.model.body == body]
        rivals = [rival.plain_config for rival in same_body]
        differences = [run.mode] if any(rival.mode != run.mode for rival in same_body) else []
        differences += [
            f"{len(config[name])} {name}"
            for name in ("modules", "changes", "stream")
            if any(len(rival[name]) != len(config[name]) for rival in rivals)
        ]
        differences += [
            f"{name} {value}"
            for section in ("model", "train", "growth", "strategy", "evaluate")
            for name, value in config[section].items()
            if name != "seed" and any(rival[section].get(name) != value for rival in rivals)
        ]
        ellipsis = ["…"] * (len(differences) > 2)
        labels.append(", ".join([body, *differences[:2], *ellipsis]))
    names = [
        label if labels.count(label) == 1 else _name(records)
        for label, records in zip(labels, seed_groups, strict=True)
    ]
    return [
        name if names.count(name) == 1 else f"{name}: {records[0].task}"
        for name, records in zip(names, seed_groups, strict=True)
    ]


def _name(records: Sequence[TaskRecord]) -> str:
    """Return the name of a run; of several, without its seed."""
    name = records[0].run.name
    return SEED.sub("", name).strip("/") if len(records) > 1 else name


def _mean(records: Sequence[TaskRecord], metric: Metric | None) -> dict[str, Any] | None:
    """Return mean, minimum and maximum of each split, if several runs have finished."""
    finished = [record for record in records if record.result]
    if len(finished) < 2 or metric is None:
        return None
    seeds = {record.run.seed for record in finished}
    number = f"{len(finished)} seeds"
    if len(seeds) < len(finished):
        number = f"{len(finished)} runs, {len(seeds)} seed{'s' if len(seeds) > 1 else ''}"
    values = {split: [record.score(split) for record in finished] for split in SPLITS}
    return {"count": number} | {
        split: [metric.format(float(f(values[split]))) for f in (np.mean, min, max)]
        for split in SPLITS
    }


def _notes(records: Sequence[TaskRecord], seed_groups: Sequence[Sequence[TaskRecord]]) -> list[str]:
    """Return caveats of a comparison: few seeds, partial scores, other hardware, other code."""
    runs = [record.run for record in records]
    notes = []
    seeds = [{record.run.seed for record in group if record.result} for group in seed_groups]
    paired = sorted(set.intersection(*seeds))
    compared = {group[0].run.seedless_config for group in seed_groups}
    if len(compared) > 1 and len(paired) < PAIRED_SEEDS:
        notes.append(
            f"{len({run.folder for run in runs})} runs of {len(compared)} configurations, which "
            f"have {len(paired)} "
            f"finished seed{'' if len(paired) == 1 else 's'} in common: fewer than {PAIRED_SEEDS} "
            f"paired seeds do not support a ranking."
        )
    limited = [run for run in runs if run.evaluation_limit]
    if limited:
        names = ", ".join(run.name for run in limited) if len(limited) < len(runs) else "All runs"
        notes.append(f"{names}: scored {limited[0].evaluation_limit}, not on all of the data.")
    machines = {
        tuple(run.environment.get(key) for key in ("processor", "threads", "device"))
        for run in runs
    }
    if len(machines) > 1:
        notes.append("The runs come from different hardware; their times cannot be compared.")
    commits = {run.environment.get("commit") for run in runs}
    if len(commits) > 1:
        names = ", ".join(sorted(_short_commit(commit) for commit in commits))
        notes.append(f"The runs come from different commits of the code: {names}.")
    return notes


def _short_commit(commit: str | None) -> str:
    """Shorten a commit to 8 digits; a final + marks a checkout with uncommitted changes."""
    return commit[:8] + "+" * commit.endswith("+") if commit else "not recorded"
