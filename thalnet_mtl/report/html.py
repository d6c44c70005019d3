"""Reports of runs, each a single HTML file that opens without a network.

A report reads run directories only. It shows values, seeds and caveats side by side and ranks
nothing.
"""

import hashlib
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from thalnet_mtl.config.overlay import as_plain
from thalnet_mtl.errors import UserError
from thalnet_mtl.files import write_text
from thalnet_mtl.metrics.summary import (
    FORMULAS,
    ContinualSummary,
    StageCost,
    format_score,
    shared_metric,
)
from thalnet_mtl.registry import source_checksum
from thalnet_mtl.report import baselines
from thalnet_mtl.report.decisions import SCORES, candidate_rows, decision_rows
from thalnet_mtl.report.headline import headline_table, headlines
from thalnet_mtl.report.panel import PAGE, scripts, security_policy
from thalnet_mtl.report.panels.curves import curves_panel
from thalnet_mtl.report.panels.gains import gains_panel
from thalnet_mtl.report.panels.graph import graph_panel
from thalnet_mtl.report.panels.lesions import lesions_panel
from thalnet_mtl.report.panels.matrix import matrix_panel
from thalnet_mtl.report.panels.readings import readings_panel
from thalnet_mtl.report.panels.splits import sizes_panel, splits_panel
from thalnet_mtl.report.results import configurations, every_run
from thalnet_mtl.report.rows import fold_runs
from thalnet_mtl.report.sections import make_sections
from thalnet_mtl.report.task_views import task_views
from thalnet_mtl.report.topology import history_rows, module_rows, task_rows, totals
from thalnet_mtl.runs.checksums import READ, RESULT, SUMS, check_sums
from thalnet_mtl.runs.lesions import LESIONS
from thalnet_mtl.runs.records import RunRecord, read_runs
from thalnet_mtl.runs.run_files import FINGERPRINTS

TILED = 2  # configurations whose numbers stand in tiles; of more, in a table


