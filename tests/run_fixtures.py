"""Run directories as training leaves them, small and written by hand."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from thalnet_mtl.config.load import dump_config, load_configs
from thalnet_mtl.training.step import TrainStep

SCORES = {"train": 0.91234, "validation": 0.87654, "test": 0.85432, "untrained": 0.1}
DIGITS: Mapping[str, dict[str, Any]] = {"digits_rows": {}}


def make_run(folder: Path, tasks: Mapping[str, dict[str, Any]] = DIGITS,
             flags: dict[str, str] | None = None, finished: bool = True, batches: int = 0,
             **scores: float) -> Path:  # fmt: skip
    """A run; each task may say its kind, metric, source, classes, own_step, scores of its own."""
    tasks = {name: {"kind": name, "metric": "accuracy", "source": "", "classes": 10, "own_step": 20}
             | SCORES | scores | task for name, task in tasks.items()}  # fmt: skip
    kinds = {name: task["kind"] for name, task in tasks.items()}
    names = {f"tasks.{name}.name": kind for name, kind in kinds.items()}
    if len(tasks) == 1:
        names = {"task.name": kinds.popitem()[1]}
    config = load_configs([], names | (flags or {}))[""]
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(dump_config(config))
    about = {"python": "3.12", "commit": "c0ffee11"}
    data = {task["source"]: {"train": "md5:1"} for task in tasks.values() if task["source"]}
    (folder / "environment.json").write_text(json.dumps(about | {"data": data}))
    lines = [
        {"step": step, "task": name, "split": split, "metric": metric, "value": value,
         "seconds": step / 10}
        for step in (10, 20, 30)
        for name, task in tasks.items()
        for split, metric, value in (("train", "loss", 2 - step / 30),
                                     ("validation", task["metric"], 0.5 + step / 100))
    ]  # fmt: skip
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if finished:
        results = {
            name: {
                "label": task["kind"], "kind": task["kind"], "metric": task["metric"],
                "source": task["source"], "classes": task["classes"],
                "own_best": {"step": task["own_step"], "value": 0.88},
                **{split: {"loss": 1.0, task["metric"]: task[split], "count": 100}
                   for split in SCORES},
            }
            for name, task in tasks.items()
        }  # fmt: skip
        result = {
            "body": config.model.body, "tasks": results, "best_step": 20, "steps": 30,
            "parameters": {"total": 12345, "trainable": 12345, "frozen": 0},
            "seed": config.train.seed, "seconds": 4.0, "train_seconds": 3.0,
            "evaluation_batches": batches,
        }  # fmt: skip
        (folder / "result.json").write_text(json.dumps(result))
    return folder


def change_data(folder: Path, source: str, checksum: str) -> None:
    """As if the run had been trained on other files of this source."""
    path = folder / "environment.json"
    about = json.loads(path.read_text())
    about["data"][source] = {"train": checksum}
    path.write_text(json.dumps(about))


def add_topology(folder: Path, *changes: tuple[int, str, str], names: tuple[str, ...] = ("eye",
                  "trunk", "mouth"), slowness: float = 0.1) -> Path:  # fmt: skip
    """Modules that all read all; the first belongs to a task and has one slot opened later."""
    modules = [
        {
            "name": name, "features": 32, "context": 16, "inputs": 0 if n else 28,
            "output": name == names[-1], "hidden": 0, "module": "ff_gru",
            "reading": "weight_norm", "reads": list(names), "opened": [] if n else [names[-1]],
            "tasks": [] if n else ["digits_rows"], "frozen": n == 1, "slot": [32 * n, 32 * n + 32],
            "parameters": 1000 + n,
        }
        for n, name in enumerate(names)
    ]  # fmt: skip
    tasks = {"digits_rows": {"into": [names[0]], "out_of": [names[-1]], "active": list(names),
                             "sub_steps": 1, "extra_steps": 0, "frozen": False, "encode": False,
                             "parameters": 330}}  # fmt: skip
    history = [
        {"step": step, "seconds": slowness * step, "verb": verb, "about": about,
         "parameters": 50_000 + step, "before": {}}
        for step, verb, about in changes
    ]  # fmt: skip
    content = {"modules": modules, "tasks": tasks, "history": history, "step": 30, "decisions": []}
    (folder / "topology.json").write_text(json.dumps(content))
    return folder


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def interrupt_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop as a power cut would, before a step is taken."""
    real = TrainStep.__call__

    def failing(self, inputs):
        if self.run.step == step:
            raise SystemExit
        return real(self, inputs)

    monkeypatch.setattr(TrainStep, "__call__", failing)


def matrix(folder) -> tuple[list[str], list[dict[str, str]]]:
    with (folder / "accuracy_matrix.csv").open() as file:
        rows = csv.DictReader(file)
        return list(rows.fieldnames or []), list(rows)
