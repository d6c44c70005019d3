"""Scaling of numbers to mean 0 and standard deviation 1, as plain data without any tensor."""

from dataclasses import dataclass
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
        import numpy as np

        counts = np.maximum((~np.isnan(rows)).sum(0), 1)
        mean = np.nansum(rows, axis=0) / counts
        deviation = (np.nansum((rows - mean) ** 2, axis=0) / counts) ** 0.5
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
