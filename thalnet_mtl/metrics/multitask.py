"""Measures of multi-task learning relative to single-task runs: skill, relative gain, Δm."""

from collections.abc import Sequence

from thalnet_mtl.errors import UserError
from thalnet_mtl.metrics.metric import Metric


def skill(score: float, baseline: float, guess: float) -> float:
    """Return the skill (R − b) / (S − b) of a run.

    The skill score of Murphy (1988): 0 at the score b of guessing, 1 at the score S of the
    single-task run, above 1 if the run is better than S. The direction of the metric cancels.

    Args:
        score: R.
        baseline: S.
        guess: b, the score of the best constant answer on the same data.

    Raises:
        UserError: S equals b.
    """
    if baseline == guess:
        raise UserError(
            f"no skill: the baseline scores {baseline:.6g}, as guessing does. Name baselines that "
            f"have learned the task."
        )
    return (score - guess) / (baseline - guess)


def relative_gain(score: float, baseline: float, metric: Metric) -> float:
    """Return the relative gain ±(R − S) / S of a run over a single-task run.

    The sign is − for metrics where lower is better, so that a gain above 0 is an improvement. It
    is a part of S, which means something only for scores above 0.

    Args:
        score: R.
        baseline: S.

    Raises:
        UserError: S is not above 0.
    """
    if not baseline > 0:
        raise UserError(
            f"no relative gain: the {metric.name} of the baseline is {metric.format(baseline)}; a "
            f"gain is a part of a score above 0."
        )
    return metric.improvement(score, baseline) / baseline


def delta_m(gains: Sequence[float]) -> float:
    """Return Δm, the mean of ±(R − S) / S over the tasks of a run (Maninis et al., CVPR 2019).

    Raises:
        ValueError: there are no tasks.
    """
    if not gains:
        raise ValueError("Δm is a mean over tasks, but there are no tasks.")
    return sum(gains) / len(gains)
