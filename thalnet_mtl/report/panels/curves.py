"""Curves of training: losses and scores over steps or time, with the test results beside them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from thalnet_mtl.metrics.metric import Metric
from thalnet_mtl.report.bands import BAND, HIGHEST, LOWEST, Band, band_of
from thalnet_mtl.report.cells import Cell
from thalnet_mtl.report.panel import Panel, number
from thalnet_mtl.report.sections import Mark
from thalnet_mtl.report.task_views import SeedView, TaskView

POINTS = 240  # of a line, about as many as a figure is pixels wide
FEWEST = 24  # points of a line, where there are many lines
ALL_POINTS = 24_000  # of all lines together
ALL_SEEDS = 24_000  # points of the lines of single seeds together; of more, seeds are left out
LOSS = "training loss"
STAGES = (0.1, 0.25, 0.5, 0.75, 1.0)  # shares of the steps in the table


@dataclass(frozen=True)
class Lines:
    """The runs of a group of seeds on one task, and their curves of one quantity."""

    task: int
    group: int
    metric: Metric | None  # None for the loss
    band: Band
    test: Cell
    main: bool = False  # whether the metric is the main one of the task

    @property
    def title(self) -> str:
        """The quantity: name and unit."""
        return f"validation {self.metric.label}" if self.metric else LOSS

    @property
    def factor(self) -> float:
        """Factor of the values that are shown."""
        return self.metric.factor if self.metric else 1.0


def curves_panel(tasks: Sequence[TaskView]) -> Panel | None:
    """Return curves of all tasks: a line for each group of seeds; None if nothing was logged."""
    groups: dict[tuple[str, int], int] = {}  # by label and style
    lines = list[Lines]()
    for place, task in enumerate(tasks):
        for group in task.groups:
            number_of_group = groups.setdefault((group.label, group.style), len(groups))
            lines += _lines(place, number_of_group, group)
    if not lines:
        return None
    titles = [task.title for task in tasks]
    labels = [label for label, _ in groups]
    most = min(POINTS, max(FEWEST, ALL_POINTS // len(lines)))
    bands = [line.band.thinned(most) for line in lines]
    seeds = sum(band.lines.size for band in bands if len(band.lines) > 1)
    grids: dict[bytes, int] = {}
    drawn = [
        _drawn(line, band, grids, seeds <= ALL_SEEDS)
        for line, band in zip(lines, bands, strict=True)
    ]
    marks = [_joined(task.marks) for task in tasks]
    data = {
        "tasks": titles,
        "groups": [{"label": label, "style": style} for label, style in groups],
        "steps": [np.frombuffer(grid).astype(int).tolist() for grid in grids],
        "lines": drawn,
        "marks": marks,
    }
    sentence = _sentence(lines, bands, seeds, any(marks))
    if left_out := sum(task.left_out for task in tasks):
        sentence += f" {left_out} further lines are left out: the shown ones are spread evenly."
    return Panel("curves", "Curves of training", sentence, data, _table(lines, titles, labels))


def _joined(marks: Sequence[Mark]) -> list[list[Any]]:
    """Return step, seconds and words of marks, those of a step as one."""
    joined: dict[int, list[Any]] = {}
    for step, seconds, words in marks:
        mark = joined.setdefault(step, [step, None, ""])
        mark[1:] = mark[1] or number(seconds), f"{mark[2]}, {words}".lstrip(", ")
    return list(joined.values())


def _lines(task: int, place: int, group: SeedView) -> Iterable[Lines]:
    """Yield the loss and every metric of a group of seeds on a task, as far as it was logged."""
    metrics = next((record.metrics for record in group.records if record.metrics), ())
    for metric in (None, *metrics):
        split, name = ("validation", metric.name) if metric else ("train", "loss")
        band = band_of([record.drawn_curve(split, name) for record in group.records])
        if band:
            scores = [r.score("test", metric.name) for r in group.finished] if metric else []
            is_main = metric is not None and metric is metrics[0]
            yield Lines(task, place, metric, band, Cell(scores, metric), is_main)


def _drawn(line: Lines, band: Band, grids: dict[bytes, int], seeds: bool) -> dict[str, Any]:
    """Return a line as the script draws it; steps are kept once for all lines that share them."""
    factor = line.factor
    data: dict[str, Any] = {
        "task": line.task,
        "group": line.group,
        "of": line.title,
        "unit": line.metric.unit if line.metric else "",
        "steps": grids.setdefault(band.steps.tobytes(), len(grids)),
        "mid": _numbers(factor * band.median),
    }
    if line.main:
        data["main"] = True
    if band.seconds.any():
        data["seconds"] = _numbers(band.seconds)
    if len(band.lines) > 1:
        data["low"] = _numbers(factor * band.quantile(LOWEST))
        data["high"] = _numbers(factor * band.quantile(HIGHEST))
        data["count"] = len(band.lines)
        if seeds:
            data["seeds"] = [_numbers(factor * values) for values in band.lines]
    if (mean := line.test.mean) is not None and np.isfinite(mean):
        finite = all(np.isfinite(line.test.values))
        ends = (line.test.interval if finite else None) or (mean, mean)
        data["test"] = [number(factor * value) for value in (mean, *ends)]
        data["tested"] = f"{line.test.format()} {data['unit']}".rstrip()
    return data


def _numbers(values: np.ndarray) -> list[float | None]:
    return [number(value) for value in values.tolist()]


def _sentence(lines: Sequence[Lines], bands: Sequence[Band], seeds: int, marked: bool) -> str:
    """Return what is to be seen, and what was left out."""
    parts = ["Each point of the training loss is a mean since the previous point."]
    if any(len(band.lines) > 1 for band in bands):
        parts.append(f"Lines are medians over seeds; bands go {BAND}.")
    if any(line.test.values for line in lines):
        interval = ", with a 95 % interval over seeds" * any(len(x.test.values) > 1 for x in lines)
        parts.append(f"Dots at the right edge are mean test results{interval}.")
    if marked:
        parts.append("Triangles are changes of the modules and ends of experiences.")
    if thinned := [band for band in bands if band.merged > 1]:
        longest = max(len(line.band.steps) for line in lines)
        most = max(len(band.steps) for band in thinned)
        parts.append(
            f"Long lines are thinned, from up to {longest:,} points to at most {most:,}, about as "
            f"many as there are pixels: each is the mean of its neighbors."
        )
    if seeds > ALL_SEEDS:
        parts.append("There are too many single seeds to show each of them.")
    return " ".join(parts)


def _table(
    lines: Sequence[Lines], tasks: Sequence[str], groups: Sequence[str]
) -> list[dict[str, str]]:
    """Return a row for each line: its median at some shares of its steps, and the test result."""
    rows = []
    for line in lines:
        steps, median = line.band.steps, line.factor * line.band.median
        row = {"task": tasks[line.task], "runs": groups[line.group], "of": line.title,
               "n": str(len(line.band.lines)), "steps": f"{steps[-1]:,.0f}"}  # fmt: skip
        for share in STAGES:
            value = median[min(np.searchsorted(steps, share * steps[-1]), len(steps) - 1)]
            row[f"at {100 * share:.0f} %"] = f"{value:#.4g}"
        rows.append(row | {"test": line.test.format() if line.test.values else "–"})
    return rows
