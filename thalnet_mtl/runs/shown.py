"""Results and runs as prompts and notebooks show them."""

from collections.abc import Mapping, Sequence
from typing import Any

from thalnet_mtl import markup
from thalnet_mtl.config.schema import Config
from thalnet_mtl.metrics.metric import Metric, format_scores, list_names

SCORES = ("untrained", "train", "validation", "test")
FEW = 12  # tasks and experiences: of more, the matrix of scores has no table


class ShownResult:
    """A result that shows itself as the scores of its tasks."""

    def __repr__(self) -> str:
        result: Any = self
        lines = [
            f"{name}: test {format_scores(task.metrics, task.scores['test'].values)}"
            for name, task in result.tasks.items()
        ]
        lines += [result.continual.line(_metrics(result))] if result.continual else []
        return "\n  ".join([f"RunResult: {result.body}, {about(result)}", *lines])

    def _repr_html_(self) -> str:
        result: Any = self
        return markup.heading("Result", f"{result.body}, {about(result)}") + scores_html(result)


class ShownTaskResult:
    """A result on a task that shows itself as its scores."""

    def __repr__(self) -> str:
        result: Any = self
        scores = [
            f"{split} {format_scores(result.metrics, result.scores[split].values)}"
            for split in reversed(SCORES)
        ]
        return f"TaskResult({result.label}: {'; '.join(scores)})"


class ShownRun:
    """A run that shows itself as its configuration in a line, and its result if it has one.

    It has ``folder``, ``config``, ``result``, and a ``step``; ``_at`` says of what.
    """

    _at = "step"

    def __repr__(self) -> str:
        run: Any = self
        end = about(run.result) if run.result else f"unfinished, {self._at} {run.step:,}"
        return f"{type(self).__name__}('{run.folder}'): {title(run.config)}; {end}"

    def _repr_html_(self) -> str:
        run: Any = self
        end = about(run.result) if run.result else f"unfinished, {self._at} {run.step:,}"
        scores = scores_html(run.result) if run.result else ""
        config = markup.folded("configuration", run.config._repr_html_())
        return markup.heading(run.folder, f"{title(run.config)}; {end}") + scores + config


def title(config: Config) -> str:
    """Return the body, the tasks and the seed of a run in a line."""
    names = list_names(list(config.named_tasks))
    return f"{config.model.body} on {names}, seed {config.train.seed}"


def about(result: Any) -> str:
    """Return the size and the cost of a finished run in a line."""
    best = f" (best: {result.best_step:,})" if result.best_step != result.steps else ""
    return (
        f"{result.parameters.total:,} parameters, {result.steps:,} steps{best}, "
        f"{result.seconds:,.0f} s"
    )


def scores_html(result: Any) -> str:
    """Return the scores of a run as a table; of a stream also its measures and its matrix."""
    lines = [
        [name, metric.title]
        + [metric.format(task.scores[split].values[metric.name]) for split in SCORES]
        for name, task in result.tasks.items()
        for metric in task.metrics
    ]
    html = markup.table(["task", "metric", *SCORES], lines, SCORES)
    if not result.continual:
        return html
    measures = result.continual.row(_metrics(result))
    html += markup.table(list(measures), [list(measures.values())], [*measures][3:])
    scores: Sequence[Sequence[float | None]] = result.continual.scores
    if max(len(scores), len(scores[0])) <= FEW:
        stages = ["untrained", *(", ".join(tasks) for tasks in result.continual.trained)]
        metrics = _metrics(result)
        lines = [
            [stage, *map(_score, metrics.values(), row)]
            for stage, row in zip(stages, scores, strict=True)
        ]
        matrix = markup.table(["after", *metrics], lines, metrics)
        html += markup.folded("test scores after each experience", matrix)
    return html


def _score(metric: Metric, score: float | None) -> str:
    return "–" if score is None else metric.format(score)


def _metrics(result: Any) -> Mapping[str, Metric]:
    return {name: task.metrics[0] for name, task in result.tasks.items()}
