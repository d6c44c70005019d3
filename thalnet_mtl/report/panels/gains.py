"""Gains over single-task runs: by task, and Δm over all tasks, with intervals over seeds."""

from collections.abc import Mapping, Sequence
from typing import Any

from thalnet_mtl.metrics.multitask import delta_m
from thalnet_mtl.report.baselines import BaselineComparison
from thalnet_mtl.report.cells import Cell, spread
from thalnet_mtl.report.panel import Panel, number
from thalnet_mtl.report.rows import Group

ROWS = 40  # bars of a group; of more, the lowest and the highest are drawn
SENTENCE = (
    "How much higher each task scores than single-task runs do, relative to their score: "
    "gain = ±(R − S) / S, with minus where lower is better. Δm is the mean gain over the tasks."
)
INTERVAL = (
    "Bars are means over {seeds} seeds, lines 95 % bootstrap intervals of the mean; how much the "
    "single-task runs vary is not part of them."
)


def gains_panel(
    groups: Sequence[Group], comparisons: Mapping[str, Sequence[BaselineComparison]]
) -> Panel | None:
    """Return the gains of groups of seeds; None if no run has a gain.

    Args:
        groups: of runs.
        comparisons: of finished runs with their baselines, by the name of the run.
    """
    bars = [bar for group in groups for bar in _bars(group, comparisons)]
    bars = [bar for bar in bars if bar["values"]]
    if not bars:
        return None
    names = list(dict.fromkeys(bar["group"] for bar in bars))
    drawn, sentence = [], SENTENCE
    counts = sorted({len(bar["values"]) for bar in bars})
    if counts[-1] > 1:
        seeds = f"{counts[0]} to {counts[-1]}" if counts[0] < counts[-1] else str(counts[-1])
        sentence += " " + INTERVAL.format(seeds=seeds)
    else:
        sentence += " A single run has no interval: other seeds may give another sign."
    for name in names:
        *tasks, total = [bar for bar in bars if bar["group"] == name]
        if len(tasks) > ROWS:
            ranked = sorted(tasks, key=lambda bar: bar["gain"])
            ends = [*ranked[: ROWS // 2], *ranked[-ROWS // 2 :]]
            sentence += f" Of {name}, the {ROWS // 2} lowest and the {ROWS // 2} highest gains of "
            sentence += f"{len(tasks)} tasks are drawn; the table has all."
            tasks = [bar for bar in tasks if any(bar is end for end in ends)]
        drawn += [*tasks, total]
    data = {
        "groups": names,
        "bars": [{key: bar[key] for key in bar if key != "values"} for bar in drawn],
    }
    return Panel("gains", "Gain over single-task runs", sentence, data, [_row(bar) for bar in bars])


def _bars(
    group: Group, comparisons: Mapping[str, Sequence[BaselineComparison]]
) -> list[dict[str, Any]]:
    """Return the gains of a group: a bar for each task, and one for Δm."""
    by_task: dict[str, list[float]] = {}
    totals = []
    for run in group.runs:
        compared = comparisons.get(run.name, ())
        gains = [c.gain for c in compared]
        for comparison in compared:
            values = by_task.setdefault(comparison.record.title, [])
            if comparison.gain is not None:
                values.append(comparison.gain)
        if gains and None not in gains:
            totals.append(delta_m([gain for gain in gains if gain is not None]))
    if not by_task:
        return []
    bars = [_bar(group.name, task, values) for task, values in by_task.items()]
    return [*bars, _bar(group.name, f"Δm of {len(by_task)} tasks", totals, total=True)]


def _bar(group: str, task: str, gains: Sequence[float], total: bool = False) -> dict[str, Any]:
    cell = Cell([round(100 * gain, 6) for gain in gains])
    bar: dict[str, Any] = {"group": group, "task": task, "total": total, "values": cell.values}
    bar |= {"gain": number(cell.mean), "count": len(cell.values)}
    if cell.interval:
        bar["interval"] = [number(end) for end in cell.interval]
    return bar


def _row(bar: Mapping[str, Any]) -> dict[str, str]:
    return {
        "runs": bar["group"],
        "task": bar["task"],
        "n": str(bar["count"]),
        "gain (%)": spread(bar["values"]),
    }
