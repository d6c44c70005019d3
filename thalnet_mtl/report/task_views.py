"""The tasks of a report, each with its groups of seeds, as panels show them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from thalnet_mtl.metrics.metric import Metric
from thalnet_mtl.report.sections import Mark, group_by_key
from thalnet_mtl.runs.records import TaskRecord
from thalnet_mtl.runs.summaries import SEED


@dataclass(frozen=True)
class SeedView:
    """Runs on one task that differ only in their seed."""

    label: str
    style: int
    records: Sequence[TaskRecord]

    @property
    def finished(self) -> list[TaskRecord]:
        """The runs that have finished."""
        return [record for record in self.records if record.result]


@dataclass(frozen=True)
class TaskView:
    """A task, and the groups of seeds that were trained on it."""

    title: str
    metric: Metric | None
    groups: Sequence[SeedView]
    marks: Sequence[Mark]
    left_out: int  # groups, because so many cannot be told apart


def task_views(sections: Sequence[Mapping[str, Any]]) -> list[TaskView]:
    """Return the tasks of the sections of a report.

    Where a run has several tasks on the same data, as with permutations of one data set, the tasks
    of the section are shown one by one.
    """
    views = []
    for section in sections:
        records = [record for entry in section["groups"] for record in entry["runs"]]
        if len({record.run.folder for record in records}) < len(records):
            views += _views_by_task(section, records)
            continue
        groups = [
            SeedView(_label(entry["group"].label, entry["runs"]), entry["group"].style,
                     entry["runs"])
            for entry in section["groups"]
            if entry["drawn"]
        ]  # fmt: skip
        left_out = len(section["groups"]) - len(groups)
        views.append(
            TaskView(section["title"], section["metric"], groups, section["marks"], left_out)
        )
    return views


def _label(label: str, records: Sequence[TaskRecord]) -> str:
    """Return the label of a group without the task of its panel."""
    run, task = records[0].run, records[0].task
    if len(records) > 1 and label == f"{run.name}: {task}":
        return SEED.sub("", run.name).strip("/") or run.name
    return label.removesuffix(f": {task}")


def _views_by_task(section: Mapping[str, Any], records: Sequence[TaskRecord]) -> list[TaskView]:
    styles: dict[str, int] = {}
    for record in records:
        styles.setdefault(record.run.seedless_config, len(styles))
    views = []
    for members in group_by_key(records, lambda record: record.task):
        groups = []
        for seeds in group_by_key(members, lambda record: record.run.seedless_config):
            run = seeds[0].run
            label = SEED.sub("", run.name).strip("/") if len(seeds) > 1 else run.name
            groups.append(SeedView(label or run.name, styles[run.seedless_config], seeds))
        views.append(TaskView(members[0].title, section["metric"], groups, section["marks"], 0))
    return views
