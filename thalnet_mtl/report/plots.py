"""Figures of runs for notebooks and papers: ``load_run("runs/a").plot.curves()``."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np

from thalnet_mtl.errors import UserError, unknown
from thalnet_mtl.metrics.metric import Metric, list_names
from thalnet_mtl.metrics.summary import ContinualSummary
from thalnet_mtl.report.figures.module_graph import Strengths, draw_graph, graph_size
from thalnet_mtl.report.figures.paper import canvas
from thalnet_mtl.report.figures.score_matrix import draw_matrix, turned_height
from thalnet_mtl.report.figures.seed_curves import (
    STYLES,
    Series,
    add_legend,
    draw_series,
    mark_ends,
)
from thalnet_mtl.report.panels.graph import graph_panel
from thalnet_mtl.report.panels.matrix import matrix_panel
from thalnet_mtl.report.rows import fold_runs
from thalnet_mtl.runs.frame import metrics_frame
from thalnet_mtl.runs.log import Curve
from thalnet_mtl.runs.records import RunRecord

LOSS, RATE = "loss", "learning_rate"
SPLITS = ("train", "validation", "test")


class Panel(NamedTuple):
    """A panel of a figure: a metric, or another quantity of the log, on a split."""

    split: str
    name: str
    metric: Metric | None  # None for the loss and the learning rate

    @property
    def factor(self) -> float:
        """Factor of the values."""
        return self.metric.factor if self.metric else 1.0

    @property
    def label(self) -> str:
        """Label of the axis."""
        split = {"train": "training", "validation": "validation", "test": "test"}[self.split]
        if self.metric is None:
            return f"{split} loss" if self.name == LOSS else self.name.replace("_", " ")
        return f"{split} {self.metric.label}"


class Plots:
    """The figures of one run, or of several.

    Each method draws a new ``matplotlib.figure.Figure`` and returns it, or draws on the axes that
    it gets as ``ax`` and returns these. Figures are sized for a page of a paper; PDF and SVG have
    letters as text. Colors are those of Okabe and Ito, for people with any color vision::

        run = load_run("runs/a")
        run.plot.curves().savefig("curves.pdf")
        figure, (left, right) = plt.subplots(1, 2)
        run.plot.matrix(ax=left)

    Args:
        runs: that have been read.
    """

    def __init__(self, runs: Sequence[RunRecord]):
        self.runs = runs

    def __repr__(self) -> str:
        names = list_names([run.name for run in self.runs])
        return f"figures of {names}: plot.curves(), plot.matrix(), plot.graph()"

    def curves(self, *, task: str = "", split: str = "", metric: str = "", ax: Any = None) -> Any:
        """Draw learning curves over optimizer steps.

        By default one panel has the training loss, and one for each main metric the validation
        scores. Runs that differ in nothing but the seed are one line: their median, with a band
        from the 10th to the 90th percentile; runs that have not finished are left out beside
        finished ones. Of more tasks than
        can be told apart, the mean of those that were trained so far is drawn. Thin vertical lines
        are the ends of experiences.

        Args:
            task: by name; by default all.
            split: 'train', 'validation' or 'test', for one panel alone.
            metric: 'loss', 'learning_rate' or a metric of the tasks, for one panel alone.
            ax: axes for one panel; by default for that of the validation scores.

        Raises:
            UserError: no run has such a task or metric, or has logged it; or there are more
                configurations than can be told apart.
        """
        tasks = self._tasks(task)
        panels = self._panels(tasks, split, metric, alone=ax is not None)
        series = [self._series(tasks, panel) for panel in panels]
        ends = {tuple(run.continual.ends) if run.continual else () for run in self.runs}
        with canvas(ax, len(panels), 3.4 * len(panels), 2.6) as (drawn, axes):
            for each, panel, lines in zip(axes, panels, series, strict=True):
                draw_series(each, lines, panel.factor)
                mark_ends(each, next(iter(ends)) if len(ends) == 1 else ())
                each.set_ylabel(panel.label)
            add_legend(axes, whole=ax is None)
        return drawn

    def matrix(self, *, ax: Any = None) -> Any:
        """Draw the matrix R of test scores: row i is after experience i, a column is a task.

        White is the score of guessing, blue the perfect one; frames mark the tasks that an
        experience trained. Of several seeds it is their mean.

        Args:
            ax: axes to draw on.

        Raises:
            UserError: a run has trained no stream, or has not finished; or the runs differ in more
                than their seed.
        """
        summaries = [self._summary(run) for run in self.runs]
        groups = fold_runs(self.runs)
        if len(groups) > 1:
            names = list_names([group.name for group in groups])
            raise UserError(f"a matrix is that of one configuration; these are {names}.")
        run = self.runs[0]
        assert run.result is not None
        metrics = {name: task.metrics[0] for name, task in run.result.tasks.items()}
        guesses = {name: task.guess_score("test") for name, task in run.result.tasks.items()}
        matrices = [summary.scores for summary in summaries]
        cells = [list(zip(*rows, strict=True)) for rows in zip(*matrices, strict=True)]
        scores = [[_mean(cell) for cell in row] for row in cells]
        data = matrix_panel(run.name, replace(summaries[0], scores=scores), metrics, guesses).data
        shown = [
            [None if s is None else m.scale(s) for m, s in zip(metrics.values(), row, strict=True)]
            for row in scores
        ]
        rows, columns = len(scores), len(metrics)
        width = min(max(2.6, 1 + 0.55 * columns), 6.5)
        size = width, min(0.8 + 0.26 * rows, 5.5) + turned_height(list(metrics))
        with canvas(ax, 1, *size) as (drawn, (axes,)):
            draw_matrix(axes, data, shown)
        return drawn

    def graph(self, *, ax: Any = None) -> Any:
        """Draw the modules of a run and who reads whom; see ``draw_graph``.

        A color is that of the task that a module came with. The width of an arrow is the mean of
        |R| over the slot, at the end or as it was last recorded.

        Args:
            ax: axes to draw on.

        Raises:
            UserError: there are several runs, or the body of the run has no modules.
        """
        if len(self.runs) > 1:
            raise UserError(f"a graph is that of one run; these are {len(self.runs)}.")
        (run,) = self.runs
        if run.topology is None:
            body = run.config.model.body
            why = "has not started" if body == "thalnet" else f"has a {body}, which has no modules"
            raise UserError(f"{run.folder} has no graph: it {why}.")
        with canvas(ax, 1, *graph_size(run.topology)) as (drawn, (axes,)):
            data = graph_panel(run, run.topology).data
            draw_graph(axes, run.topology, _strengths(run, data), _owners(data), ink="#333333")
        return drawn

    def _tasks(self, task: str) -> list[str]:
        """Return the tasks to draw, in the order in which runs name them."""
        tasks = list(dict.fromkeys(name for run in self.runs for name in run.tasks))
        if task and task not in tasks:
            raise unknown("task", task, tasks)
        return [task] if task else tasks

    def _panels(self, tasks: Sequence[str], split: str, metric: str, alone: bool) -> list[Panel]:
        records = [record for run in self.runs for record in run.records if record.task in tasks]
        mains = list(dict.fromkeys(r.metric for r in records if r.metric))
        known = {m.name: m for record in records for m in record.metrics}
        if split and split not in SPLITS:
            raise unknown("split", split, SPLITS)
        if metric and metric not in (LOSS, RATE, *known):
            raise unknown("metric", metric, [LOSS, RATE, *known])
        if metric:
            usual = "validation" if metric in known else "train"
            return [Panel(split or usual, metric, known.get(metric))]
        scores = [Panel(split or "validation", m.name, m) for m in mains]
        if split == "train" or not (scores or alone):
            scores = [Panel("train", LOSS, None)]
        elif not (split or alone):
            scores.insert(0, Panel("train", LOSS, None))
        if alone and len(scores) != 1:
            names = list_names([panel.name for panel in scores]) or "none, as nothing is logged yet"
            raise UserError(f"axes hold one metric; name it, or a task. There are: {names}.")
        return scores

    def _series(self, tasks: Sequence[str], panel: Panel) -> list[Series]:
        """Return the lines of a panel."""
        by_folder = {run.folder: run for run in self.runs}
        groups = []
        for group in fold_runs(self.runs):
            unfinished = [by_folder[each.path] for each in group.row.unfinished]
            groups.append((group.name, group.runs if group.row.runs else unfinished))
        if len(groups) > STYLES:
            raise UserError(
                f"{len(groups)} configurations are more lines than can be told apart: at most "
                f"{STYLES}."
            )
        series = []
        if len(groups) * len(tasks) > STYLES:
            for style, (name, runs) in enumerate(groups):
                curves = [_mean_over_tasks(run, tasks, panel) for run in runs]
                label = name if len(groups) > 1 else f"mean of {len(tasks)} tasks"
                series.append(Series(label, style, curves))
        else:
            for style, ((name, runs), task) in enumerate(product(groups, tasks)):
                curves = [_curve(run, task, panel) for run in runs]
                names = [name] * (len(groups) > 1) + [task] * (len(tasks) > 1)
                label = ", ".join(names) or name * (len(runs) > 1)
                series.append(Series(label, style, curves))
        kept = [
            replace(line, curves=curves)
            for line in series
            if (curves := [curve for curve in line.curves if len(curve)])
        ]
        if not kept:
            folders = list_names([str(run.folder) for run in self.runs])
            raise UserError(f"{folders}: no {panel.name} on the split '{panel.split}' was logged.")
        return kept

    def _summary(self, run: RunRecord) -> ContinualSummary:
        if not run.config.stream:
            raise UserError(f"{run.folder} has no matrix of scores: it has trained no stream.")
        if run.continual is None:
            raise UserError(f"{run.folder} has no matrix of scores yet: it has not finished.")
        return run.continual


def _curve(run: RunRecord, task: str, panel: Panel) -> Curve:
    return run.log.drawn(task, panel.split, panel.name) if task in run.tasks else np.empty((0, 3))


def _mean_over_tasks(run: RunRecord, tasks: Sequence[str], panel: Panel) -> Curve:
    """Return the mean over the tasks whose training has begun, at each step that was logged."""
    frame = metrics_frame(run.folder / "metrics.jsonl", run.tasks)
    frame = frame[(frame.split == panel.split) & (frame.metric == panel.name)]
    frame = frame[frame.task.isin(tasks)]
    if run.continual:
        starts: dict[str, int] = {}
        for start, names in zip((0, *run.continual.ends), run.continual.trained, strict=False):
            for name in names:
                starts.setdefault(name, start)
        frame = frame[frame.step > frame.task.map(starts)]
    means = frame.groupby("step")[["seconds", "value"]].mean().reset_index()
    curve: Curve = means[["step", "seconds", "value"]].to_numpy(dtype=float)
    return curve


def _strengths(run: RunRecord, data: Mapping[str, Any]) -> Strengths:
    """Return mean |R| by reader and source: of the kept weights, or as it was last recorded."""
    if run.reading_weights:
        names = [module["name"] for module in data["modules"]]
        return {
            (names[b], names[a]): mean for a, b, mean, _ in data["readings"] if mean is not None
        }
    points = run.readings.at()
    last = points[-1][1] if points else {}
    return {(reader, source): mean for reader, means in last.items()
            for source, mean in means.items()}  # fmt: skip


def _owners(data: Mapping[str, Any]) -> dict[str, str | None]:
    """Return the task that each module came with; None for a module that tasks share."""
    tasks = [task["name"] for task in data["tasks"]]
    places = {module["name"]: module["task"] for module in data["modules"]}
    return {name: None if place is None else tasks[place] for name, place in places.items()}


def _mean(cell: Sequence[float | None]) -> float | None:
    scores = [score for score in cell if score is not None]
    return fmean(scores) if len(scores) == len(cell) else None
