"""Runs for a report of each kind: single, joint, continual, search, 30 seeds, 100 tasks.

The first four are trained, for a moment. Further seeds are copies whose numbers differ, and the
stream of 100 tasks is written as training would write it.
"""

import json
import random
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from run_fixtures import make_run
from safetensors import safe_open
from safetensors.numpy import save_file
from search_fixtures import SearchedTopology

from thalnet_mtl import cli, load_config, train
from thalnet_mtl.config.load import dump_config
from thalnet_mtl.metrics.metric import ACCURACY
from thalnet_mtl.metrics.summary import StageCost, summarize
from thalnet_mtl.report.html import write

KINDS = ("single", "joint", "continual", "search", "seeds", "tasks")
SCENARIO = "task-incremental"
OWN = {"own": {"input": True, "output": True}}


class Example(NamedTuple):
    """The runs of a report, and the single-task runs that it compares them with."""

    runs: Sequence[Path]
    baselines: Sequence[Path] = ()


class Examples:
    """Runs in a folder, each kind trained or written when it is first asked for, if not there.

    Training takes ``length`` steps for each task: with 10, all kinds together take seconds.
    """

    def __init__(self, folder: Path, length: int):
        self.folder, self.length = folder, length
        self._known: dict[str, Example] = {}

    def __getitem__(self, kind: str) -> Example:
        if kind not in self._known:
            make: Callable[[], Example] = getattr(self, f"_{kind}")
            self._known[kind] = make()
        return self._known[kind]

    def report(self, kind: str, out: Path) -> Path:
        """Write the report of a kind."""
        return write(self[kind].runs, out, self[kind].baselines)

    def _single(self) -> Example:
        return Example([self._train("single", "digits", steps=2 * self.length)])

    def _joint(self) -> Example:
        late = {"verb": "attach", "name": "late", "read_by": ["trunk", "digits_out", "parity_out"]}
        run = self._train("joint", "joint/digits", steps=2 * self.length,
                          changes=[late | {"step": self.length}])  # fmt: skip
        alone = self._train("parity", "digits", task={"name": "digits_parity"})
        baselines = [*copies(self["single"].runs[0], 3), *copies(alone, 3)]
        return Example(copies(run, 3), baselines)

    def _continual(self) -> Example:
        growth = {"when": "per_task", "policy": "frozen", "modules": OWN}
        stream = {"name": "split", "of": "digits_rows"}
        model = {"modules": 3}
        run = self._train("continual", stream=stream, growth=growth, model=model)
        if not (run / "lesions.json").exists():
            with redirect_stdout(StringIO()):
                assert cli.main(["evaluate", str(run), "--lesions"]) == 0
        return Example([run])

    def _search(self) -> Example:
        return Example([self._train("search", "continual/search")])

    def _seeds(self) -> Example:
        return Example(copies(self["single"].runs[0], 30))

    def _tasks(self) -> Example:
        return Example([long_stream(self.folder / "tasks", 100)])

    def _train(self, name: str, *files: str, steps: int = 0, **sections: Any) -> Path:
        """Train a small network without a word."""
        if (self.folder / name).exists():
            return self.folder / name
        steps = steps or self.length
        values = {
            "model": {"features": 8, "budget": 0},
            "train": {"steps": steps, "batch": 16, "optimizer": "adam", "learning_rate": 0.01},
            "evaluate": {"every": max(1, steps // 4), "log_every": max(1, steps // 20),
                         "batches": 2},
        }  # fmt: skip
        for section, options in sections.items():
            is_table = isinstance(options, dict)
            values[section] = values.get(section, {}) | options if is_table else options
        with redirect_stdout(StringIO()):
            train(load_config(*files, **values), self.folder / name)
        return self.folder / name


def copies(run: Path, count: int) -> list[Path]:
    """Return a finished run as ``count`` runs of other seeds, with other numbers."""
    folders = [run.parent / f"{run.name}-seed{seed}" for seed in range(count)]
    for seed, folder in enumerate(folders):
        if folder.exists():
            continue
        noise = random.Random(seed)
        names = ("SHA256SUMS", ".lock", "checkpoint", "tensorboard")
        shutil.copytree(run, folder, ignore=shutil.ignore_patterns(*names))
        config = (folder / "config.yaml").read_text()
        assert "\n  seed: 0\n" in config
        (folder / "config.yaml").write_text(config.replace("\n  seed: 0\n", f"\n  seed: {seed}\n"))
        result = json.loads((folder / "result.json").read_text())
        result["seed"] = seed
        for task in result["tasks"].values():
            shift = noise.gauss(0, 0.02)
            for split in ("train", "validation", "test"):
                score = task[split][task["metric"]] + shift + noise.gauss(0, 0.01)
                task[split][task["metric"]] = min(1.0, score)
        (folder / "result.json").write_text(json.dumps(result))
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        for line in lines:
            if line["metric"] in ("loss", "accuracy"):
                line["value"] *= 1 + noise.gauss(0, 0.03)
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / "metrics.jsonl").write_text(text)
    return folders


