"""Scaling of numbers to mean 0 and standard deviation 1, as plain data without any tensor."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from typing import Any, Self


@dataclass(frozen=True)
class Scaling:
    """A map from numbers x of several columns to (x − mean) / deviation, and back.

    >>> Scaling((10.0,), (2.0,)).invert(1.0)
    array([12.])
    """

    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    @classmethod
    def fit(cls, rows: Any) -> Self:
        """Return the scaling of rows (N, columns), in which NaN is missing.

        The deviation of a column that is constant is set to 1.
        """
        return cls.fit_blocks([rows])

    @classmethod
    def fit_blocks(cls, blocks: Iterable[Any]) -> Self:
        """Return the scaling of rows that come in blocks (n, columns), at least one of them."""
        import numpy as np

        counts, mean, squares = reduce(_merged, map(_moments, blocks))
        deviation = (squares / np.maximum(counts, 1)) ** 0.5
        deviation[~(deviation > 1e-12 * np.abs(mean))] = 1
        return cls(tuple(mean.tolist()), tuple(deviation.tolist()))

    def apply(self, rows: Any) -> Any:
        """Return rows (…, columns) scaled; arrays or tensors."""
        mean, deviation = self._like(rows)
        return (rows - mean) / deviation

    def invert(self, rows: Any) -> Any:
        """Return scaled rows (…, columns) in their own units; arrays or tensors."""
        mean, deviation = self._like(rows)
        return rows * deviation + mean

    def repeat(self, times: int) -> Self:
        """Return the scaling of the same columns several times side by side."""
        return type(self)(self.mean * times, self.deviation * times)

    def _like(self, rows: Any) -> tuple[Any, Any]:
        """Return mean and deviation as tensors if rows are a tensor, else as arrays."""
        if hasattr(rows, "new_tensor"):
            return rows.new_tensor(self.mean), rows.new_tensor(self.deviation)
        import numpy as np

        return np.array(self.mean), np.array(self.deviation)


Moments = tuple[Any, Any, Any]  # the count, the mean and the squared distances of each column


def _moments(rows: Any) -> Moments:
    """Return the moments of rows (n, columns), in which NaN is missing."""
    import numpy as np

    counts = (~np.isnan(rows)).sum(0)
    mean = np.nansum(rows, axis=0) / np.maximum(counts, 1)
    return counts, mean, np.nansum((rows - mean) ** 2, axis=0)


def _merged(first: Moments, second: Moments) -> Moments:
    """Return the moments of two sets of rows together (Chan, Golub and LeVeque, 1983)."""
    import numpy as np

    counts = first[0] + second[0]
    change = second[1] - first[1]
    share = second[0] / np.maximum(counts, 1)
    squares = first[2] + second[2] + change**2 * first[0] * share
    return counts, first[1] + change * share, squares
