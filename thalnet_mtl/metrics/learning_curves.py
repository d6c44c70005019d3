"""How fast a task is learned, and how far old ones fall meanwhile, from scores in between.

A curve is what one part of the data scored at some steps. Levels (LCA, min-ACC, WC-ACC) stay in
the unit of the metric: the worst bits are the most bits.
"""

import math
from collections.abc import Mapping, Sequence

from thalnet_mtl.metrics.continual import AccuracyMatrix, Measure, Undefined, measure, score_of
from thalnet_mtl.metrics.metric import Metric

Curve = Sequence[tuple[int, float]]  # step, score


def learning_curve_area(
    metrics: Mapping[str, Metric], curves: Mapping[str, Curve], batches: int
) -> Measure:
    """LCA_k = mean over b in 0 … k of the score after b batches of a task, and over the tasks.

    Chaudhry et al., "Efficient Lifelong Learning with A-GEM", ICLR 2019. The steps of a curve
    count from the begin of the training of its task, and every one up to k has to be there:
    nothing is interpolated.
    """

    def value(task: str) -> float:
        scores = dict(curves.get(task, ()))
        absent = [b for b in range(batches + 1) if not math.isfinite(scores.get(b, math.nan))]
        if absent:
            raise Undefined(f"no score after {absent[0]} of {batches} batches")
        return math.fsum(scores[b] for b in range(batches + 1)) / (batches + 1)

    return measure(metrics, value, metrics)


def steps_to_reach(
    metrics: Mapping[str, Metric],
    curves: Mapping[str, Curve],
    single: Mapping[str, float],
    part: float = 0.9,
) -> Measure:
    """The step of the first evaluation that reaches a part of S[j], and the mean over the tasks.

    A part p is reached at a relative gain of p − 1: where accuracy is p · S or more, bits are
    (2 − p) · S or fewer. An evaluation, not a point between two: a step that was measured, and
    late by less than the distance of two evaluations.
    """

    def value(task: str) -> float:
        metric, baseline = metrics[task], score_of(single, task, "single-task")
        if baseline == 0:
            raise Undefined("the single-task run scores 0, of which nothing is a part")
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
    """min-ACC = mean_j of the worst A(j, n) over the old tasks, for e[last(j)] < n ≤ e[T].

    De Lange et al., "Continual evaluation for lifelong learning: Identifying the stability gap",
    ICLR 2023. A(j, n) are the evaluations of task j in the course of the whole stream, e the steps
    at which its stages end. A task that was not evaluated within each stage after its last has
    none: between stages there is no gap to be seen.
    """
    return measure(matrix.old, lambda j: _worst(matrix, curves, ends, j), matrix.metrics)


def worst_case_accuracy(
    matrix: AccuracyMatrix, curves: Mapping[str, Curve], ends: Sequence[int]
) -> Measure:
    """WC-ACC = A(k, e[T]) / k + (1 − 1/k) · min-ACC, for k tasks (De Lange et al., 2023).

    That is the mean, over all tasks, of the worst score of an old one and of the last score of one
    that the last stage trained; both from ``curves``, which may be of another part of the data
    than the matrix.
    """

    def value(task: str) -> float:
        if task in matrix.old:
            return _worst(matrix, curves, ends, task)
        score = dict(curves.get(task, ())).get(ends[-1], math.nan)
        if not math.isfinite(score):
            raise Undefined(f"no score at step {ends[-1]}")
        return score

    return measure(matrix.metrics, value, matrix.metrics)


def _worst(
    matrix: AccuracyMatrix, curves: Mapping[str, Curve], ends: Sequence[int], task: str
) -> float:
    if len(ends) != matrix.stages:
        raise ValueError(f"{matrix.stages} stages have as many ends, not {len(ends)}.")
    last, curve = matrix.last(task), curves.get(task, ())
    for stage in range(last, matrix.stages):
        if not any(ends[stage - 1] < n < ends[stage] for n, _ in curve):
            raise Undefined(f"no evaluation within stage {stage + 1}")
    scores = [score for n, score in curve if ends[last - 1] < n <= ends[-1]]
    if not all(map(math.isfinite, scores)):
        raise Undefined("an evaluation that is not finite")
    return min(scores) if matrix.metrics[task].higher_is_better else max(scores)
