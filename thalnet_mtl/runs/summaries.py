"""Runs as a table needs them: configuration, seed and result, without logs and weights.

A run is read from its directory, or from a record: a JSON file that keeps a run after its directory
is gone. The keys of a record are ``config`` (a tree as in ``config.yaml``, where defaults may be
left out) and ``result`` (the content of ``result.json``), or ``failed``, the error that ended the
run. ``curves`` may hold its validation scores, by task, as lists ``validation_step`` and
``validation_METRIC``. Further keys are ignored.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from thalnet_mtl.config.load import flatten, load_run_config
from thalnet_mtl.config.overlay import overlay
from thalnet_mtl.config.schema import Config, NamedTaskConfig
from thalnet_mtl.errors import UserError
from thalnet_mtl.files import read_json, suggest_path
from thalnet_mtl.json_fields import typed
from thalnet_mtl.metrics.metric import list_names
from thalnet_mtl.runs.log import read_log
from thalnet_mtl.runs.names import without_trials
from thalnet_mtl.runs.records import RunRecord
from thalnet_mtl.runs.results import RunResult

TAIL = 65_536  # bytes at the end of a log, which hold its last line
SEED = re.compile(r"[-_,.]?(?:train\.)?seed[=_]?\d+")
SOURCES = "run directories, folders of them, or records of runs"


@dataclass(frozen=True)
class RunSummary:
    """A run, finished or not: ``result`` is None for the reason in ``problem``."""

    path: Path  # of its directory or record
    config: Config
    result: RunResult | None
    problem: str = ""
    recorded_curves: Mapping[str, Any] | None = None  # of a record

    @property
    def seed(self) -> int:
        """Seed of the run."""
        return self.config.train.seed

    @property
    def name(self) -> str:
        """Name of the directory or record without the seed: that of a sweep if nothing is left."""
        path = Path(os.path.abspath(self.path))
        stem = path.stem if self.recorded_curves is not None else path.name
        return SEED.sub("", stem) or path.parent.name

    @property
    def tasks(self) -> Mapping[str, NamedTaskConfig]:
        """Configurations of the tasks, by their names in the run."""
        return self.config.named_tasks

    @cached_property
    def fields(self) -> dict[str, Any]:
        """Values of the configuration by path, such as ``train.strategy``.

        Those of ``task`` are left out where there are ``tasks``, since they have no effect.
        """
        values = flatten(self.config)
        if self.config.tasks:
            values = {name: v for name, v in values.items() if not name.startswith("task.")}
        return values

    def curve(self, task: str, metric: str) -> list[tuple[int, float]]:
        """Return the steps and validation scores of a task; [] if there are none."""
        if self.recorded_curves is not None:
            curve = self.recorded_curves.get(task, {})
            steps, scores = curve.get("validation_step", ()), curve.get(f"validation_{metric}", ())
            return list(zip(steps, scores, strict=True))
        log = read_log(self.path / "metrics.jsonl", self.tasks)
        return [(int(n), float(score)) for n, _, score in log.curve(task, "validation", metric)]


def summary_of(run: RunRecord) -> RunSummary:
    """Return the summary of a run that was read with its log."""
    problem = "" if run.result else f"unfinished at step {run.log.step:,}"
    return RunSummary(run.folder, run.config, run.result, problem)


def read_summaries(paths: Sequence[Path]) -> tuple[list[RunSummary], list[str]]:
    """Read the runs and records among some paths, each once, and notes on what was left out.

    A folder that is neither is replaced by all runs and records in it.

    Raises:
        UserError: there is no run at all, a path does not exist, or a file is damaged.
    """
    runs: dict[str, RunSummary] = {}
    problems, notes = list[str](), list[str]()
    for path in paths:
        files, trials = without_trials(_candidates(path), path)
        problems += trials
        candidates = {os.path.realpath(file): file for file in files}
        read = {key: _read(file) for key, file in candidates.items() if key not in runs}
        new = {key: run for key, run in read.items() if run}
        if not new and not candidates.keys() & runs.keys() and not trials:
            kind = "holds no run" if path.is_dir() else "is neither a run directory nor a record"
            problems.append(f"{path} {kind}")
        runs |= new
        notes += [line for file in candidates.values() for line in _not_begun(file)]
    if not runs:
        raise UserError("; ".join(problems) + f". Name {SOURCES}.")
    return list(runs.values()), [*(f"Left out: {problem}" for problem in problems), *notes]


def _not_begun(path: Path) -> list[str]:
    """Return a line on the runs of a sweep that have no directory, by its ``sweep.json``."""
    names = [
        name for name in _sweep_entries(path) if not (path.parent / name / "config.yaml").exists()
    ]
    return [f"{path.parent}: not begun, of the sweep: {list_names(names)}"] if names else []


def _sweep_entries(path: Path) -> Mapping[str, Any]:
    """Return the entries of ``sweep.json`` by the name of the run; {} for another file."""
    content = read_json(path) if path.name == "sweep.json" and path.exists() else {}
    runs = content.get("runs") if isinstance(content, dict) else None
    return runs if isinstance(runs, dict) else {}


def _candidates(path: Path) -> list[Path]:
    """Return the run directories, and the files that may be records, at a path."""
    if (path / "config.yaml").exists() or path.is_file():
        return [path]
    if not path.is_dir():
        hint = suggest_path(path)
        raise UserError(f"no run at '{path}': it does not exist. Name {SOURCES}.{hint}")
    return sorted(_walk(path), key=_natural)


def _walk(folder: Path) -> Iterator[Path]:
    """Yield the runs in a folder, and JSON files outside of them."""
    for path in folder.iterdir():
        if path.is_dir():
            yield from [path] if (path / "config.yaml").exists() else _walk(path)
        elif path.suffix == ".json":
            yield path


def _natural(path: Path) -> list[Any]:
    """Return a key that sorts numbers in a path by their size."""
    parts = re.split(r"(\d+)", str(path))
    return [int(part) if number % 2 else part for number, part in enumerate(parts)]


def _read(path: Path) -> RunSummary | None:
    """Read a run directory or a record; None for a file that is no record."""
    if path.is_dir():
        config = load_run_config(path)
        file = path / "result.json"
        if not file.exists():
            entry = _sweep_entries(path.parent / "sweep.json").get(path.name, {})
            failed = entry.get("status") == "failed" if isinstance(entry, dict) else False
            problem = f"failed: {entry.get('error')}" if failed else f"unfinished{_last_step(path)}"
            return RunSummary(path, config, None, problem)
        return RunSummary(path, config, RunResult.load(path))
    content = read_json(path) if path.suffix == ".json" else None
    if not isinstance(content, dict) or "config" not in content:
        return None
    return read_record(content, path)


def read_record(content: Mapping[str, Any], path: Path) -> RunSummary:
    """Read the content of a record; ``path`` names it."""
    config = overlay(Config(), content["config"], str(path))
    curves = typed(content.get("curves", {}), Mapping[str, Mapping[str, Any]], f"{path}: curves")
    if "result" not in content:
        failed = typed(content.get("failed", "no result"), str, f"{path}: failed")
        return RunSummary(path, config, None, f"failed: {failed}", curves)
    result = RunResult.from_json(content["result"], f"{path}: result")
    if missing := [task for task in config.named_tasks if task not in result.tasks]:
        raise UserError(f"{path} is damaged: its result has no task '{missing[0]}'.")
    return RunSummary(path, config, result, recorded_curves=curves)


def _last_step(folder: Path) -> str:
    """Return ' at step N' of an unfinished run, by the last whole line of its log; '' for none."""
    path = folder / "metrics.jsonl"
    if not path.exists():
        return ", nothing logged"
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL))
        *lines, _ = file.read().split(b"\n")
    try:
        return f" at step {json.loads(lines[-1])['step']:,}" if lines else ", nothing logged"
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path} is damaged: its last line is no measurement.") from None
