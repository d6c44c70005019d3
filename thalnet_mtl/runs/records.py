"""What a run directory holds, read without training code, and a record of each of its tasks."""

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from thalnet_mtl.config.load import load_run_config
from thalnet_mtl.errors import UserError, unknown
from thalnet_mtl.files import read_fields, require
from thalnet_mtl.metrics import summary as continual
from thalnet_mtl.metrics.metric import METRICS, Metric
from thalnet_mtl.runs.topology_file import TopologySnapshot, read_structure

Curve = Float[np.ndarray, "_ 3"]  # columns: step, seconds of training, value
Weight = Float[np.ndarray, "_ center"]

PARTS = ("train", "validation", "test")
RESULT = ("body", "tasks", "best_step", "steps", "parameters", "seed", "train_seconds",
          "evaluation_batches")  # fmt: skip
SCORES = (*PARTS, "untrained")
TASK_RESULT = ("label", "kind", "metric", "source", *SCORES, "own_best")


@dataclass(frozen=True)
class RunRecord:
    """What a run directory holds; ``result`` is None until the run has finished."""

    folder: Path
    name: str
    config: dict[str, Any]
    tasks: dict[str, dict[str, Any]]  # the configuration of each by its name in this run
    result: dict[str, Any] | None
    environment: dict[str, Any]
    lines: list[dict[str, Any]]
    structure: TopologySnapshot | None
    reading_weights: dict[str, Weight]
    slots: dict[str, int]
    dynamic: list[str]

    @property
    def seed(self) -> int:
        return self.config["train"]["seed"]

    @property
    def records(self) -> "list[TaskRecord]":
        """One a task, in the order of the configuration."""
        return [TaskRecord(self, task) for task in self.tasks]

    @property
    def mode(self) -> str:
        """Whether a task was learned alone."""
        others = len(self.tasks) - 1
        if self.config["stream"]:
            return f"one of {others + 1} in a stream"
        return f"joint with {others} other{'s' * (others > 1)}" if others else "single"

    @property
    def continual(self) -> dict[str, Any]:
        """What it came to over several experiences; empty where there is one, or unfinished."""
        return (self.result or {}).get("continual", {})

    @property
    def limit(self) -> str:
        """How far the scores may be trusted, if they do not cover all of the data."""
        batches = (self.result or {}).get("evaluation_batches", self.config["evaluate"]["batches"])
        count = "batch" if batches == 1 else f"{batches} batches"
        return f"on the first {count} only" if batches else ""

    @property
    def history(self) -> list[dict[str, Any]]:
        """The changes of its modules while it was trained."""
        return self.structure.history if self.structure else []


@dataclass(frozen=True)
class TaskRecord:
    """A run on one of its tasks: a row of a table, a line of a figure."""

    run: RunRecord
    task: str

    @property
    def config(self) -> dict[str, Any]:
        return self.run.tasks[self.task]

    @property
    def result(self) -> dict[str, Any] | None:
        """What this task has of the result; None until the run has finished."""
        return self.run.result["tasks"][self.task] if self.run.result else None

    @property
    def label(self) -> str:
        """The kind of task as results call it, which says which version of the data was there."""
        return self.result["label"] if self.result else self.config["name"]

    @property
    def title(self) -> str:
        """The label, after the name of the task in the run if that is its own."""
        own = self.task != self.config["name"]
        return f"{self.task} ({self.label})" if own else self.label

    @property
    def mode(self) -> str:
        """Whether the task was learned alone, and its name in the run if that is its own."""
        named = f"as '{self.task}', " if self.task != self.config["name"] else ""
        return named + self.run.mode

    @property
    def metric(self) -> Metric | None:
        """None for a run that was killed before it logged anything on this task."""
        names = [line["metric"] for line in self.run.lines if line["task"] == self.task]
        if self.result:
            names = [self.result["metric"]]
        return next((METRICS[name] for name in names if name in METRICS), None)

    def score(self, part: str) -> float:
        """The metric on train, validation or test, or that of the untrained network on test."""
        assert self.result is not None
        return self.result[part][self.result["metric"]]

    def curve(self, split: str, metric: str) -> Curve:
        """Rows of step, seconds of training, value."""
        rows = [
            (line["step"], line.get("seconds", 0.0), line["value"])
            for line in self.run.lines
            if (line["task"], line["split"], line["metric"]) == (self.task, split, metric)
        ]
        return np.array(rows, dtype=float).reshape(-1, 3)


def read_runs(folders: Iterable[Path]) -> list[RunRecord]:
    """Read run directories, each once, and give them names that tell them apart."""
    once = {os.path.abspath(folder): Path(folder) for folder in folders}
    return with_unique_names([read_run(folder) for folder in once.values()])


