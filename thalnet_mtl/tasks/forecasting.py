"""Windows over a series, for forecasting its next values at every step; splits follow time.

No network is scored on values that it was trained on. A window of validation or test begins early
enough for the network to have read part of the series before its first forecast counts.
"""

from collections.abc import Mapping

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from thalnet_mtl.errors import UserError

Windows = tuple[np.ndarray, np.ndarray]  # inputs (N, steps, inputs), targets (N, steps, horizon)


def forecasting_splits(
    inputs: np.ndarray, values: np.ndarray, parts: Mapping[str, int], steps: int, horizon: int = 1
) -> dict[str, Windows]:
    """Cut a series into parts and each part into windows, and return the windows by part.

    The targets of time t are the values at t + 1 … t + horizon, all of the same part. Training
    windows, those of the first part, begin at every step. Windows of the other parts cover every
    target once: the last half of a window has targets, those of the first half are NaN (missing).
    That half may reach back into the part before.

    Args:
        inputs: (time, inputs), what a network reads.
        values: (time,), what it forecasts.
        parts: number of time steps of each part, in the order of time.
        steps: length of a window.
        horizon: number of values to forecast.

    Raises:
        UserError: a part is too short for a window.
    """
    if steps < 2 or horizon < 1:
        raise UserError(f"steps {steps}, horizon {horizon}: expected at least 2 and 1.")
    future = np.full((len(values), horizon), np.nan)
    future[:-horizon] = sliding_window_view(values, horizon)[1:]
    splits: dict[str, Windows] = {}
    start = 0
    for name, length in parts.items():
        needed = horizon if splits else steps + horizon
        if length < needed:
            raise UserError(
                f"the {name} part has {length} steps; windows of {steps} steps with horizon "
                f"{horizon} need {needed}."
            )
        stop = start + length - horizon
        if not splits:
            spans = [(first, first + steps) for first in range(stop - steps + 1)]
        else:
            half = steps // 2
            spans = [(i, min(i + half, stop)) for i in range(start - 1, stop, half)]
        windows = [_window(inputs, future, span, steps) for span in spans]
        xs, ys = zip(*windows, strict=True)
        splits[name] = np.stack(xs), np.stack(ys)
        start += length
    return splits


def _window(
    inputs: np.ndarray, future: np.ndarray, span: tuple[int, int], steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the window that ends with a span, of which only the span has targets."""
    first, stop = span
    ys = future[stop - steps : stop].copy()
    ys[: steps - (stop - first)] = np.nan
    return inputs[stop - steps : stop], ys
