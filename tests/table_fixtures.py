"""Records of runs, written by hand: a stream of two tasks, or a single task."""

import json
from pathlib import Path
from typing import Any

from thalnet_mtl.metrics.metric import ACCURACY
from thalnet_mtl.metrics.summary import StageCost, summarize

COST = StageCost(100, 90, 10, {"a": 1_000_000, "b": 3_000_000}, 2_000)


def task_entry(test: float, metric: str = "accuracy", **scores: float) -> dict[str, Any]:
    """The entry of a task in ``result.json``; its other scores are near that of the test."""
    values = {"train": test + 0.05, "validation": test + 0.01, "test": test, "untrained": 0.1}
    splits = {
        split: {"loss": 1.0, metric: value, "count": 100}
        for split, value in (values | scores).items()
    }
    entry = {"label": "toy", "kind": "toy", "source": "", "metric": metric, "classes": 10}
    return entry | splits | {"own_best": {"step": 5, "value": test}}


def write_record(
    path: Path, config: dict[str, Any], tasks: dict[str, dict[str, Any]], **content: Any
) -> Path:
    """A record of a run, whose config has the section ``train`` with its seed."""
    result = {
        "body": "thalnet", "tasks": tasks, "best_step": 20, "steps": 20, "seconds": 4.0,
        "parameters": {"total": 100, "trainable": 90, "frozen": 10}, "train_seconds": 3.0,
        "seed": config["train"]["seed"], "evaluation_batches": 0,
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    continual = content.pop("continual", None)
    result |= {"continual": continual} if continual else {}
    path.write_text(json.dumps({"config": config, "result": result} | content))
    return path


def stream_record(
    path: Path, seed: int, rows: list[list[float]], strategy: str = "naive", **train: Any
) -> Path:
    """A record of a stream of the tasks a, then b; ``rows`` are R, the first before training."""
    config = {
        "tasks": {name: {"name": "toy"} for name in "ab"},
        "stream": [{"tasks": ["a"]}, {"tasks": ["b"]}],
        "train": {"seed": seed, "strategy": strategy, **train},
    }
    summary = summarize(
        dict.fromkeys("ab", ACCURACY), [["a"], ["b"]],
        [dict(zip("ab", row, strict=True)) for row in rows],
        scenario="task-incremental", strategy=strategy, growth="never", ends=[10, 20],
        stages=[COST] * 3,
    )  # fmt: skip
    tasks = {name: task_entry(score) for name, score in zip("ab", rows[-1], strict=True)}
    return write_record(path, config, tasks, continual=summary.to_json())


def single_record(path: Path, seed: int, test: float, task: str = "toy", **train: Any) -> Path:
    """A record of a run on one task."""
    config = {"task": {"name": task}, "train": {"seed": seed, **train}}
    return write_record(path, config, {task: task_entry(test)})
