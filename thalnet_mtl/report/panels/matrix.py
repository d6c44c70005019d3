"""The matrix of scores of a run over several experiences."""

from collections.abc import Mapping

from thalnet_mtl.metrics.metric import Metric
from thalnet_mtl.metrics.summary import ContinualSummary
from thalnet_mtl.report.panel import Panel, number

SENTENCE = (
    "A row is the network after an experience, a column is a task; frames mark the tasks that the "
    "experience trained. Shades run from the score of guessing to the perfect one."
)


def matrix_panel(
    title: str,
    summary: ContinualSummary,
    metrics: Mapping[str, Metric],
    guesses: Mapping[str, float],
) -> Panel:
    """Return the matrix R of test scores, with a row for each stage and a column for each task.

    Args:
        title: of the panel.
        summary: of its stream.
        metrics: main metric of each task, in the order of the columns of R.
        guesses: test scores of guessing, by task.
    """
    tasks = list(metrics)
    stages = [
        "untrained",
        *(f"{n}: {', '.join(each)}" for n, each in enumerate(summary.trained, 1)),
    ]
    scores = [dict(zip(tasks, row, strict=True)) for row in summary.scores]
    table = [
        {"after": stage}
        | {task: "–" if s is None else metrics[task].format(s) for task, s in row.items()}
        for stage, row in zip(stages, scores, strict=True)
    ]
    data = {
        "tasks": tasks,
        "stages": stages,
        "units": [metric.unit for metric in metrics.values()],
        "trained": [[], *([tasks.index(task) for task in each] for each in summary.trained)],
        "scores": [
            [None if s is None else number(metrics[task].scale(s)) for task, s in row.items()]
            for row in scores
        ],
        "shades": [
            [_shade(metrics[task], s, guesses[task]) for task, s in row.items()] for row in scores
        ],
    }
    return Panel("matrix", title, SENTENCE, data, table)


def _shade(metric: Metric, score: float | None, guess: float) -> float | None:
    """Return 0 for the score of guessing or worse, 1 for the perfect one; None without a score."""
    if score is None:
        return None
    if guess == metric.perfect:
        return 0.0
    return number(min(max(metric.normalized_score(score, guess), 0.0), 1.0), 3)
