"""Tables of ``thalnet inspect``: the modules, tasks, changes and decisions of a run."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Group as Lines
from rich.console import RenderableType

from thalnet_mtl.config.load import load_run_config
from thalnet_mtl.report.decisions import ERRORS, SCORES, candidate_rows, decision_rows
from thalnet_mtl.report.layout import Note, Row, TextTable
from thalnet_mtl.report.topology import history_rows, module_rows, task_rows, totals
from thalnet_mtl.runs.decisions import count_decisions
from thalnet_mtl.runs.run_files import lineage_lines
from thalnet_mtl.runs.topology_file import DecisionEntry, read_topology

SIZES = ("module", "slot", "context", "inputs", "output", "frozen", "parameters")
KINDS = ("design", "reading", "tasks", "reads")
TASK = {"input modules": "input", "output modules": "output", "active": "active",
        "frozen": "frozen", "parameters": "parameters"}  # fmt: skip
CHANGE = ("#", "step", "time (s)", "change", "modules", "parameters")
CANDIDATE = ("candidate", "new parameters", "steps", "score", "±", "chosen")


def topology_table(folder: Path) -> RenderableType:
    """Return the modules, tasks, totals, changes and decisions of a run, for 80 columns or more.

    What all modules have in common is said once, and tasks that are alike share a row.
    """
    topology = read_topology(folder)
    parts: list[RenderableType] = [
        *_module_tables(module_rows(topology)),
        "",
        TextTable(_alike(task_rows(topology)), ("task", *TASK.values()), wrapped=4),
        "",
        Note(totals(topology)),
        *map(Note, lineage_lines(folder)),
    ]
    if any(module.opened for module in topology.modules):
        parts.append(Note("+ a slot that was opened after the module was attached"))
    if topology.history:
        parts += ["", TextTable(history_rows(topology), CHANGE)]
    if topology.decisions:
        stream = load_run_config(folder).stream
        rows = decision_rows(topology.decisions, stream)
        for number, (decision, row) in enumerate(zip(topology.decisions, rows, strict=True), 1):
            parts += ["", *_decision(number, decision, row)]
        count = count_decisions(stream, topology.decisions)
        errors = any(c.error is not None for d in topology.decisions for c in d.candidates)
        parts += ["", Note(SCORES), *([Note(ERRORS)] if errors else [])]
        parts += [Note(count.line())] if count else []
    return Lines(*parts)


def _module_tables(rows: Sequence[Row]) -> Iterator[RenderableType]:
    """Yield a table of sizes, one of what differs between modules, and a line on what does not."""
    yield TextTable(rows, SIZES)
    values = {name: list(dict.fromkeys(row[name] for row in rows)) for name in KINDS}
    different = [name for name, texts in values.items() if len(texts) > 1]
    same = [f"{name} {texts[0]}" for name, texts in values.items() if len(texts) == 1]
    if different:
        yield ""
        yield TextTable(rows, ("module", *different), wrapped=len(different))
    if same:
        yield ""
        yield Note(f"every module: {', '.join(same)}")


def _alike(rows: Sequence[Row]) -> list[Row]:
    """Return one row for tasks that differ in nothing but their names."""
    names: dict[tuple[str, ...], list[str]] = {}
    for row in rows:
        names.setdefault(tuple(row[name] for name in TASK), []).append(row["task"])
    return [
        {"task": ", ".join(tasks)} | dict(zip(TASK.values(), texts, strict=True))
        for texts, tasks in names.items()
    ]


def _decision(number: int, decision: DecisionEntry, row: Row) -> Iterator[RenderableType]:
    """Yield a decision of the search: what it was, why, and its candidates."""
    about = "" if decision.about == "task" else f" ({decision.about})"
    yield Note(
        f"decision {number}, step {decision.step:,}, {decision.task}{about}: {row['gets']}; "
        f"{row['new parameters']} new parameters, {row['extra steps']} extra steps"
    )
    if row.get("expected"):
        yield Note(f"expected: {row['expected']}; as expected: {row['as expected']}")
    yield Note(f"why: {row['why']}")
    candidates = candidate_rows(decision)
    yield TextTable(candidates, [name for name in CANDIDATE if name in candidates[0]])
