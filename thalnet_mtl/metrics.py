"""What a task is judged by."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from thalnet_mtl.config import UserError


@dataclass(frozen=True)
class Metric:
    """A name, a direction, and the value from what an evaluation sums up.

    ``better(a, b)`` says whether a beats b; ``worst`` is beaten by every finite value.
    """

    name: Literal["accuracy", "bits_per_character"]
    higher_is_better: bool

    @property
    def worst(self) -> float:
        return -math.inf if self.higher_is_better else math.inf

    def better(self, a: float, b: float) -> bool:
        return a > b if self.higher_is_better else a < b

    def value(self, nats: float, correct: int, count: int) -> float:
        """From summed cross-entropy (nats), right answers and answers.

        Accuracy is correct / count, in [0, 1]; bits per character are nats / (count · ln 2).
        """
        return correct / count if self.name == "accuracy" else nats / count / math.log(2)

    def level(self, value: float, classes: int) -> float:
        """Where a value stands between guessing among equal classes, 0, and perfection, 1.

        Accuracy a: (a − 1/n) / (1 − 1/n). Bits b: 1 − b / log2(n).
        """
        classes = max(2, classes)
        if self.name == "accuracy":
            return (value - 1 / classes) / (1 - 1 / classes)
        return 1 - value / math.log2(classes)

    def format(self, value: float) -> str:
        """For people: accuracy in percent, bits with four digits."""
        return f"{100 * value:.2f} %" if self.name == "accuracy" else f"{value:.4f} bits"


ACCURACY = Metric("accuracy", True)
BITS_PER_CHARACTER = Metric("bits_per_character", False)
METRICS = {metric.name: metric for metric in (ACCURACY, BITS_PER_CHARACTER)}


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
