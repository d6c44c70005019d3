"""What the command line prints of runs, as tables of rich."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Group, JustifyMethod, RenderableType
from rich.table import Table
from rich.text import Text

from thalnet_mtl.metrics import summary as continual
from thalnet_mtl.report import baselines as gains
from thalnet_mtl.report.rows import table
from thalnet_mtl.runs.records import RunRecord, read_runs
from thalnet_mtl.runs.topology_file import (
    history_rows,
    module_rows,
    read_structure,
    task_rows,
    totals,
)
from thalnet_mtl.sweep.plan import PlannedRun
from thalnet_mtl.sweep.summary import summarize

NUMBERS = {"parameters", "train", "validation", "test", "single-task", "n", "skill", "gain",
           "features", "context", "inputs", "#", "step", "time (s)", "slot"}  # fmt: skip


def runs_table(folders: Sequence[Path], baselines: Sequence[Path] = ()) -> RenderableType:
    """Runs side by side, a row a task; below, if there are baselines, what they say of the runs."""
    runs = read_runs(folders)
    rows = table(runs)
    joint = ["mode"] * any(row["mode"] != "single" for row in rows)
    note = ["note"] * any(row["note"] for row in rows)
    columns = ("run", "task", *joint, "parameters", "train", "validation", "test", *note)
    parts: list[RenderableType] = [_table(rows, columns)]
    streams = [{"run": run.name} | continual.row(run.continual) for run in runs if run.continual]
    if streams:
        parts += ["", _table(streams, list(streams[0])), "", Text(continual.FORMULAS)]
    if baselines:
        parts += ["", _against(runs, read_runs(baselines))]
    return Group(*parts)


def sweep_table(
    plan: Sequence[PlannedRun], status: Mapping[str, str], out: Path, failures: Sequence[str] = ()
) -> RenderableType:
    """The points of a sweep, a row a task, and how to read them; a small sweep fits 80 columns."""
    rows, notes = summarize(plan, status, out)
    return Group(_table(rows, list(rows[0])), "", *map(Text, [*notes, *failures]))


def topology_table(folder: Path) -> RenderableType:
    """Modules, who reads whom, tasks, totals and changes; ten modules fit 80 columns."""
    structure = read_structure(folder)
    modules = module_rows(structure)
    sizes = ("module", "slot", "features", "context", "inputs", "output", "frozen", "parameters")
    parts: list[RenderableType] = [
        _table(modules, sizes),
        "",
        _table(modules, ("module", "design", "reading", "tasks", "reads")),
        "",
        _table(task_rows(structure), ("task", "into", "out of", "active", "frozen", "parameters")),
        "",
        Text(totals(structure)),
    ]
    if any(module["opened"] for module in structure.modules):
        parts.append(Text("+ a slot that was opened after the module was made"))
    if structure.history:
        columns = ("#", "step", "time (s)", "change", "what", "parameters")
        parts += ["", _table(history_rows(structure), columns)]
    return Group(*parts)


def _against(runs: Sequence[RunRecord], baselines: Sequence[RunRecord]) -> RenderableType:
    """Skill and gain of every task of the runs, Δm of every run, and how to read them."""
    found = gains.compare_with_baselines(runs, baselines)
    shown = _table(
        gains.table_rows(found), ("run", "task", "test", "single-task", "n", "skill", "gain")
    )
    lines = [gains.FORMULAS, *gains.caveats(found)]
    return Group(shown, "", *map(Text, lines))


def _table(rows: Sequence[dict[str, str]], columns: Sequence[str]) -> Table:
    shown = Table(box=None, pad_edge=False)
    for name in columns:
        justify: JustifyMethod = "right" if name in NUMBERS else "left"
        shown.add_column(name, justify=justify, overflow="fold", no_wrap=name in NUMBERS)
    for row in rows:
        shown.add_row(*(Text(row[name]) for name in columns))
    return shown
