"""What a run directory holds, read without training code, and one row of a table on each."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from thalnet_mtl import config as configs
from thalnet_mtl.checkpoint import read_json
from thalnet_mtl.config import UserError, unknown
from thalnet_mtl.figures import Curve, Weight
from thalnet_mtl.metrics import METRICS, Metric

PARTS = ("train", "validation", "test")
RESULT = ("body", "task", "metric", *PARTS, "best_step", "steps", "parameters", "seed",
          "train_seconds", "evaluation_batches")  # fmt: skip


@dataclass(frozen=True)
class RunRecord:
    """What a run directory holds; ``result`` is None until the run has finished."""

    folder: Path
    name: str
    config: dict[str, Any]
    result: dict[str, Any] | None
    environment: dict[str, Any]
    lines: list[dict[str, Any]]
    reading_weights: dict[str, Weight]
    slots: dict[str, int]
    dynamic: list[str]

    @property
    def seed(self) -> int:
        return self.config["train"]["seed"]

    @property
    def task(self) -> str:
        """The task as results call it, which says which version of the data was there."""
        return self.result["task"] if self.result else self.config["task"]["name"]

    @property
    def metric(self) -> Metric | None:
        """None for a run that was killed before it logged anything."""
        names = [self.result["metric"]] if self.result else [line["metric"] for line in self.lines]
        return next((METRICS[name] for name in names if name in METRICS), None)

    @property
    def limit(self) -> str:
        """How far the scores may be trusted, if they do not cover all of the data."""
        batches = (self.result or {}).get("evaluation_batches", self.config["evaluate"]["batches"])
        count = "batch" if batches == 1 else f"{batches} batches"
        return f"on the first {count} only" if batches else ""

    def curve(self, split: str, metric: str) -> Curve:
        """Rows of step, seconds of training, value."""
        rows = [
            (line["step"], line.get("seconds", 0.0), line["value"])
            for line in self.lines
            if (line["split"], line["metric"]) == (split, metric)
        ]
        return np.array(rows, dtype=float).reshape(-1, 3)


def read_run(folder: Path) -> RunRecord:
    """Read a run directory, finished or not; its name is that of the folder.

    Raises:
        UserError: there is no run, or a file of it is damaged; says which.
    """
    if not folder.is_dir():
        raise UserError(f"no run directory '{folder}'.")
    config = configs.load_run(folder)
    environment = folder / "environment.json"
    weights, slots, dynamic = _read_weights(folder / "model" / "reading_weights.safetensors")
    return RunRecord(
        folder=folder,
        name=Path(os.path.abspath(folder)).name,
        config=asdict(config),
        result=_read_result(folder / "result.json"),
        environment=_read_dict(environment) if environment.exists() else {},
        lines=_read_lines(folder / "metrics.jsonl"),
        reading_weights=weights,
        slots=slots,
        dynamic=dynamic,
    )


def table(runs: Sequence[RunRecord]) -> list[dict[str, str]]:
    """One row a run, ready to print; scores that are not there are '–'.

    Keys: run, body, task, parameters, seed, steps, best_step, metric, train, validation, test,
    train_seconds, and note ('on the first 2 batches only', 'unfinished at step 400').
    """
    return [row_of(run) for run in distinct(runs)]


def distinct(runs: Sequence[RunRecord]) -> list[RunRecord]:
    """The runs with the shortest ends of their paths that tell them apart as names."""
    paths = [Path(os.path.abspath(run.folder)).parts for run in runs]

    def shortest(parts: tuple[str, ...]) -> str:
        for count in range(1, len(parts) + 1):
            tail = parts[-count:]
            if sum(other[-count:] == tail for other in paths) == 1:
                break
        return "/".join(tail)

    return [replace(run, name=shortest(path)) for run, path in zip(runs, paths, strict=True)]


def row_of(run: RunRecord) -> dict[str, str]:
    """A row of ``table`` for a run that has its name already."""
    config, result, metric = run.config, run.result, run.metric
    row = {
        "run": run.name,
        "body": config["model"]["body"],
        "task": run.task,
        "seed": str(run.seed),
        "metric": metric.name if metric else "–",
    }
    if result:
        assert metric is not None
        numbers = {key: f"{result[key]:,}" for key in ("steps", "best_step")}
        scores = {part: metric.format(result[part][metric.name]) for part in PARTS}
        row |= numbers | scores
        row["parameters"] = f"{result['parameters']['total']:,}"
        row["train_seconds"] = f"{result['train_seconds']:,.1f}"
        return row | {"note": run.limit}
    step = max((line["step"] for line in run.lines), default=0)
    seconds = max((line.get("seconds", 0.0) for line in run.lines), default=0.0)
    row |= dict.fromkeys(("parameters", "steps", "best_step", *PARTS), "–")
    if metric and len(looks := run.curve("validation", metric.name)):
        row["validation"] = metric.format(looks[-1, 2])
    limits = [f"unfinished at step {step:,}", run.limit]
    note = ", ".join(limit for limit in limits if limit)
    return row | {"train_seconds": f"{seconds:,.1f}", "note": note}


def _read_result(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    result = _read_dict(path)
    missing = [key for key in RESULT if key not in result]
    if missing:
        raise UserError(f"{path} is damaged: it has no '{missing[0]}'.")
    metric = result["metric"]
    if metric not in METRICS:
        raise UserError(f"{path}: {unknown('metric', metric, METRICS)}")
    for part in PARTS:
        if not isinstance(result[part], dict) or not _number(result[part].get(metric)):
            raise UserError(f"{path} is damaged: it has no {metric} of the {part} part.")
    return result


def _read_dict(path: Path) -> dict[str, Any]:
    content = read_json(path)
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged: it holds no fields.")
    return content


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
            if not isinstance(line["split"], str) or not isinstance(line["metric"], str):
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
