"""Compare runs in one HTML file that opens without a network.

Nothing is read but run directories, and nothing is concluded: values, seeds and limits stand
side by side, and a ranking is left to whoever has enough of them.
"""

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import yaml

from thalnet_mtl.errors import UserError
from thalnet_mtl.files import write_text
from thalnet_mtl.metrics import summary as continual
from thalnet_mtl.metrics.metric import Metric
from thalnet_mtl.metrics.significance import PAIRED_SEEDS
from thalnet_mtl.report import baselines as gains
from thalnet_mtl.report.figures.accuracy_matrix import picture
from thalnet_mtl.report.figures.curves import Group, Mark, Point, curves, results
from thalnet_mtl.report.figures.readings import panels, slot_means
from thalnet_mtl.report.rows import row_of
from thalnet_mtl.runs.records import PARTS, RunRecord, TaskRecord, group_by_data, read_runs
from thalnet_mtl.runs.topology_file import history_rows, module_rows, task_rows, totals

T = TypeVar("T")


def write(folders: Sequence[Path], out: Path, baselines: Sequence[Path] = ()) -> Path:
    """Write one HTML file on the runs in these directories; returns its path.

    Args:
        folders: of the runs.
        out: the file.
        baselines: of finished single-task runs, to set the others against.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    runs = read_runs(folders)
    if not runs:
        raise UserError("a report needs at least one run directory.")
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found = gains.compare_with_baselines(runs, read_runs(baselines)) if baselines else {}
    page = environment.get_template("report.html.j2").render(
        title=runs[0].name if len(runs) == 1 else "Comparison of runs",
        runs=runs,
        sections=_sections(runs),
        formulas=gains.FORMULAS,
        gains=gains.table_rows(found),
        gain_notes=gains.caveats(found),
        streams=[_stream(run) for run in runs if run.continual],
        stream_formulas=continual.FORMULAS,
        readings=[reading for few in _by(runs, _key) if (reading := _reading(few))],
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
    for members in group_by_data([record for run in runs for record in run.records]):
        alike = _by(members, lambda record: _key(record.run) + record.task)
        keys = [_key(few[0].run, "task") for few in alike]
        # Two tasks of one joint run may have the same data.
        styles = _styles([f"{key} {keys[:n].count(key)}" for n, key in enumerate(keys)], known)
        metric = next((record.metric for record in members if record.metric), None)
        groups = [
            _group(label, style, few, metric)
            for label, style, few in zip(_labels(alike), styles, alike, strict=True)
        ]
        marks = _marks(members)
        shown = metric and any(group.losses for group in groups)
        sections.append({
            "title": _title(members),
            "metric": metric,
            "groups": [
                {"group": group, "runs": few, "rows": [row_of(record) for record in few],
                 "mean": _mean(few, metric)}
                for group, few in zip(groups, alike, strict=True)
            ],
            "notes": _notes(members, alike),
            "marks": marks,
            "joint": any(len(record.run.tasks) > 1 for record in members),
            "curves": shown and metric and curves(groups, metric, marks),
            "results": metric and any(g.points for g in groups) and results(groups, metric),
        })  # fmt: skip
    return sections


def _costs(stage: Mapping[str, Any], tasks: Sequence[str]) -> str:
    """For a sequence of each of these tasks."""
    known = stage["multiply_adds"]
    return ", ".join(f"{task} {known[task]:,}" for task in tasks if task in known)


def _kilobytes(count: int | None) -> str:
    """Of what a strategy keeps, where we know."""
    return "–" if count is None else f"{count / 1e3:,.1f}"


def _title(records: Sequence[TaskRecord]) -> str:
    """The label of the data, and the name that all of the runs give to the task."""
    label = next((record.label for record in records if record.result), records[0].label)
    names = {record.task for record in records if record.run.config["stream"]}
    return f"{names.pop()} ({label})" if len(names) == 1 and label not in names else label


def _stream(run: RunRecord) -> dict[str, Any]:
    """What a run over several experiences came to."""
    content, metrics = run.continual, {r.task: r.metric for r in run.records if r.metric}
    curves = {r.task: r.curve("validation", r.metric.name) for r in run.records if r.metric}
    names = ("total", "trainable", "frozen")
    stages = [
        {"after": f"experience {n}: {', '.join(content['trained'][n - 1])}" if n else "untrained"}
        | {name: f"{stage[name]:,}" for name in names}
        | {"multiply-adds of": _costs(stage, content["trained"][max(n, 1) - 1])}
        | {"stored (kB)": _kilobytes(stage["stored_bytes"])}
        for n, stage in enumerate(content["stages"])
    ]
    trained, scores, ends = (content[key] for key in ("trained", "scores", "ends"))
    return {
        "name": run.name,
        "row": continual.row(content) | continual.along(content, metrics, curves),
        "why": {k: m["why"] for k, m in content["measures"].items() if "why" in m},
        "stages": stages,
        "picture": picture(metrics, trained, scores, curves, ends),
    }


def _marks(records: Sequence[TaskRecord]) -> list[Mark]:
    """The changes that all of the runs went through, at their mean times; else none."""
    histories = [record.run.history for record in records]
    kinds = {json.dumps([[c["step"], c["verb"], c["about"]] for c in h]) for h in histories}
    if len(kinds) > 1:
        return []
    return [
        Mark(float(changes[0]["step"]), float(np.mean([change["seconds"] for change in changes])))
        for changes in zip(*histories, strict=True)
    ]


def _key(run: RunRecord, *without: str) -> str:
    """What is configured, without the seed and without some sections, to compare runs by."""
    config = {name: value for name, value in run.config.items() if name not in without}
    config["train"] = config["train"] | {"seed": None}
    return json.dumps(config, sort_keys=True)


def _by(things: Sequence[T], key: Callable[[T], str]) -> list[list[T]]:
    """Things with equal keys together, in the order in which the first of them came."""
    groups: dict[str, list[T]] = {}
    for thing in things:
        groups.setdefault(key(thing), []).append(thing)
    return list(groups.values())


def _styles(keys: Sequence[str], known: dict[str, int]) -> list[int]:
    """Different within a task; what was trained alike looks as in the tasks before, if it can."""
    kept = {known[key]: key for key in reversed(keys) if key in known}
    free = (style for style in count() if style not in kept)
    styles = [known[key] if kept.get(known.get(key, -1)) == key else next(free) for key in keys]
    known |= {key: style for key, style in zip(keys, styles, strict=True) if key not in known}
    return styles


def _labels(alike: Sequence[Sequence[TaskRecord]]) -> list[str]:
    """A run alone keeps its name; seeds are called by their body and what sets them apart."""
    labels = []
    for few in alike:
        run = few[0].run
        if len(few) == 1:
            labels.append(run.name)
            continue
        body = run.config["model"]["body"]
        rivals = [r[0].run for r in alike if r[0].run.config["model"]["body"] == body]
        own = [run.mode] if any(rival.mode != run.mode for rival in rivals) else []
        own += [
            f"{len(run.config[name])} {name}"
            for name in ("modules", "changes", "stream")
            if any(len(rival.config[name]) != len(run.config[name]) for rival in rivals)
        ]
        own += [
            f"{name} {value}"
            for section in ("model", "train", "growth", "strategy", "evaluate")
            for name, value in run.config[section].items()
            if name != "seed" and any(rival.config[section][name] != value for rival in rivals)
        ]
        labels.append(", ".join([body, *own[:2], *(["…"] if len(own) > 2 else [])]))
    return [
        label if labels.count(label) == 1 else f"{few[0].run.name}: {few[0].task}"
        for label, few in zip(labels, alike, strict=True)
    ]


def _group(label: str, style: int, records: Sequence[TaskRecord], metric: Metric | None) -> Group:
    losses = [record.curve("train", "loss") for record in records]
    scores = [record.curve("validation", metric.name) for record in records] if metric else []
    points = [
        Point(r.run.name, r.run.result["parameters"]["total"], *map(r.score, PARTS))
        for r in records
        if r.run.result
    ]
    return Group(label, style, [c for c in losses if len(c)], [c for c in scores if len(c)], points)


def _mean(records: Sequence[TaskRecord], metric: Metric | None) -> dict[str, Any] | None:
    """Mean, least and largest of the finished runs, where there are several."""
    done = [record for record in records if record.result]
    if len(done) < 2 or metric is None:
        return None
    seeds = {record.run.seed for record in done}
    number = f"{len(done)} seeds"
    if len(seeds) < len(done):
        number = f"{len(done)} runs, {len(seeds)} seed{'s' if len(seeds) > 1 else ''}"
    values = {part: [record.score(part) for record in done] for part in PARTS}
    return {"count": number} | {
        part: [metric.format(float(f(values[part]))) for f in (np.mean, min, max)] for part in PARTS
    }


def _notes(records: Sequence[TaskRecord], alike: Sequence[Sequence[TaskRecord]]) -> list[str]:
    """What a reader has to know before comparing these runs."""
    runs = [record.run for record in records]
    notes = []
    done = [{record.run.seed for record in few if record.result} for few in alike]
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
            "task": ", ".join(record.title for record in run.records),
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
    if "packages" in about:
        about["packages"] = [f"{k} {v}" for k, v in about["packages"].items() if v]
    files = about.pop("data", {})
    about |= {
        f"data: {name}": [f"{k} {v}" for k, v in sums.items()] for name, sums in files.items()
    }
    structure = run.structure
    return {
        "name": run.name,
        "folder": str(run.folder),
        "command": f"thalnet train {shlex.quote(str(run.folder / 'config.yaml'))}",
        "config": yaml.safe_dump(run.config, sort_keys=False),
        "environment": about,
        "modules": module_rows(structure) if structure else [],
        "tasks": task_rows(structure) if structure else [],
        "totals": totals(structure) if structure else "",
        "history": history_rows(structure) if structure else [],
    }
