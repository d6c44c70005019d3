"""Curves over seeds as one line with a band, thinned to what a figure can show."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
from jaxtyping import Float

LOWEST, HIGHEST = 0.1, 0.9  # quantiles over seeds at the edges of a band
BAND = "from the 10th to the 90th percentile"

Values = Float[np.ndarray, " points"]
Curves = Sequence[Float[np.ndarray, "_ 3"]]  # columns: step, seconds of training, value


@dataclass(frozen=True)
class Band:
    """Curves of several seeds at common steps."""

    steps: Values
    seconds: Values  # of training until then, the mean over seeds
    lines: Float[np.ndarray, "seeds points"]  # NaN where a seed has no value
    merged: int = 1  # logged values that a point is the mean of

    @property
    def median(self) -> Values:
        """Median over the seeds that have a value."""
        return self.quantile(0.5)

    def quantile(self, share: float) -> Values:
        """Return a quantile over the seeds that have a value; NaN where none has."""
        finite = np.isfinite(self.lines)
        lines = np.where(finite, self.lines, np.nan)
        if len(lines) == 1:
            return lines[0]
        values, whole, known = np.full(len(self.steps), np.nan), finite.all(0), finite.any(0)
        values[whole] = np.quantile(lines[:, whole], share, axis=0)
        if (partly := known & ~whole).any():
            values[partly] = np.nanquantile(lines[:, partly], share, axis=0)
        return values

    def thinned(self, most: int) -> "Band":
        """Return at most so many points: each the mean of as many that follow one another."""
        every = -(-len(self.steps) // most)
        if every == 1:
            return self
        starts = np.arange(0, len(self.steps), every)
        counts = np.diff([*starts, len(self.steps)])
        steps, seconds = (
            np.add.reduceat(values, starts) / counts for values in (self.steps, self.seconds)
        )
        lines = np.add.reduceat(self.lines, starts, axis=1) / counts
        return replace(self, steps=steps.round(), seconds=seconds, lines=lines, merged=every)


def band_of(curves: Curves) -> Band | None:
    """Join curves at all steps that one of them has; None if none has a point.

    Between its first and last step a curve is interpolated where it lacks a step; it has no value
    before and after them.
    """
    curves = [curve for curve in curves if len(curve)]
    if not curves:
        return None
    steps = reduce(np.union1d, [curve[:, 0] for curve in curves])
    lines, seconds = (
        np.array([
            np.interp(steps, curve[:, 0], curve[:, column], left=np.nan, right=np.nan)
            for curve in curves
        ])
        for column in (2, 1)
    )  # fmt: skip
    known = np.maximum(np.isfinite(seconds).sum(0), 1)
    return Band(steps, np.nan_to_num(seconds).sum(0) / known, lines)
