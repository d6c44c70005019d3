"""What a task is judged by."""

import math
from dataclasses import dataclass
from typing import Literal


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

    def normalized_score(self, value: float, classes: int) -> float:
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
METRICS: dict[str, Metric] = {metric.name: metric for metric in (ACCURACY, BITS_PER_CHARACTER)}
