"""Read run directories, finished or not: configuration, result, learning curves, readings."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from thalnet_mtl.config.load import load_run_config
from thalnet_mtl.config.overlay import as_plain
from thalnet_mtl.config.schema import Config, NamedTaskConfig
from thalnet_mtl.files import read_fields
from thalnet_mtl.json_fields import require
from thalnet_mtl.metrics.metric import METRICS, Metric
from thalnet_mtl.metrics.summary import ContinualSummary
from thalnet_mtl.runs.checksums import READ, READING_LOG, READINGS, check_sums
from thalnet_mtl.runs.lesions import TaskLesions, read_lesions
from thalnet_mtl.runs.log import Curve, RunLog, read_log
from thalnet_mtl.runs.readings import ReadingLog, read_reading_log
from thalnet_mtl.runs.results import RunResult, TaskResult, read_logged_metrics
from thalnet_mtl.runs.run_files import (
    ReadingWeights,
    ScoreMatrix,
    read_accuracy_matrix,
    read_environment,
    read_reading_weights,
)
from thalnet_mtl.runs.shown import ShownRun
from thalnet_mtl.runs.topology_file import ChangeEntry, TopologySnapshot, read_topology


@dataclass(frozen=True, repr=False)
class RunRecord(ShownRun):
    """The content of a run directory; ``result`` is None until the run has finished::

    run = read_run(Path("runs/digits"))
    run.result.tasks["digits_rows"].test                      # the test accuracy
    run.curve("digits_rows", "validation", "accuracy")        # of shape (points, 3)
    """

    folder: Path
    name: str
    config: Config
    result: RunResult | None
    environment: dict[str, Any]
    log: RunLog  # metrics.jsonl
    metrics: Mapping[str, Sequence[Metric]]  # by task; empty for runs of earlier versions
    topology: TopologySnapshot | None  # None for a body without modules
    reading_weights: dict[str, ReadingWeights]  # by module; empty until the run has finished
    slot_widths: dict[str, int]  # by module, in the order of the columns of the reading weights
    dynamic_readings: list[str]  # modules whose weights are means over some inputs
    readings: ReadingLog  # means of the reading weights during training
    lesions: Mapping[str, TaskLesions]  # by task; those that ``thalnet evaluate`` has recorded

    @property
    def tasks(self) -> Mapping[str, NamedTaskConfig]:
        """Configurations of the tasks, by their names in this run."""
        return self.config.named_tasks

    @property
    def seed(self) -> int:
        """Seed of the run."""
        return self.config.train.seed

    @property
    def step(self) -> int:
        """Step until which the run has logged."""
        return int(self.log.step)

    @cached_property
    def plain_config(self) -> dict[str, Any]:
        """The configuration as plain values, as JSON and YAML hold them."""
        plain: dict[str, Any] = as_plain(self.config)
        return plain

    @cached_property
    def seedless_config(self) -> str:
        """The configuration as text, without the seed."""
        config = self.plain_config
        return json.dumps(config | {"train": config["train"] | {"seed": None}}, sort_keys=True)

    @property
    def records(self) -> "list[TaskRecord]":
        """Records of the tasks, in the order of the configuration."""
        return [TaskRecord(self, task) for task in self.tasks]

    @property
    def mode(self) -> str:
        """Mode of training: 'single', 'joint with 2 others' or 'one of 3 in a stream'."""
        count = len(self.config.trained_tasks)
        if self.config.stream:
            return f"one of {count} in a stream"
        return f"joint with {count - 1} other{'s' * (count > 2)}" if count > 1 else "single"

    @property
    def continual(self) -> ContinualSummary | None:
        """Summary of several experiences; None for a single one or an unfinished run."""
        return self.result.continual if self.result else None

    @property
    def evaluation_limit(self) -> str:
        """Note on scores that cover only a part of the data; '' if they cover all."""
        batches = self.config.evaluate.batches
        if self.result:
            batches = self.result.evaluation_batches
        count = "batch" if batches == 1 else f"{batches} batches"
        return f"on the first {count} only" if batches else ""

    @property
    def history(self) -> Sequence[ChangeEntry]:
        """Changes of the topology during training."""
        return self.topology.history if self.topology else []

    def curve(self, task: str, split: str, metric: str) -> Curve:
        """Return what was logged of a task, as an array of shape (points, 3).

        The columns are the step, the seconds of training until then (0 where they were not
        logged) and the value.

        Args:
            task: Name of the task in this run.
            split: 'train', 'validation' or 'test'.
            metric: 'loss', 'learning_rate', or the name of a metric of the task.
        """
        return self.log.curve(task, split, metric)

    @cached_property
    def accuracy_matrix(self) -> ScoreMatrix:
        """Matrix R of scores, of shape (stages + 1, tasks), from ``accuracy_matrix.csv``.

        Scores are in the main metric of each task. Row 0 holds those on the test split before
        training, row i those after experience i (after training, for a run without a stream);
        columns are in the order of ``tasks``. NaN marks a task without a head at that stage.

        Raises:
            UserError: the run has not finished, or the file is damaged.
        """
        return read_accuracy_matrix(self.folder / "accuracy_matrix.csv", list(self.tasks))


@dataclass(frozen=True)
class TaskRecord:
    """A run on one of its tasks: a row of a table, a line of a figure."""

    run: RunRecord
    task: str  # its name in the run

    @property
    def config(self) -> NamedTaskConfig:
        """Configuration of the task."""
        return self.run.tasks[self.task]

    @property
    def result(self) -> TaskResult | None:
        """Result of the task; None until the run has finished."""
        return self.run.result.tasks[self.task] if self.run.result else None

    @property
    def label(self) -> str:
        """Kind of the task, and in results also the version of its data."""
        return self.result.label if self.result else self.config.name

    @property
    def title(self) -> str:
        """Label of the task, after its name in the run where the two differ."""
        renamed = self.task != self.config.name
        return f"{self.task} ({self.label})" if renamed else self.label

    @property
    def mode(self) -> str:
        """Mode of training, after the name of the task in the run where that is not its kind."""
        renamed = f"as '{self.task}', " if self.task != self.config.name else ""
        return renamed + ("only scored" if self.config.only_scored else self.run.mode)

    @property
    def metrics(self) -> Sequence[Metric]:
        """Metrics of the task, the main one first; () for a run killed before it logged any."""
        if self.result:
            return self.result.metrics
        if self.task in self.run.metrics:
            return self.run.metrics[self.task]
        names = self.run.log.metrics(self.task)
        return [metric for name, metric in METRICS.items() if name in names]

    @property
    def metric(self) -> Metric | None:
        """Main metric of the task; None for a run that was killed before it logged one."""
        return next(iter(self.metrics), None)

    def score(self, split: str, metric: str | None = None) -> float:
        """Return the score of a finished run on a split, by default in the main metric.

        The split 'untrained' stands for the test split before training.
        """
        assert self.result is not None
        scores = self.result.scores[split]
        return scores.value if metric is None else scores.values[metric]

    def curve(self, split: str, metric: str) -> Curve:
        """Return what was logged of the task, as ``RunRecord.curve`` does."""
        return self.run.curve(self.task, split, metric)

    def drawn_curve(self, split: str, metric: str) -> Curve:
        """Return what was logged of the task for a figure, thinned where it is long."""
        return self.run.log.drawn(self.task, split, metric)


def read_runs(folders: Iterable[Path]) -> list[RunRecord]:
    """Read run directories, each once, and give the runs distinct names."""
    unique = {os.path.realpath(folder): Path(folder) for folder in folders}
    return with_unique_names([read_run(folder) for folder in unique.values()])


def read_run(folder: Path | str) -> RunRecord:
    """Read a run directory, finished or not; the run is named after the folder.

    Raises:
        UserError: there is no run, or a file of it is damaged; says which.
    """
    folder = Path(folder)
    config = load_run_config(folder)
    check_sums(folder, READ)
    result = _read_result(folder / "result.json", config.named_tasks)
    ends = result.continual.ends if result and result.continual else ()
    weights, widths, dynamic = read_reading_weights(folder / READINGS)
    return RunRecord(
        folder=folder,
        name=Path(os.path.abspath(folder)).name,
        config=config,
        result=result,
        environment=read_environment(folder / "environment.json"),
        log=read_log(folder / "metrics.jsonl", config.named_tasks, ends),
        metrics=read_logged_metrics(folder / "metrics.json"),
        topology=read_topology(folder) if (folder / "topology.json").exists() else None,
        reading_weights=weights,
        slot_widths=widths,
        dynamic_readings=dynamic,
        readings=read_reading_log(folder / READING_LOG),
        lesions=_lesions_of(folder, config, result),
    )


def _lesions_of(folder: Path, config: Config, result: RunResult | None) -> dict[str, TaskLesions]:
    """Return the lesions of the weights that a run was scored with; others are out of date."""
    lesions, step = read_lesions(folder), result.best_step if result else None
    known = {task: entry for task, entry in lesions.items() if task in config.named_tasks}
    return {t: entry for t, entry in known.items() if step is None or entry.step == step}


def with_unique_names(runs: Sequence[RunRecord]) -> list[RunRecord]:
    """Name runs by the shortest ends of their paths that tell them apart."""
    paths = [Path(os.path.abspath(run.folder)).parts for run in runs]

    def shortest(parts: tuple[str, ...]) -> str:
        for count in range(1, len(parts) + 1):
            tail = parts[-count:]
            if sum(path[-count:] == tail for path in paths) == 1:
                break
        return "/".join(tail)

    return [replace(run, name=shortest(path)) for run, path in zip(runs, paths, strict=True)]


def group_by_data(records: Sequence[TaskRecord]) -> list[list[TaskRecord]]:
    """Group records by kind of task, its options, number of classes and checksums of the data.

    Only a finished run says which of its files a task reads, and how many classes its head has.
    An unfinished run is taken to be like the finished ones of its kind; if there are none, to read
    all of its files.
    """
    results = {record.config.name: record.result for record in records if record.result}
    groups: dict[str, list[TaskRecord]] = {}
    for record in records:
        kind, files = record.config.name, record.run.environment.get("data") or {}
        result = record.result or results.get(kind)
        classes = result.classes if result else None
        checksums = files.get(result.source) if result else files
        key = json.dumps([kind, record.config.options, classes, checksums], sort_keys=True)
        groups.setdefault(key, []).append(record)
    return list(groups.values())


def _read_result(path: Path, tasks: Iterable[str]) -> RunResult | None:
    """Read the result of a run with these tasks, if it has finished."""
    if not path.exists():
        return None
    content = read_fields(path)
    require(content, ("tasks",), str(path))
    require(content["tasks"], tasks, f"{path}: tasks")
    return RunResult.from_json(content, str(path))
