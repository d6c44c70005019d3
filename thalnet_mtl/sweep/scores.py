"""Validation scores of runs, by which settings are chosen."""

import math
from collections.abc import Sequence
from statistics import fmean

from thalnet_mtl.metrics.metric import Metric
from thalnet_mtl.metrics.summary import NORMALIZED
from thalnet_mtl.runs.results import RunResult


def score_of(result: RunResult, tasks: Sequence[str]) -> tuple[float, Metric]:
    """Return the mean validation score of a run over some tasks, in their main metric.

    Where tasks differ in their metric, it is the mean of normalized scores: 0 for guessing, 1 for a
    perfect answer.
    """
    results = [result.tasks[task] for task in tasks]
    metrics = {task.metrics[0] for task in results}
    if len(metrics) == 1:
        return fmean(task.validation for task in results), metrics.pop()
    scores = [
        task.metrics[0].normalized_score(task.validation, task.guess_score("validation"))
        for task in results
    ]
    return fmean(scores), NORMALIZED


def ranked(scores: Sequence[float | None], metric: Metric) -> list[int]:
    """Return the numbers of the scores, the best first; of equals, the first one.

    What has no score, or none that is finite, is left out.

    >>> ranked([0.5, None, 0.75, 0.75], NORMALIZED)
    [2, 3, 0]
    """
    by_number = {k: score for k, score in enumerate(scores) if score is not None}
    finite = [k for k, score in by_number.items() if math.isfinite(score)]
    return sorted(finite, key=lambda k: metric.improvement(by_number[k], 0.0), reverse=True)
