"""Windows over a series, for targets of the same time or for forecasts; splits follow time.

No network is scored on values that it was trained on. A window of validation or test begins early
enough for the network to have read part of the series before its first forecast counts.
"""

from collections.abc import Mapping

import numpy as np

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
    check_parts(parts, steps, horizon)
    future = next_values(values[:, None], horizon)
    splits: dict[str, Windows] = {}
    start = 0
    for name, length in parts.items():
        span = start, start + length
        times, counts = windows(span, steps, horizon, once=bool(splits))
        splits[name] = inputs[times], np.where(counts[..., None], future[times], np.nan)
        start += length
    return splits


def check_parts(parts: Mapping[str, int], steps: int, horizon: int) -> None:
    """Raise ``UserError`` if a part of a series is too short for a window."""
    if steps < 2 or horizon < 1:
        raise UserError(f"steps {steps}, horizon {horizon}: expected at least 2 and 1.")
    for number, (name, length) in enumerate(parts.items()):
        needed = horizon if number else steps + horizon
        if length < needed:
            raise UserError(
                f"the {name} part has {length} steps; windows of {steps} steps with horizon "
                f"{horizon} need {needed}."
            )


def next_values(values: np.ndarray, horizon: int) -> np.ndarray:
    """Return the values that follow each time, NaN after the end: (time, horizon · outputs).

    Args:
        values: (time, outputs).
        horizon: number of steps, in their order; 0 returns the values themselves.
    """
    if not horizon:
        return values
    padded = np.concatenate([values, np.full((horizon, values.shape[1]), np.nan)])
    return np.hstack([padded[k : k + len(values)] for k in range(1, horizon + 1)])


def windows(
    span: tuple[int, int], steps: int, horizon: int, *, stride: int = 1, once: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Return the windows whose targets lie in a span of a series.

    Args:
        span: first time of the span, and the first time after it.
        steps: length of a window.
        horizon: number of steps that the targets of a time reach ahead of it.
        stride: steps from the begin of a window to that of the next.
        once: whether to cover every target once, for validation and test: the targets of a window
            are in its last half, and its first half may lie before the span. Where nothing lies
            before the span, the first window has targets in both halves.

    Returns:
        times (N, steps) of the series; and whether the targets of a time count, (N, steps). N is 0
        if the span is too short.
    """
    start, stop = span
    stop -= horizon
    if steps > stop:  # however long a window is asked for, it takes no memory
        return np.zeros((0, steps), int), np.zeros((0, steps), bool)
    if not once:
        begins = np.arange(start, stop - steps + 1, stride)
        times = begins[:, None] + np.arange(steps)
        return times, np.ones(times.shape, bool)
    first = max(start - 1, 0) if horizon else start
    ends, firsts = [], []
    while first < stop:
        end = max(min(first + steps // 2, stop), steps)
        if end > stop:
            break
        firsts.append(first)
        ends.append(end)
        first = end
    times = np.array(ends, int).reshape(-1, 1) + np.arange(-steps, 0)
    return times, times >= np.array(firsts, int).reshape(-1, 1)


def last_windows(
    span: tuple[int, int], steps: int, horizon: int, *, stride: int = 1, once: bool = False
) -> np.ndarray:
    """Return the windows of ``windows`` if only the targets of their last step count.

    With ``once``, a window may begin before the span, and there is one for every target.

    Returns:
        times (N, steps) of the series.
    """
    start, stop = span
    if steps > stop - horizon:
        return np.zeros((0, steps), int)
    first = start - bool(horizon) if once else start + steps - 1
    ends = np.arange(max(first, steps - 1), stop - horizon, stride)
    return ends[:, None] + np.arange(1 - steps, 1)
