"""Runs folded into rows: those that differ in nothing but the seed make one row."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from dataclasses import fields as dataclass_fields
from typing import Any

from thalnet_mtl.config.load import flatten
from thalnet_mtl.config.schema import Config
from thalnet_mtl.errors import UserError, suggest
from thalnet_mtl.metrics.metric import list_names
from thalnet_mtl.runs.differences import ROUNDING, WITHOUT_EFFECT
from thalnet_mtl.runs.summaries import RunSummary

RUN = "run"  # stands for the name of a run without its seed
MISSING = "–"
SEED_FIELD = "train.seed"
HARMLESS = {*ROUNDING, *WITHOUT_EFFECT}
SECTIONS = ("stream", "changes", "modules", "tasks")  # compared as a whole
NAMING = (".name", ".body", "growth.when", "train.strategy")  # fields that others are options of
MANY_FIELDS = 4  # rows that differ in more are named by their runs

Key = tuple[int, str]  # tells the runs of a row apart: seed, and fields that are averaged over


@dataclass
class Row:
    """Runs that differ in nothing but the seed, and in fields that are averaged over."""

    cells: tuple[str, ...]  # values of the fields that the rows differ in
    runs: dict[Key, RunSummary] = field(default_factory=dict)  # finished
    unfinished: list[RunSummary] = field(default_factory=list)

    @property
    def label(self) -> str:
        """Values of the fields, as one text."""
        return ", ".join(self.cells)

    @property
    def seeds(self) -> list[int]:
        """Seeds of the finished runs, in order, each once."""
        return sorted({run.seed for run in self.runs.values()})

    @property
    def count(self) -> str:
        """Number of seeds, or of those whose runs all finished: '2 of 3'."""
        unfinished = {run.seed for run in self.unfinished}
        total = len({*self.seeds, *unfinished})
        return f"{total - len(unfinished)} of {total}" if unfinished else f"{total}"


def fold(
    runs: Sequence[RunSummary], fields: Sequence[str] = (), over: Sequence[str] = ()
) -> tuple[list[str], list[Row], list[str]]:
    """Fold runs into rows.

    Args:
        runs: finished or not.
        fields: that tell rows apart, such as ``train.strategy``; ``run`` for names of runs. By
            default all in which the runs differ. Fields in which the runs of a row differ as well
            are added, and a note says so.
        over: fields, or sections, that runs of a row may differ in, beside the seed.

    Returns:
        The fields, the rows in the order of their first runs, with equal values of the first
        fields next to each other, and notes.

    Raises:
        UserError: no run has such a field.
    """
    for name in (*fields, *over):
        check_field(name, runs)
    values = [_comparable(run, over) for run in runs]
    separating = _separating(values)
    by_name = not fields and not 0 < len(separating) <= MANY_FIELDS
    used, notes = list(fields or separating), list[str]()
    groups: dict[str, list[dict[str, Any]]] = {}
    for run, value in zip(runs, values, strict=True):
        groups.setdefault(_key(run, used), []).append(value)
    added = dict.fromkeys(name for group in groups.values() for name in _separating(group))
    if added:
        notes.append(
            f"Runs with the same {', '.join(used)} also differ in {', '.join(added)}, which has "
            f"become part of the rows; to average over it: --fold {' '.join(added)}"
        )
        used += [name for name in added if name not in used]
    rows, repeated = _rows(runs, used, over)
    if by_name:
        used = [RUN]
        for row in rows:
            names = dict.fromkeys(run.name for run in (*row.runs.values(), *row.unfinished))
            row.cells = (list_names(list(names), 2),)
    else:
        rows = _grouped(rows)
    _number_equal_labels(rows)
    return used, rows, [*notes, *repeated]


def _rows(
    runs: Sequence[RunSummary], fields: Sequence[str], over: Sequence[str]
) -> tuple[list[Row], list[str]]:
    """Return the rows, and a note on every run that repeats another one."""
    rows: dict[str, Row] = {}
    notes = []
    for run in runs:
        cells = tuple(show(field_value(run, name)) for name in fields)
        row = rows.setdefault(_key(run, fields), Row(cells))
        key = run.seed, _key(run, over)
        if not run.result:
            row.unfinished.append(run)
        elif key in row.runs:
            first = row.runs[key].path
            notes.append(f"Left out: {run.path} has the configuration and the seed of {first}")
        else:
            row.runs[key] = run
    return list(rows.values()), notes


def _grouped(rows: Sequence[Row], place: int = 0) -> list[Row]:
    """Return rows with equal values of the first fields, from a place on, next to each other."""
    if len(rows) < 2 or place == len(rows[0].cells):
        return list(rows)
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.cells[place], []).append(row)
    return [row for group in groups.values() for row in _grouped(group, place + 1)]


def _key(run: RunSummary, fields: Sequence[str]) -> str:
    """Return a text that is equal for runs that are equal in some fields."""
    return json.dumps([field_value(run, name) for name in fields], sort_keys=True)


def check_field(name: str, runs: Sequence[RunSummary]) -> None:
    """Raise ``UserError`` unless some run has a field, or a section of that name."""
    names = [RUN, *dict.fromkeys(n for run in runs for n in run.fields), *flatten(Config())]
    sections = {section.name for section in dataclass_fields(Config)}
    if name in names or name in sections or any(n.startswith(f"{name}.") for n in names):
        return
    ends = [n for n in names if n.rpartition(".")[2] == name]
    hint = f" Did you mean '{ends[0]}'?" if ends else suggest(name, names)
    raise UserError(
        f"no run has the field '{name}'. Fields are those of config.yaml, as in 'train.strategy', "
        f"and 'run', the name of a run.{hint}"
    )


def field_value(run: RunSummary, name: str) -> Any:
    """Return the value of a field, or of a section; None where a run does not have it."""
    if name == RUN:
        return run.name
    if name in run.fields:
        return run.fields[name]
    section = {n: v for n, v in run.fields.items() if n.startswith(f"{name}.")}
    return section or None


def show(value: Any) -> str:
    """Return the value of a field as a cell.

    >>> show(True), show(0.01), show(None), show(["a", "b"])
    ('true', '0.01', '–', 'a, b')
    """
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ", ".join(map(show, value)) or "none"
    if isinstance(value, dict):
        lists = [show(v) for name, v in value.items() if name.endswith(".tasks")]
        return " → ".join(lists) or ", ".join(
            f"{name.partition('.')[2]} {show(v)}" for name, v in value.items()
        )
    return str(value) or "''"


def _comparable(run: RunSummary, over: Sequence[str]) -> dict[str, Any]:
    """Return what tells a run from others by field, with sections of many entries as a whole.

    Neither the seed, nor a field that is averaged over, nor one without an effect is among it.
    """
    values: dict[str, Any] = {}
    left_out = {SEED_FIELD, *HARMLESS, *over}
    sections = tuple(f"{name}." for name in over)
    for name, value in run.fields.items():
        if name in left_out or name.startswith(sections):
            continue
        section = name.partition(".")[0]
        if section in SECTIONS:
            values.setdefault(section, {})[name] = value
        else:
            values[name] = value
    return values


def _separating(values: Sequence[dict[str, Any]]) -> list[str]:
    """Return few of the fields that tell the same runs apart as all of them do together."""
    names = dict.fromkeys(name for value in values for name in value)
    texts = {
        name: [json.dumps(value.get(name), sort_keys=True) for value in values] for name in names
    }
    kept = [name for name, column in texts.items() if len(set(column)) > 1]

    def count(chosen: Sequence[str]) -> int:
        """Return how many runs some fields tell apart."""
        return len(set(zip(*(texts[name] for name in chosen), strict=True))) if chosen else 1

    def rank(name: str) -> int:
        """Return how early a field is left out where others suffice."""
        if name in SECTIONS or name.endswith(NAMING):
            return 0 if name in SECTIONS else 3
        kinds = {type(value.get(name)) for value in values} - {type(None)}
        return 1 if kinds <= {int, float} else 2

    total = count(kept)
    for name in sorted(kept, key=rank):
        rest = [other for other in kept if other != name]
        if count(rest) == total:
            kept = rest
    return kept


def _number_equal_labels(rows: Iterable[Row]) -> None:
    """Give rows with equal cells a number, as where streams have the same tasks but other steps."""
    seen: dict[tuple[str, ...], int] = {}
    for row in rows:
        seen[row.cells] = seen.get(row.cells, 0) + 1
        if (count := seen[row.cells]) > 1:
            row.cells = (*row.cells[:-1], f"{row.cells[-1]} ({count})")