def write(folders: Sequence[Path], out: Path, baseline_folders: Sequence[Path] = ()) -> Path:
    """Write a report and return its path; one that was made of the same files stays as it is.

    Args:
        folders: Run directories.
        out: The HTML file.
        baseline_folders: Directories of finished single-task runs to compare the runs with.

    Raises:
        UserError: there are no runs, or one of them is damaged.
        OSError: ``out`` cannot be written.
    """
    if not folders:
        raise UserError("a report needs at least one run directory.")
    inputs = _checksum_of_inputs(folders, baseline_folders)
    old = out.read_text(encoding="utf-8", errors="replace") if out.is_file() else ""
    if inputs and inputs in old:
        return out
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    runs = read_runs(folders)
    environment = Environment(
        loader=FileSystemLoader(PAGE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    comparisons = {}
    if baseline_folders:
        comparisons = baselines.compare_with_baselines(runs, read_runs(baseline_folders))
    sections, groups = make_sections(runs), fold_runs(runs)
    tasks = task_views(sections)
    code = scripts()
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "ensure_ascii": False,
                                                 "separators": (",", ":")}  # fmt: skip
    page = environment.get_template("report.html.j2").render(
        inputs=inputs,
        policy=security_policy(code),
        style=(PAGE / "style.css").read_text(encoding="utf-8"),
        scripts=code,
        title=runs[0].name if len(runs) == 1 else "Comparison of runs",
        runs=runs,
        sections=sections,
        task_count=len(tasks),
        notes=list(dict.fromkeys(note for section in sections for note in section["notes"])),
        curves=curves_panel(tasks),
        generalization=[p for p in (splits_panel(tasks), sizes_panel(tasks)) if p],
        configurations=configurations(sections),
        every_run=every_run(sections),
        formulas=baselines.FORMULAS,
        gains=baselines.table_rows(comparisons),
        gain_notes=baselines.caveats(comparisons),
        gain_bars=gains_panel(fold_runs([r for r in runs if r.name in comparisons]), comparisons),
        glance=[
            {"name": group.name, "runs": len(group.runs), "numbers": headlines(group)}
            for group in groups
        ],
        glance_table=headline_table(groups) if len(groups) > TILED else None,
        networks=[
            _network(run, f" of {run.name}" if len(runs) > 1 else "")
            for run in runs
            if run.topology or run.continual
        ],
        stream_formulas=FORMULAS,
        scores=SCORES,
        readings=[
            panel for group in fold_runs(runs) if (panel := readings_panel(group.name, group.runs))
        ],
        lesions=[
            panel for group in fold_runs(runs) if (panel := lesions_panel(group.name, group.runs))
        ],
        details=[_details(run) for run in runs],
    )
    if page != old:
        write_text(out, page)
    return out


def _checksum_of_inputs(folders: Sequence[Path], baseline_folders: Sequence[Path]) -> str:
    """Return a checksum of what a report on finished runs is made of; '' if one is unfinished.

    Raises:
        UserError: a file of a run has changed since the run finished.
    """
    digest = hashlib.sha256(source_checksum().encode())
    for folder in (*folders, *baseline_folders):
        digest.update(f"{folder} {os.path.abspath(folder)} {folder in folders}\n".encode())
        if not (folder / RESULT).is_file() or not (folder / SUMS).is_file():
            return ""
        check_sums(folder, READ)
        digest.update((folder / SUMS).read_bytes())
        if (folder / LESIONS).is_file():
            digest.update((folder / LESIONS).read_bytes())
    return digest.hexdigest()


def _network(run: RunRecord, of: str) -> dict[str, Any]:
    """Return what is shown of the network of a run: its graph, its stream, and its decisions.

    Titles end with ``of``: ' of ' and the name of the run, or '' if it is the only one.
    """
    summary, topology = run.continual, run.topology
    content: dict[str, Any] = {"stream": None, "graph": None, "decisions": []}
    if summary:
        content["stream"] = _stream(run, summary, of)
    if topology:
        content["graph"] = graph_panel(run, topology, "Modules" + of)
        content["decisions"] = [
            {
                "title": f"{decision.task}: {decision.chosen.candidate}",
                "step": f"{decision.step:,}",
                "candidates": candidate_rows(decision, by_round=True),
            }
            for decision in topology.decisions
        ]
        content["decision_rows"] = decision_rows(topology.decisions, run.config.stream)
    return content


def _stream(run: RunRecord, summary: ContinualSummary, of: str) -> dict[str, Any]:
    """Return the measures, the costs and the matrix of a run over several experiences."""
    metrics = {record.task: record.metric for record in run.records if record.metric}
    curves = {name: run.log.drawn(name, "validation", m.name) for name, m in metrics.items()}
    guesses = {r.task: r.result.guess_score("test") for r in run.records if r.result}
    worst = summary.minimum_accuracy(metrics, curves).mean
    shared = shared_metric(metrics)
    return {
        "row": summary.row(metrics) | {"min-ACC": format_score(worst, shared)},
        "why": {name: measure.why for name, measure in summary.measures.items() if measure.why},
        "stages": [_stage_row(summary, number) for number in range(len(summary.stages))],
        "matrix": matrix_panel("Test scores" + of, summary, metrics, guesses),
    }


def _stage_row(summary: ContinualSummary, number: int) -> dict[str, str]:
    """Return the size and the cost of the network after an experience; 0 is before training."""
    stage, tasks = summary.stages[number], summary.trained[max(number, 1) - 1]
    stored = "–" if stage.stored_bytes is None else f"{stage.stored_bytes / 1e3:,.1f}"
    return {
        "after": f"experience {number}: {', '.join(tasks)}" if number else "untrained",
        "total": f"{stage.total:,}",
        "trainable": f"{stage.trainable:,}",
        "frozen": f"{stage.frozen:,}",
        "multiply-adds": _multiply_adds(stage, tasks),
        "stored (kB)": stored,
    }


def _multiply_adds(stage: StageCost, tasks: Sequence[str]) -> str:
    """Format the multiply-adds of one sequence of each task that has a head."""
    counts = stage.multiply_adds
    return ", ".join(f"{task} {counts[task]:,}" for task in tasks if task in counts)


def _details(run: RunRecord) -> dict[str, Any]:
    """Return the configuration, environment and topology of a run, and a command to repeat it."""
    topology = run.topology
    folder = Path(run.name) if run.folder.is_absolute() else run.folder
    return {
        "name": run.name,
        "folder": str(folder),
        "command": f"thalnet train {shlex.quote(str(folder / 'config.yaml'))}",
        "config": yaml.safe_dump(_without_folders(as_plain(run.config)), sort_keys=False),
        "environment": _environment_rows(run.environment),
        "modules": module_rows(topology) if topology else [],
        "tasks": task_rows(topology) if topology else [],
        "totals": totals(topology) if topology else "",
        "history": history_rows(topology) if topology else [],
    }


def _without_folders(tree: Any) -> Any:
    """Return a configuration with absolute paths cut: a report may be published."""
    if isinstance(tree, dict):
        return {key: _without_folders(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_without_folders(value) for value in tree]
    is_path = isinstance(tree, str | Path) and Path(tree).expanduser().is_absolute()
    return f".../{Path(tree).name}" if is_path else tree


def _environment_rows(environment: Mapping[str, Any]) -> dict[str, Any]:
    """Return the known facts of an environment; packages and checksums as lists of lines."""
    rows = {key: value for key, value in environment.items() if value not in (None, {})}
    for name in (*FINGERPRINTS, "lineage"):
        rows.pop(name, None)
    if "packages" in rows:
        rows["packages"] = [
            f"{name} {version}" for name, version in rows["packages"].items() if version
        ]
    checksums = rows.pop("data", {})
    return rows | {
        f"data: {source}": [f"{file} {checksum}" for file, checksum in files.items()]
        for source, files in checksums.items()
    }
