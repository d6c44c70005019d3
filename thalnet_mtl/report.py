"""Compare runs, in a table or in one HTML file that opens without a network.

Nothing is read but run directories, and nothing is concluded: values, seeds and limits stand
side by side, and a ranking is left to whoever has enough of them.
"""

import json
import os
import shlex
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from thalnet_mtl.checkpoint import write_text
from thalnet_mtl.config import UserError
from thalnet_mtl.figures import Group, Point, curves, panels, results, slot_means
from thalnet_mtl.metrics import Metric
from thalnet_mtl.records import PARTS, RunRecord, distinct, read_run, row_of, table

__all__ = ["RunRecord", "read_run", "table", "write"]

PAIRED_SEEDS = 6  # below it even a sign test cannot reach 5 %


def write(folders: Sequence[Path], out: Path) -> Path:
    """Write one HTML file on the runs in these directories; returns its path."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    once = {os.path.abspath(folder): folder for folder in folders}
    runs = distinct([read_run(Path(folder)) for folder in once.values()])
    if not runs:
        raise UserError("a report needs at least one run directory.")
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html.j2").render(
        title=runs[0].name if len(runs) == 1 else "Comparison of runs",
        runs=runs,
        sections=_sections(runs),
        details=[_details(run) for run in runs],
    )
    try:
        write_text(out, page)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}.") from error
    return out


def _sections(runs: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """One a task: only runs on the same data are set side by side."""
    known: dict[str, int] = {}
    sections = []
    for members in _by(runs, lambda run: _key(run, "model", "train", "evaluate", data=True)):
        alike = _by(members, _key)
        styles = _styles([_key(few[0], "task") for few in alike], known)
        metric = next((run.metric for run in members if run.metric), None)
        groups = [
            _group(label, style, few, metric)
            for label, style, few in zip(_labels(alike), styles, alike, strict=True)
        ]
        sections.append({
            "title": next((run.task for run in members if run.result), members[0].task),
            "metric": metric,
            "groups": [
                {"group": group, "runs": few, "rows": [row_of(run) for run in few],
                 "mean": _mean(few, metric), "reading": _reading(few)}
                for group, few in zip(groups, alike, strict=True)
            ],
            "notes": _notes(members, alike),
            "curves": metric and any(g.losses for g in groups) and curves(groups, metric),
            "results": metric and any(g.points for g in groups) and results(groups, metric),
        })  # fmt: skip
    return sections


def _key(run: RunRecord, *without: str, data: bool = False) -> str:
    """What is configured, without the seed and without some sections, to compare runs by."""
    config = {name: value for name, value in run.config.items() if name not in without}
    if "train" in config:
        config["train"] = config["train"] | {"seed": None}
    return json.dumps([config, run.environment.get("data") if data else None], sort_keys=True)


def _by(runs: Sequence[RunRecord], key: Callable[[RunRecord], str]) -> list[list[RunRecord]]:
    """Runs with equal keys together, in the order in which the first of them came."""
    groups: dict[str, list[RunRecord]] = {}
    for run in runs:
        groups.setdefault(key(run), []).append(run)
    return list(groups.values())


def _styles(keys: Sequence[str], known: dict[str, int]) -> list[int]:
    """Different within a task; what was trained alike looks as in the tasks before, if it can."""
    kept = {known[key]: key for key in reversed(keys) if key in known}
    free = (style for style in count() if style not in kept)
    styles = [known[key] if kept.get(known.get(key, -1)) == key else next(free) for key in keys]
    known |= {key: style for key, style in zip(keys, styles, strict=True) if key not in known}
    return styles


def _labels(alike: Sequence[Sequence[RunRecord]]) -> list[str]:
    """A run alone keeps its name; seeds are called by their body and what sets them apart."""
    labels = []
    for few in alike:
        if len(few) == 1:
            labels.append(few[0].name)
            continue
        body = few[0].config["model"]["body"]
        rivals = [other[0].config for other in alike if other[0].config["model"]["body"] == body]
        own = [
            f"{name} {value}"
            for section in ("model", "train", "evaluate")
            for name, value in few[0].config[section].items()
            if name != "seed" and any(rival[section][name] != value for rival in rivals)
        ]
        labels.append(", ".join([body, *own[:2], *(["…"] if len(own) > 2 else [])]))
    return labels


def _group(label: str, style: int, runs: Sequence[RunRecord], metric: Metric | None) -> Group:
    losses = [run.curve("train", "loss") for run in runs]
    scores = [run.curve("validation", metric.name) for run in runs] if metric else []
    points = []
    for run in runs:
        if run.result and metric:
            values = (run.result[part][metric.name] for part in PARTS)
            points.append(Point(run.name, run.result["parameters"]["total"], *values))
    return Group(label, style, [c for c in losses if len(c)], [c for c in scores if len(c)], points)


def _mean(runs: Sequence[RunRecord], metric: Metric | None) -> dict[str, Any] | None:
    """Mean, least and largest of the finished runs, where there are several."""
    results = [run.result for run in runs if run.result]
    if len(results) < 2 or metric is None:
        return None
    seeds = {result["seed"] for result in results}
    number = f"{len(results)} seeds"
    if len(seeds) < len(results):
        number = f"{len(results)} runs, {len(seeds)} seed{'s' if len(seeds) > 1 else ''}"
    values = {part: [result[part][metric.name] for result in results] for part in PARTS}
    return {"count": number} | {
        part: [metric.format(f(values[part])) for f in (np.mean, min, max)] for part in PARTS
    }


def _notes(runs: Sequence[RunRecord], alike: Sequence[Sequence[RunRecord]]) -> list[str]:
    """What a reader has to know before comparing these runs."""
    notes = []
    done = [{run.seed for run in few if run.result} for few in alike]
    paired = sorted(set.intersection(*done))
    if len(alike) > 1 and len(paired) < PAIRED_SEEDS:
        notes.append(
            f"{len(runs)} runs of {len(alike)} configurations, which have {len(paired)} finished "
            f"seed{'' if len(paired) == 1 else 's'} in common: fewer than {PAIRED_SEEDS} paired "
            f"seeds do not support a ranking."
        )
    limited = [run for run in runs if run.limit]
    if limited:
        names = ", ".join(run.name for run in limited) if len(limited) < len(runs) else "All runs"
        notes.append(f"{names}: scored {limited[0].limit}, not on all of the data.")
    machines = {tuple(run.environment.get(k) for k in ("processor", "threads", "device"))
                for run in runs}  # fmt: skip
    if len(machines) > 1:
        notes.append("The runs come from different hardware; their times cannot be compared.")
    commits = {run.environment.get("commit") for run in runs}
    if len(commits) > 1:
        names = ", ".join(sorted(_short_commit(c) for c in commits))
        notes.append(f"The runs come from different commits of the code: {names}.")
    return notes


def _short_commit(commit: str | None) -> str:
    """A + is kept: it says that files had been changed."""
    return commit[:8] + "+" * commit.endswith("+") if commit else "not recorded"


def _reading(runs: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """Images and block means of the runs of a group that have readings."""
    return [
        {
            "name": run.name,
            "task": run.task,
            "seed": run.seed,
            "dynamic": bool(run.dynamic),
            "modules": list(run.reading_weights),
            "panels": panels(run.reading_weights, run.slots),
            "means": slot_means(run.reading_weights, run.slots),
        }
        for run in runs
        if run.reading_weights
    ]


def _details(run: RunRecord) -> dict[str, Any]:
    """How a run came about, and the command that repeats it."""
    about = {key: value for key, value in run.environment.items() if value not in (None, {})}
    for name in ("packages", "data"):
        if name in about:
            about[name] = [f"{k} {v}" for k, v in about[name].items() if v]
    return {
        "name": run.name,
        "folder": str(run.folder),
        "command": f"thalnet train {shlex.quote(str(run.folder / 'config.yaml'))}",
        "config": yaml.safe_dump(run.config, sort_keys=False),
        "environment": about,
    }
