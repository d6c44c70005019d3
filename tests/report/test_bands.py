"""Curves over seeds become a median with a band, and long ones are thinned."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalnet_mtl.report.bands import band_of


def curve(steps, values, pace=0.1):
    return np.array([(step, pace * step, value) for step, value in zip(steps, values, strict=True)])


def test_the_median_and_the_edges_are_quantiles_over_seeds():
    values = np.random.default_rng(0).normal(size=(7, 5))
    band = band_of([curve(range(5), row) for row in values])
    np.testing.assert_allclose(band.median, np.median(values, axis=0))
    np.testing.assert_allclose(band.quantile(0.1), np.quantile(values, 0.1, axis=0))
    assert band.steps.tolist() == [0, 1, 2, 3, 4]


def test_seeds_with_other_steps_are_interpolated_and_never_extrapolated():
    band = band_of([curve([0, 10, 20], [0, 1, 2]), curve([0, 5, 20], [4, 4, 4], pace=0.3)])
    assert band.steps.tolist() == [0, 5, 10, 20]
    np.testing.assert_allclose(band.lines, [[0, 0.5, 1, 2], [4, 4, 4, 4]])
    short = band_of([curve([0, 10], [1, 1]), curve([0, 10, 20], [3, 3, 3])])
    np.testing.assert_allclose(short.median, [2, 2, 3])  # the shorter one has ended
    np.testing.assert_allclose(short.seconds, [0, 1, 2])


def test_what_is_not_a_number_is_a_gap_only_where_all_seeds_have_it():
    band = band_of([curve([0, 1, 2], [1, np.nan, np.inf]), curve([0, 1, 2], [3, 5, np.nan])])
    np.testing.assert_array_equal(band.median, [2, 5, np.nan])


def test_there_is_no_band_without_points():
    assert band_of([]) is None and band_of([np.empty((0, 3))]) is None


@given(st.integers(1, 300), st.integers(1, 50))
def test_a_thinned_band_has_few_points_with_the_mean_of_all(count, most):
    values = np.random.default_rng(count).normal(size=(2, count))
    band = band_of([curve(range(count), row) for row in values])
    thin = band.thinned(most)
    assert len(thin.steps) == thin.lines.shape[1] <= max(most, 1)
    assert thin.merged == 1 or thin.merged * most >= count
    sizes = np.full(len(thin.steps), thin.merged)
    sizes[-1] = count - thin.merged * (len(thin.steps) - 1)
    np.testing.assert_allclose((thin.lines * sizes).sum(1), values.sum(1), atol=1e-9)
    assert thin.steps[0] >= 0 and thin.steps[-1] <= count - 1
    assert thin.seconds[-1] == pytest.approx(0.1 * np.arange(count)[-sizes[-1] :].mean())
