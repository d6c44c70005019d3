"""Metrics of a task: accuracy and bits per character."""

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """A metric: its name, its direction, and its value from the sums of an evaluation."""

    name: Literal["accuracy", "bits_per_character"]
    higher_is_better: bool

    @property
    def worst(self) -> float:
        """Value that every finite value is better than."""
        return -math.inf if self.higher_is_better else math.inf

    def better(self, a: float, b: float) -> bool:
        """Return whether a is better than b."""
        return a > b if self.higher_is_better else a < b

    def value(self, nats: float, correct: int, count: int) -> float:
        """Return the metric, given summed cross-entropy in nats, correct answers and targets.

        Accuracy is correct / count, in [0, 1]; bits per character are nats / (count · ln 2).
        """
        return correct / count if self.name == "accuracy" else nats / count / math.log(2)

    def normalized_score(self, value: float, classes: int) -> float:
        """Map a value to a scale on which guessing among equal classes is 0 and perfection is 1.

        Accuracy a: (a − 1/n) / (1 − 1/n). Bits b: 1 − b / log2(n).
        """
        classes = max(2, classes)
        if self.name == "accuracy":
            return (value - 1 / classes) / (1 - 1 / classes)
        return 1 - value / math.log2(classes)

    def format(self, value: float) -> str:
        """Format a value: accuracy in percent, bits with four decimals."""
        return f"{100 * value:.2f} %" if self.name == "accuracy" else f"{value:.4f} bits"


ACCURACY = Metric("accuracy", True)
BITS_PER_CHARACTER = Metric("bits_per_character", False)
METRICS: dict[str, Metric] = {metric.name: metric for metric in (ACCURACY, BITS_PER_CHARACTER)}
