"""Tables of runs and of topologies for the terminal, made with rich."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Group, RenderableType

from thalnet_mtl.config.load import load_run_config
from thalnet_mtl.metrics.summary import FORMULAS
from thalnet_mtl.report import baselines
from thalnet_mtl.report.decisions import SCORES, candidate_rows, decision_rows
from thalnet_mtl.report.layout import Note, TextTable
from thalnet_mtl.report.rows import MANY, summary_table
from thalnet_mtl.report.topology import history_rows, module_rows, task_rows, totals
from thalnet_mtl.runs.decisions import count_decisions
from thalnet_mtl.runs.records import RunRecord, read_runs
from thalnet_mtl.runs.topology_file import read_topology


def runs_table(folders: Sequence[Path], baseline_folders: Sequence[Path] = ()) -> RenderableType:
    """Return runs side by side, a row for each task, and their gains over single-task baselines.

    Of a run of many tasks, rows are the mean and the worst of them.
    """
    runs = read_runs(folders)
    rows = summary_table(runs)
    mode = ["mode"] * any(row["mode"] not in ("single", "") for row in rows)
    note = ["note"] * any(row["note"] for row in rows)
    kinds = dict.fromkeys(m for run in runs for record in run.records for m in record.metrics)
    metric = ["metric"] * (len(kinds) > 1)
    unknown = ["task unknown"] * any(row["task unknown"] for row in rows)
    scores = ("train", "validation", "test", *unknown)
    columns = ("run", "task", *mode, "parameters", *metric, *scores, *note)
    parts: list[RenderableType] = [TextTable(rows, columns)]
    summarized = [run for run in runs if len(run.tasks) > MANY]
    if summarized:
        where = ", ".join(str(run.folder) for run in summarized)
        parts += ["", Note(f"All tasks: thalnet report, or accuracy_matrix.csv in {where}")]
    if len(kinds) == 1:
        parts += ["", *(Note(f"{kind.label}: {kind.direction}") for kind in kinds)]
    streams = [{"run": run.name} | run.continual.row() for run in runs if run.continual]
    if streams:
        parts += ["", TextTable(streams, list(streams[0])), "", Note(FORMULAS)]
    if baseline_folders:
        parts += ["", _baseline_table(runs, read_runs(baseline_folders))]
    return Group(*parts)


def topology_table(folder: Path) -> RenderableType:
    """Return the modules, tasks, totals and changes of a run; ten modules fit 80 columns."""
    topology = read_topology(folder)
    modules = module_rows(topology)
    sizes = ("module", "slot", "features", "context", "inputs", "output", "frozen", "parameters")
    tasks = ("task", "input modules", "output modules", "active", "frozen", "parameters")
    parts: list[RenderableType] = [
        TextTable(modules, sizes),
        "",
        TextTable(modules, ("module", "design", "reading", "tasks", "reads")),
        "",
        TextTable(task_rows(topology), tasks),
        "",
        Note(totals(topology)),
    ]
    if any(module.opened for module in topology.modules):
        parts.append(Note("+ a slot that was opened after the module was attached"))
    if topology.history:
        columns = ("#", "step", "time (s)", "change", "modules", "parameters")
        parts += ["", TextTable(history_rows(topology), columns)]
    if topology.decisions:
        stream = load_run_config(folder).stream
        decisions = decision_rows(topology.decisions, stream)
        parts += ["", TextTable(decisions, [name for name in decisions[0] if name != "score"])]
        candidates = [
            {"task": decision.task} | row
            for decision in topology.decisions
            for row in candidate_rows(decision)
        ]
        columns = ("task", "candidate", "new parameters", "steps", "score", "chosen")
        parts += ["", TextTable(candidates, columns), Note(SCORES)]
        count = count_decisions(stream, topology.decisions)
        parts += [Note(count.line())] if count else []
    return Group(*parts)


def _baseline_table(runs: Sequence[RunRecord], baseline_runs: Sequence[RunRecord]) -> Group:
    """Return skill and gain of every task, Δm of every run, and their formulas."""
    comparisons = baselines.compare_with_baselines(runs, baseline_runs)
    columns = ("run", "task", "metric", "test", "single-task", "n", "skill", "gain")
    notes = [baselines.FORMULAS, *baselines.caveats(comparisons)]
    grid = TextTable(baselines.table_rows(comparisons), columns)
    return Group(grid, "", *map(Note, notes))
