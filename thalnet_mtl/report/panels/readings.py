"""Panel of readings: what modules have learned to read, as change against the start."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from thalnet_mtl.report.panel import Panel, number
from thalnet_mtl.report.reading_changes import ReadingChange, mean_change, reading_change
from thalnet_mtl.runs.records import RunRecord

SENTENCE = (
    "The module of the row reads the slot of the module of the column. Shown is how much the mean "
    "of its weights |R| has changed in training, on one scale for all modules. Training changes "
    "all weights a little. A frame marks a change that stands out: it differs from the mean change "
    "of its reader by more than 3 standard errors of a mean over as many positions, drawn at "
    "random from all that it reads."
)
NO_START = (
    "The module of the row reads the slot of the module of the column. Shown is the mean of its "
    "weights |R| at the end. The run was made by a version that did not record the weights before "
    "training, so that what it has learned cannot be told from what it began with."
)
DYNAMIC = "Weights of dynamic readings are means over a batch of validation data."
CELLS = 20_000  # of all single seeds together; of more, only their mean is shown
ROWS = 200  # of the table


def readings_panel(name: str, runs: Sequence[RunRecord]) -> Panel | None:
    """Return the readings of runs that differ in their seed only; None if none has saved any."""
    runs = [run for run in runs if run.reading_weights]
    if not runs:
        return None
    first, count = runs[0], len(runs)
    runs = [r for r in runs if list(r.slot_widths.items()) == list(first.slot_widths.items())]
    alike = [reading_change(run) for run in runs]
    whole = mean_change(alike)
    sets = [_set(f"mean of {len(alike)} seeds" if len(alike) > 1 else "", whole)]
    sentence = NO_START if whole.start is None else SENTENCE
    if any(run.dynamic_readings for run in runs):
        sentence += f" {DYNAMIC}"
    if len(alike) < count:
        others = count - len(alike)
        sentence += f" {others} of the {count} runs have other modules and are left out."
    if len(alike) > 1:
        if len(alike) * whole.end.size <= CELLS:
            sets += [_set(f"seed {r.seed}", c) for r, c in zip(runs, alike, strict=True)]
        else:
            sentence += " There are too many modules to show each seed."
    table, count = _table(whole), int(np.isfinite(whole.end).sum())
    summary = "The numbers as a table"
    if count > len(table):
        summary += f": the {len(table)} largest of {count:,}"
    data = {"readers": whole.readers, "sources": whole.sources, "sets": sets}
    return Panel("readings", f"Readings of {name}", sentence, data, table, summary)


def _set(name: str, change: ReadingChange) -> dict[str, Any]:
    content: dict[str, Any] = {"name": name, "end": _rows(change.end)}
    if change.start is not None:
        content |= {
            "start": _rows(change.start),
            "change": _rows(change.change),
            "error": _rows(change.error),
            "common": [number(value, 3) for value in change.common.tolist()],
            "beyond": change.beyond.astype(int).tolist(),
            "limit": number(change.limit, 3),
        }
    return content


def _rows(values: np.ndarray) -> list[list[float | None]]:
    return [[number(value, 3) for value in row] for row in values.tolist()]


def _table(change: ReadingChange) -> list[dict[str, str]]:
    """Return a row for each reader and source, or for those with the largest change of many."""
    sizes = np.abs(change.end if change.start is None else change.change)
    cells = np.argwhere(np.isfinite(change.end))
    if len(cells) > ROWS:
        order = np.argsort(-sizes[tuple(cells.T)], kind="stable")[:ROWS]
        cells = cells[order]
    rows = []
    for row, column in cells.tolist():
        entry = {"reader": change.readers[row], "reads": change.sources[column]}
        if change.start is not None:
            entry |= {
                "|R| at the start": f"{change.start[row, column]:.3g}",
                "at the end": f"{change.end[row, column]:.3g}",
                "change": f"{change.change[row, column]:+.3g}",
                "mean change of the reader": f"{change.common[row]:+.3g}",
                "standard error": f"{change.error[row, column]:.2g}",
                "beyond chance": "yes" if change.beyond[row, column] else "",
            }
        else:
            entry |= {"|R| at the end": f"{change.end[row, column]:.3g}"}
        rows.append(entry)
    return rows
