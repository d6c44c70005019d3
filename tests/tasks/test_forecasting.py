"""Tests of the windows over a series, by hand and as laws over any sizes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalnet_mtl.errors import UserError
from thalnet_mtl.tasks.forecasting import forecasting_splits


def counting(time):
    """Return a series that counts its steps, as inputs and as values."""
    values = np.arange(time, dtype=float)
    return values[:, None], values


def test_windows_of_a_short_series_by_hand():
    parts = {"train": 6, "validation": 3, "test": 4}
    splits = forecasting_splits(*counting(13), parts, steps=4)
    nan = np.nan
    expected = {
        "train": ([[0, 1, 2, 3], [1, 2, 3, 4]], [[1, 2, 3, 4], [2, 3, 4, 5]]),
        "validation": ([[3, 4, 5, 6], [4, 5, 6, 7]], [[nan, nan, 6, 7], [nan, nan, nan, 8]]),
        "test": ([[6, 7, 8, 9], [8, 9, 10, 11]], [[nan, nan, 9, 10], [nan, nan, 11, 12]]),
    }
    for name, (xs, ys) in expected.items():
        np.testing.assert_array_equal(splits[name][0][..., 0], xs)
        np.testing.assert_array_equal(splits[name][1][..., 0], ys)


@given(
    steps=st.integers(2, 9),
    horizon=st.integers(1, 4),
    extra=st.tuples(st.integers(0, 20), st.integers(0, 20), st.integers(0, 20)),
)
def test_every_value_is_forecast_once_and_never_by_a_later_part(steps, horizon, extra):
    lengths = (steps + horizon + extra[0], horizon + extra[1], horizon + extra[2])
    parts = dict(zip(("train", "validation", "test"), lengths, strict=True))
    inputs, values = counting(sum(lengths))
    start = 0
    for name, (xs, ys) in forecasting_splits(inputs, values, parts, steps, horizon).items():
        assert xs.shape == (len(ys), steps, 1) and ys.shape[1:] == (steps, horizon)
        there = ~np.isnan(ys)
        assert (there.all(-1) == there.any(-1)).all()
        ahead = ys - xs  # the series counts: its value says the time
        assert (ahead[there] == np.broadcast_to(np.arange(1, horizon + 1), ys.shape)[there]).all()
        stop = start + parts[name]
        first = ys[..., 0][there[..., 0]]
        if name == "train":
            assert set(ys[there]) == set(range(1, stop))
        else:
            assert sorted(first) == list(range(start, stop - horizon + 1))
            assert not there[:, : steps - steps // 2].any()
            assert set(ys[there]) == set(range(start, stop))
        start = stop


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"train": 4, "validation": 5, "test": 5}, "the train part has 4 steps; windows of 4 ste"),
        ({"train": 9, "validation": 0, "test": 5}, "the validation part has 0 steps; windows of"),
    ],
)
def test_a_part_too_short_for_a_window_is_named(parts, message):
    with pytest.raises(UserError, match=message):
        forecasting_splits(*counting(14), parts, steps=4)


def test_windows_of_no_step_are_refused():
    with pytest.raises(UserError, match="steps 1, horizon 1: expected at least 2 and 1"):
        forecasting_splits(*counting(14), {"train": 14}, steps=1)
