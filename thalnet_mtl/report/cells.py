"""Cells of tables of runs: values over seeds as mean and interval, and compared rows."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import floor, isfinite, log10
from pathlib import Path
from statistics import mean

from thalnet_mtl.metrics.metric import Metric
from thalnet_mtl.metrics.significance import (
    MOST_PAIRS,
    Verdict,
    bootstrap_interval,
    holm,
    sign_flip_test,
    verdict,
)
from thalnet_mtl.report.folding import MISSING, Key, Row

MOST_DECIMALS = 10
NO_PAIR = Verdict("undecided", "no pair of runs with the same seed.")


@dataclass(frozen=True)
class Cell:
    """The values of a quantity over the seeds of a row, in the unit of its metric."""

    values: Sequence[float]
    metric: Metric | None = None

    @property
    def mean(self) -> float | None:
        """Mean of the values; None if there is none."""
        return float(mean(self.values)) if self.values else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % bootstrap interval of the mean; None for fewer than two values."""
        return bootstrap_interval(self.values) if len(self.values) > 1 else None

    def format(self, decimals: int | None = None) -> str:
        """Return mean and interval as they are shown, or the value alone where all are equal.

        Without decimals, those of the metric are used, and '0.0' says that all are exactly 0.

        >>> from thalnet_mtl.metrics.metric import ACCURACY
        >>> Cell([0.9, 0.92, 0.94], ACCURACY).format(), Cell([0.5, 0.5], ACCURACY).format(0)
        ('92.00 [90.00, 94.00]', '50')
        """
        if not self.values or self.metric is None:
            return MISSING
        shown = [self.metric.scale(value) for value in self.values]
        if decimals is None:
            decimals = _decimals(self.metric, mean(shown))
            if decimals and not any(shown):
                return "0.0"
        return spread(shown, decimals)


def spread(values: Sequence[float], decimals: int = 2) -> str:
    """Return mean and 95 % bootstrap interval, or the value alone if all are equal.

    >>> spread([1, 2, 3]), spread([2.5, 2.5], 1), spread([])
    ('2.00 [1.00, 3.00]', '2.5', '–')
    """
    if len(set(values)) < 2:
        return _number(values[0], decimals) if values else MISSING
    low, high = (_number(end, decimals) for end in bootstrap_interval(list(map(float, values))))
    return f"{_number(mean(values), decimals)} [{low}, {high}]"


def _number(value: float, decimals: int) -> str:
    """Format a number with some decimals, a huge or tiny one with an exponent."""
    if value and isfinite(value) and not 1e-6 <= abs(value) < 1e12:
        return f"{value:.3e}"
    return f"{value:,.{decimals}f}"


def _decimals(metric: Metric, value: float) -> int:
    """Return the decimals of a metric, or as many as show four significant digits of a value."""
    if metric.decimals is not None:
        return metric.decimals
    size = floor(log10(abs(value))) if value and isfinite(value) else 0
    return min(max(0, 3 - size), MOST_DECIMALS)


@dataclass(frozen=True)
class Column:
    """A quantity of every row: ``cells`` are in the order of the rows."""

    name: str
    title: str  # with the unit
    metric: Metric | None  # None if no run has a value
    values: Mapping[Path, float]  # by the path of the run
    cells: Sequence[Cell]

    @property
    def difference_title(self) -> str:
        """Title of a difference, for which points stand for percent."""
        return (
            f"{start}, points" if (start := self.title.removesuffix(", %")) != self.title else start
        )


@dataclass(frozen=True)
class Comparison:
    """A row compared with another one, over runs with the same seed."""

    row: Row
    baseline: Row
    column: Column
    difference: Cell  # row − baseline, a value for each pair
    p: float | None = None  # of the sign-flip test; None where nothing was tested
    corrected_p: float | None = None
    result: Verdict = NO_PAIR

    @property
    def pairs(self) -> int:
        """Number of pairs of runs with the same seed."""
        return len(self.difference.values)

    def raw(self) -> list[object]:
        """Return the label of the baseline, and all numbers; None for those that do not exist."""
        interval = self.difference.interval or (None, None)
        numbers = self.difference.mean, *interval, self.pairs, self.p, self.corrected_p
        return [self.baseline.label, *numbers, self.result.word]


def compare(pairs: Iterable[tuple[Row, Row]], columns: Iterable[Column]) -> list[Comparison]:
    """Test the differences of pairs of rows in some columns; see ``differences`` and ``tested``."""
    return tested(differences(pairs, columns))


def differences(pairs: Iterable[tuple[Row, Row]], columns: Iterable[Column]) -> list[Comparison]:
    """Return the differences of pairs of rows in some columns, a value for each common seed."""
    pairs = list(pairs)
    return [_difference(*pair, column) for column in columns for pair in pairs]


def tested(comparisons: Iterable[Comparison]) -> list[Comparison]:
    """Return comparisons with p of exact sign-flip tests, corrected for all of them, and verdicts.

    The correction is that of Holm. A comparison of fewer than two pairs is not tested.
    """
    compared = list(comparisons)
    p_values = {
        str(number): sign_flip_test(comparison.difference.values)
        for number, comparison in enumerate(compared)
        if 1 < comparison.pairs <= MOST_PAIRS
    }
    corrected = holm(p_values)
    for number, comparison in enumerate(compared):
        values, metric = comparison.difference.values, comparison.column.metric
        if (key := str(number)) in p_values:
            assert metric is not None
            result = verdict(values, corrected[key], metric.higher_is_better, len(p_values))
            compared[number] = replace(
                comparison, p=p_values[key], corrected_p=corrected[key], result=result
            )
        elif values:
            count = f"{len(values)} pair{'s' * (len(values) > 1)}"
            result = Verdict("undecided", f"{count}: the test takes 2 to {MOST_PAIRS}.")
            compared[number] = replace(comparison, result=result)
    return compared


def seed_means(row: Row, values: Mapping[Path, float]) -> dict[int, float]:
    """Return the mean over the runs of each seed, by seed; runs have values by their path."""
    by_seed: dict[int, list[float]] = {}
    for run in row.runs.values():
        if run.path in values:
            by_seed.setdefault(run.seed, []).append(values[run.path])
    return {seed: mean(by_seed[seed]) for seed in sorted(by_seed)}


def _difference(row: Row, baseline: Row, column: Column) -> Comparison:
    """Return two rows with their differences by seed.

    Where both have several runs of a seed, it is between those that are equal in all fields that
    are averaged over, if there are any.
    """
    values, sides = column.values, list[dict[Key, float]]()
    for runs in (row.runs, baseline.runs):
        sides.append({key: values[run.path] for key, run in runs.items() if run.path in values})
    differences = []
    for seed in sorted(set.intersection(*({seed for seed, _ in side} for side in sides))):
        ours, theirs = ({key: x for key, x in side.items() if key[0] == seed} for side in sides)
        common = ours.keys() & theirs.keys()
        means = [mean(side[key] for key in sorted(common or side)) for side in (ours, theirs)]
        differences.append(means[0] - means[1])
    return Comparison(row, baseline, column, Cell(differences, column.metric))
