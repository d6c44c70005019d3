"""What a task is judged by."""

from collections.abc import Sequence

from thalnet_mtl.errors import UserError
from thalnet_mtl.metrics.metric import Metric


def skill(score: float, baseline: float, untrained: float) -> float:
    """What of the way from an untrained network to a single-task run a run has gone.

    (R − b) / (S − b), the skill score of Murphy (1988): 0 at the untrained score b, 1 at the
    score S of the single-task run, and beyond 1 past it. The direction of the metric cancels.

    Raises:
        UserError: S equals b, so that there is no way to go a part of.
    """
    if baseline == untrained:
        raise UserError(
            f"no skill: the baseline scores {baseline:.6g}, as the untrained network does. Name "
            f"baselines that have learned the task."
        )
    return (score - untrained) / (baseline - untrained)


def relative_gain(score: float, baseline: float, metric: Metric) -> float:
    """How far a run is past a single-task run, as a part of the score of the latter.

    ±(R − S) / S, minus where lower is better: above 0 is past the baseline in either direction.

    Raises:
        UserError: S is 0, of which nothing is a part.
    """
    if baseline == 0:
        raise UserError(f"no relative gain: the {metric.name} of the baseline is 0.")
    gain = (score - baseline) / baseline
    return gain if metric.higher_is_better else -gain


def delta_m(gains: Sequence[float]) -> float:
    """Δm = mean of ±(R − S) / S over the tasks of a run (Maninis et al., CVPR 2019).

    Raises:
        ValueError: there are no tasks.
    """
    if not gains:
        raise ValueError("Δm is a mean over tasks, and there are none.")
    return sum(gains) / len(gains)