def renamed(run: Path, folder: Path, names: Mapping[str, str]) -> Path:
    """Copy a finished run, with other words in all texts of its files, also within texts."""
    words = re.compile("|".join(rf"\b{re.escape(name)}(?!\w)" for name in names))
    swap = partial(words.sub, lambda match: names[match[0]])
    shutil.copytree(run, folder, ignore=shutil.ignore_patterns("SHA256SUMS", "checkpoint"))

    def rename(content: Any) -> Any:
        if isinstance(content, dict):
            return {rename(key): rename(value) for key, value in content.items()}
        if isinstance(content, list):
            return [rename(value) for value in content]
        return swap(content) if isinstance(content, str) else content

    for path in folder.glob("*.json"):
        path.write_text(json.dumps(rename(json.loads(path.read_text()))))
    log = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    lines = [json.dumps(rename(entry)) + "\n" for entry in log]
    (folder / "metrics.jsonl").write_text("".join(lines))
    config = yaml.safe_load((folder / "config.yaml").read_text())
    (folder / "config.yaml").write_text(yaml.safe_dump(rename(config), sort_keys=False))
    path = folder / "model" / "reading_weights.safetensors"
    with safe_open(path, "numpy") as file:
        about = {key: json.dumps(rename(json.loads(text))) for key, text in file.metadata().items()}
        weights = {rename(name): file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file(weights, path, metadata=about)
    return folder


def long_stream(folder: Path, count: int) -> Path:
    """Write a run on many tasks, one after another, each with a module that reads all others.

    Scores rise while a task is trained and sink afterwards, each by an amount of its own.
    """
    if folder.exists():
        return folder
    noise, steps = np.random.default_rng(0), 100
    tasks = [f"permuted_{number:03}" for number in range(count)]
    peaks, losses = noise.uniform(0.8, 0.98, count), noise.uniform(0, 0.008, count)
    rows: list[dict[str, float]] = [{}]
    for now in range(count):
        ages = now - np.arange(now + 1)
        scores = np.clip(peaks[: now + 1] - losses[: now + 1] * ages, 0.1, 1).tolist()
        rows.append(dict(zip(tasks, scores, strict=False)))

    topology, costs = SearchedTopology(tasks[0]), []
    for number, task in enumerate(tasks):
        if number:
            topology.step = steps * number
            topology.grow(task)
        total = 1170 * (number + 2)
        adds = dict.fromkeys(tasks[: number + 1], 30_000 * (number + 1))
        costs.append(StageCost(total, 1170, total - 1170, adds, 0))
    ends = [steps * (number + 1) for number in range(count)]
    summary = summarize(
        dict.fromkeys(tasks, ACCURACY), [[task] for task in tasks], rows, scenario=SCENARIO,
        strategy="naive", growth="per_task, frozen", ends=ends, stages=[costs[0], *costs],
    )  # fmt: skip

    scores = rows[-1].items()
    make_run(folder, {
        task: {"kind": "digits_rows", "test": test, "validation": test + 0.01, "train": test + 0.03}
        for task, test in scores
    })  # fmt: skip
    stream = [{"tasks": [task], "steps": steps} for task in tasks]
    growth = {"when": "per_task", "modules": OWN}
    variants = {
        task: {"name": "variant", "of": "digits_rows", "input_order": number + 1}
        for number, task in enumerate(tasks)
    }
    config = load_config(tasks=variants, stream=stream, growth=growth)
    (folder / "config.yaml").write_text(dump_config(config))
    result = json.loads((folder / "result.json").read_text())
    result |= {"continual": summary.to_json(), "steps": ends[-1], "best_step": ends[-1]}
    result["parameters"] = {"total": costs[-1].total, "trainable": 1170, "frozen": costs[-1].frozen}
    (folder / "result.json").write_text(json.dumps(result))
    (folder / "topology.json").write_text(json.dumps(topology.content | {"step": ends[-1]}))
    with (folder / "metrics.jsonl").open("w") as log:
        for end, row in zip(ends, rows[1:], strict=True):
            for part in (0.25, 0.5, 0.75, 1):
                step, newest = end - round(steps * (1 - part)), list(row)[-1]
                values = row | {newest: 0.1 + (row[newest] - 0.1) * part}
                line = {"step": step, "seconds": step / 100}
                loss = {"split": "train", "metric": "loss", "task": newest, "value": 2 - part}
                log.write(json.dumps(line | loss) + "\n")
                for task, value in values.items():
                    score = {"split": "validation", "metric": "accuracy", "value": value}
                    log.write(json.dumps(line | score | {"task": task}) + "\n")
    modules = [module["name"] for module in topology.content["modules"]]
    width = 2
    weights = {
        name: np.abs(noise.normal(0.2, 0.1, (width, width * len(modules)))).astype("float32")
        for name in modules
    }
    (folder / "model").mkdir()
    about = {"slots": json.dumps(dict.fromkeys(modules, width)), "dynamic": "[]"}
    save_file(weights, folder / "model" / "reading_weights.safetensors", metadata=about)
    return folder
