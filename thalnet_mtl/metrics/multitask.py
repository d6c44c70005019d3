"""Measures of multi-task learning relative to single-task runs: skill, relative gain, Δm."""

from collections.abc import Sequence

from thalnet_mtl.errors import UserError
from thalnet_mtl.metrics.metric import Metric


def skill(score: float, baseline: float, untrained: float) -> float:
    """Return the skill (R − b) / (S − b) of a run.

    The skill score of Murphy (1988): 0 at the untrained score b, 1 at the score S of the
    single-task run, above 1 if the run is better than S. The direction of the metric cancels.

    Args:
        score: R.
        baseline: S.
        untrained: b.

    Raises:
        UserError: S equals b.
    """
    if baseline == untrained:
        raise UserError(
            f"no skill: the baseline scores {baseline:.6g}, as the untrained network does. Name "
            f"baselines that have learned the task."
        )
    return (score - untrained) / (baseline - untrained)


def relative_gain(score: float, baseline: float, metric: Metric) -> float:
    """Return the relative gain ±(R − S) / S of a run over a single-task run.

    The sign is − for metrics where lower is better, so that a gain above 0 is an improvement.

    Args:
        score: R.
        baseline: S.

    Raises:
        UserError: S is 0.
    """
    if baseline == 0:
        raise UserError(f"no relative gain: the {metric.name} of the baseline is 0.")
    gain = (score - baseline) / baseline
    return gain if metric.higher_is_better else -gain


def delta_m(gains: Sequence[float]) -> float:
    """Return Δm, the mean of ±(R − S) / S over the tasks of a run (Maninis et al., CVPR 2019).

    Raises:
        ValueError: there are no tasks.
    """
    if not gains:
        raise ValueError("Δm is a mean over tasks, but there are no tasks.")
    return sum(gains) / len(gains)