def read_run(folder: Path) -> RunRecord:
    """Read a run directory, finished or not; its name is that of the folder.

    Raises:
        UserError: there is no run, or a file of it is damaged; says which.
    """
    if not folder.is_dir():
        raise UserError(f"no run directory '{folder}'.")
    config = load_run_config(folder)
    environment = folder / "environment.json"
    weights, slots, dynamic = _read_weights(folder / "model" / "reading_weights.safetensors")
    return RunRecord(
        folder=folder,
        name=Path(os.path.abspath(folder)).name,
        config=asdict(config),
        tasks={name: asdict(task) for name, task in config.named_tasks.items()},
        result=_read_result(folder / "result.json", list(config.named_tasks)),
        environment=read_fields(environment) if environment.exists() else {},
        lines=_read_lines(folder / "metrics.jsonl"),
        structure=read_structure(folder) if (folder / "topology.json").exists() else None,
        reading_weights=weights,
        slots=slots,
        dynamic=dynamic,
    )


def with_unique_names(runs: Sequence[RunRecord]) -> list[RunRecord]:
    """The runs with the shortest ends of their paths that tell them apart as names."""
    paths = [Path(os.path.abspath(run.folder)).parts for run in runs]

    def shortest(parts: tuple[str, ...]) -> str:
        for count in range(1, len(parts) + 1):
            tail = parts[-count:]
            if sum(other[-count:] == tail for other in paths) == 1:
                break
        return "/".join(tail)

    return [replace(run, name=shortest(path)) for run, path in zip(runs, paths, strict=True)]


def group_by_data(records: Sequence[TaskRecord]) -> list[list[TaskRecord]]:
    """Records of one kind of task, one permutation, as many classes and files of one checksum.

    Only a finished run says which of its files a task reads, and of how many classes its head is.
    An unfinished one is taken to be as finished ones of its kind are; where there are none, to read
    all of its files.
    """
    known = {record.config["name"]: record.result for record in records if record.result}
    groups: dict[str, list[TaskRecord]] = {}
    for record in records:
        kind, files = record.config["name"], record.run.environment.get("data") or {}
        about = record.result or known.get(kind, {})
        source, classes = about.get("source"), about.get("classes")
        read = files if source is None else files.get(source)
        key = json.dumps([kind, record.config["permutation"], classes, read], sort_keys=True)
        groups.setdefault(key, []).append(record)
    return list(groups.values())


def _read_result(path: Path, tasks: Sequence[str]) -> dict[str, Any] | None:
    if not path.exists():
        return None
    result = read_fields(path)
    require(result, RESULT, str(path))
    require(result["tasks"], tasks, f"{path}: tasks")
    if "continual" in result:
        require(result["continual"], continual.KEYS, f"{path}: continual")
    for task in tasks:
        entry, where = result["tasks"][task], f"{path}: task '{task}'"
        require(entry, TASK_RESULT, where)
        metric = entry["metric"]
        if metric not in METRICS:
            raise UserError(f"{where}: {unknown('metric', metric, METRICS)}")
        for part in SCORES:
            if not isinstance(entry[part], dict) or not _number(entry[part].get(metric)):
                raise UserError(f"{where} is damaged: it has no {metric} of the {part} part.")
        require(entry["own_best"], ("step", "value"), f"{where}: own_best")
    return result


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """Whatever a killed run left of its last line is not a line."""
    raw = path.read_bytes().splitlines() if path.exists() else []
    lines = []
    for number, text in enumerate(raw, start=1):
        try:
            line = json.loads(text)
            if not _number(line["step"]) or not _number(line["value"]):
                raise ValueError("not a measurement")
            if not all(isinstance(line[key], str) for key in ("task", "split", "metric")):
                raise ValueError("not a measurement")
            lines.append(line)
        except (ValueError, TypeError, KeyError) as error:
            if number < len(raw):
                raise UserError(f"{path}, line {number} is damaged: {error}.") from None
    return lines


def _read_weights(path: Path) -> tuple[dict[str, Weight], dict[str, int], list[str]]:
    """R by module and the width of each slot, in the order of the center; who reads dynamically."""
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        return {}, {}, []
    try:
        with safe_open(path, "np") as file:
            slots: dict[str, int] = json.loads(file.metadata()["slots"])
            dynamic: list[str] = json.loads(file.metadata()["dynamic"])
            return {name: file.get_tensor(name) for name in slots}, slots, dynamic
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged: {error}.") from error
