"""Metrics as plain data: direction, perfect value, unit and format.

How they are computed stands in ``tasks/metrics.py``.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from thalnet_mtl.errors import UserError
from thalnet_mtl.json_fields import from_fields

SIGNIFICANT = 4  # digits of a value without a fixed number of decimals
MOST_DECIMALS = 20  # of a value with a fixed number of them


@dataclass(frozen=True)
class Metric:
    """The description of a metric, which is all that tables, figures and comparisons need.

    >>> RMSE.format(0.012345), ACCURACY.format(0.9432), R2.format(-0.5)
    ('0.01235', '94.32 %', '-0.5000')

    Args:
        name: key of its values in ``metrics.jsonl`` and ``result.json``.
        higher_is_better: direction.
        perfect: value of perfect predictions.
        unit: shown behind a value, such as '%'; '' for none.
        factor: of the value that is shown; 0 for 100 with the unit '%', otherwise 1.
        decimals: of the value that is shown; by default 2 for the unit '%'; otherwise None, which
            shows four significant digits.
        label: shown at axes, with the unit; by default the name and the unit.
    """

    name: str
    higher_is_better: bool
    perfect: float
    unit: str = ""
    factor: float = 0.0
    decimals: int | None = None
    label: str = ""

    def __post_init__(self) -> None:
        percent = self.unit == "%"
        unit = f" ({self.unit})" if self.unit else ""
        values = {
            "factor": self.factor or (100.0 if percent else 1.0),
            "decimals": 2 if percent and self.decimals is None else self.decimals,
            "label": self.label or self.name.replace("_", " ") + unit,
        }
        for field, value in values.items():
            object.__setattr__(self, field, value)

    @property
    def worst(self) -> float:
        """Value that every finite value is better than."""
        return -math.inf if self.higher_is_better else math.inf

    @property
    def direction(self) -> str:
        """Words for people: 'higher is better' or 'lower is better'."""
        return f"{'higher' if self.higher_is_better else 'lower'} is better"

    @property
    def title(self) -> str:
        """Name and direction in a table: 'bits per character ↓'."""
        name, _, options = self.name.partition("(")
        words = name.replace("_", " ") + (f" ({options}" if options else "")
        return f"{words} {'↑' if self.higher_is_better else '↓'}"

    def better(self, a: float, b: float) -> bool:
        """Return whether a is better than b; every number is better than NaN."""
        if math.isnan(b):
            return not math.isnan(a)
        return a > b if self.higher_is_better else a < b

    def improvement(self, value: float, reference: float) -> float:
        """Return by how much a value is better than a reference; negative if it is worse."""
        return value - reference if self.higher_is_better else reference - value

    def normalized_score(self, value: float, guess: float) -> float:
        """Return (value − guess) / (perfect − guess): 0 for guessing, 1 for perfect predictions.

        Args:
            value: the score.
            guess: score of the best constant answer on the same data.

        Raises:
            UserError: guessing is perfect, so that nothing can be learned.
        """
        if guess == self.perfect:
            score = self.format(guess)
            raise UserError(f"{self.name}: guessing already has the perfect score, {score}.")
        return (value - guess) / (self.perfect - guess)

    def scale(self, value: float) -> float:
        """Return a value in the unit in which it is shown."""
        return self.factor * value

    def number(self, value: float) -> str:
        """Format a value without its unit."""
        shown, decimals = self.scale(value), self.decimals
        if decimals is None:
            size = abs(shown)
            if size and math.isfinite(size) and not 1e-4 <= size < 1e7:
                return f"{shown:.{SIGNIFICANT - 1}e}"
            digits = math.floor(math.log10(size)) if size and math.isfinite(size) else 0
            decimals = max(0, SIGNIFICANT - 1 - digits)
        return f"{shown:.{decimals}f}"

    def format(self, value: float) -> str:
        """Format a value with its unit."""
        return f"{self.number(value)} {self.unit}".rstrip()

    def to_json(self) -> dict[str, Any]:
        """Return the metric as ``result.json`` holds it."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Any, where: str) -> "Metric":
        """Read a metric of ``result.json``; ``where`` names it in errors."""
        metric = from_fields(cls, content, where)
        if not 0 <= (metric.decimals or 0) <= MOST_DECIMALS:
            raise UserError(f"{where} is damaged: {metric.decimals} is no number of decimals.")
        if not math.isfinite(metric.perfect) or not math.isfinite(metric.factor):
            raise UserError(f"{where} is damaged: its perfect value or its factor is not finite.")
        return metric


def list_names(names: Sequence[str], most: int = 6) -> str:
    """Return names in a row: 'a, b, c', or the first of many and their number."""
    if len(names) <= most:
        return ", ".join(names)
    return f"{', '.join(names[:most])}, … ({len(names)})"


def format_scores(metrics: Iterable[Metric], values: Mapping[str, float]) -> str:
    """Return scores by metric as words: 'accuracy 94.32 %, f1 0.9311'."""
    return ", ".join(f"{metric.name} {metric.format(values[metric.name])}" for metric in metrics)


ACCURACY = Metric("accuracy", True, 1.0, "%")
TOP_K_ACCURACY = Metric("top_k_accuracy", True, 1.0, "%")
F1 = Metric("f1", True, 1.0, decimals=4, label="F1 score")
AUROC = Metric("auroc", True, 1.0, decimals=4, label="area under the ROC curve")
AVERAGE_PRECISION = Metric("average_precision", True, 1.0, decimals=4)
BITS_PER_CHARACTER = Metric(
    "bits_per_character", False, 0.0, "bits", decimals=4, label="bits per character"
)
PERPLEXITY = Metric("perplexity", False, 1.0)
CALIBRATION_ERROR = Metric("calibration_error", False, 0.0, "%")
MAE = Metric("mae", False, 0.0, label="mean absolute error")
MSE = Metric("mse", False, 0.0, label="mean squared error")
RMSE = Metric("rmse", False, 0.0, label="root mean squared error")
R2 = Metric("r2", True, 1.0, decimals=4, label="R²")

# The built-in metrics by name, in the order of 'thalnet list metrics'.
METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        *(ACCURACY, TOP_K_ACCURACY, F1, AUROC, AVERAGE_PRECISION, CALIBRATION_ERROR),
        *(BITS_PER_CHARACTER, PERPLEXITY, MAE, MSE, RMSE, R2),
    )
}


def guess_among_equal_classes(metric: str, classes: int) -> float:
    """Return the score of guessing if all classes are equally frequent.

    It replaces the recorded score of guessing for runs of versions that did not record it, which
    had two metrics: accuracy, 1 / n, and bits per character, log2(n).
    """
    scores = {ACCURACY.name: lambda n: 1 / n, BITS_PER_CHARACTER.name: math.log2}
    return scores[metric](max(2, classes))
