"""Measures of learning curves: the speed of learning, and the stability gap of old tasks.

A curve holds the scores of a task on one split of its data, at some steps. Levels (min-ACC) stay
in the unit of the metric: the worst score in bits is the highest.
"""

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence

from thalnet_mtl.metrics.continual import AccuracyMatrix, Measure, Undefined, measure, score_of
from thalnet_mtl.metrics.metric import Metric

Curve = Sequence[tuple[int, float]]  # step, score


def steps_to_reach(
    metrics: Mapping[str, Metric],
    curves: Mapping[str, Curve],
    single: Mapping[str, float],
    part: float = 0.9,
) -> Measure:
    """Compute the step of the first evaluation that reaches a part of S[j], and the mean over j.

    A part p is reached at a relative gain of p − 1: an accuracy of at least p · S, or at most
    (2 − p) · S bits. S must be above 0. Nothing is interpolated, so that the step is late by up to
    the distance between two evaluations.

    Args:
        metrics: By task.
        curves: Steps and scores, by task.
        single: Scores S of single-task runs, by task.
        part: p.
    """

    def value(task: str) -> float:
        metric, baseline = metrics[task], score_of(single, task, "single-task")
        if not baseline > 0:
            raise Undefined(f"the single-task run scores {metric.format(baseline)}, not above 0")
        target = (part if metric.higher_is_better else 2 - part) * baseline
        curve = curves.get(task, ())
        steps = [n for n, score in curve if score == target or metric.better(score, target)]
        if not steps:
            raise Undefined(f"never reached {metric.format(target)}")
        return float(min(steps))

    return measure(metrics, value)


def minimum_accuracy(
    matrix: AccuracyMatrix, curves: Mapping[str, Curve], ends: Sequence[int]
) -> Measure:
    """Compute min-ACC = mean_j of the worst A(j, n) over the old tasks, for e[last(j)] < n ≤ e[T].

    De Lange et al., "Continual evaluation for lifelong learning: Identifying the stability gap",
    ICLR 2023. A(j, n) is the score of task j at step n of the stream; e[i] is the step at which
    stage i ends. A task that was not evaluated within each stage after its last one has no value,
    because scores at the ends of stages do not show the gap.

    Args:
        matrix: Says which tasks are old, and when they were trained.
        curves: Steps and scores A, by task.
        ends: The steps e[1] … e[T].
    """
    return measure(matrix.old, lambda j: _worst(matrix, curves, ends, j), matrix.metrics)


def _worst(
    matrix: AccuracyMatrix, curves: Mapping[str, Curve], ends: Sequence[int], task: str
) -> float:
    if len(ends) != matrix.stages:
        raise ValueError(f"{matrix.stages} stages need as many ends, got {len(ends)}.")
    last, curve = matrix.last(task), curves.get(task, ())
    steps = sorted(n for n, _ in curve)
    for stage in range(last, matrix.stages):
        next_step = bisect_right(steps, ends[stage - 1])
        if next_step == len(steps) or steps[next_step] >= ends[stage]:
            raise Undefined(f"no evaluation within stage {stage + 1}")
    scores = [score for n, score in curve if ends[last - 1] < n <= ends[-1]]
    if not all(map(math.isfinite, scores)):
        raise Undefined("an evaluation that is not finite")
    return min(scores) if matrix.metrics[task].higher_is_better else max(scores)
