"""The detector of changes: its formula by hand, its false alarms by simulation."""

import math

import numpy as np
import pytest

from thalnet_mtl.errors import UserError
from thalnet_mtl.training.change_detection import Cusum


def by_hand(losses, allowance, threshold, window):
    """Return the step and the rise of the first detection, from weighted sums over all losses."""
    total, since = 0.0, 0
    for step, loss in enumerate(losses):
        if step >= 30:
            weights = np.ones(1)
            for n in range(2, step + 1):  # the weight of each loss so far
                weights = np.append(weights * (1 - 1 / min(n, window)), 1 / min(n, window))
            mean = weights @ losses[:step]
            variance = weights @ (losses[:step] - mean) ** 2
            total = max(0.0, total + min((loss - mean) / math.sqrt(variance), 4.0) - allowance)
            since = since + 1 if total else 0
            if total > threshold:
                return step, since
    return None


@pytest.mark.parametrize(("allowance", "threshold", "window"), [(0.5, 8.0, 50), (0.3, 9.0, 35)])
def test_a_change_is_detected_by_the_formula(allowance, threshold, window):
    losses = np.random.RandomState(3).normal(2.0, 0.3, 120)
    losses[60] += 3.0  # of which 4 standard deviations count
    losses[80:] += 1.0
    detector = Cusum(allowance, threshold, window)
    found = next((step, detector.rise) for step, x in enumerate(losses) if detector.update(x))
    assert found == by_hand(losses, allowance, threshold, window)
    assert 80 <= found[0] < 110
    assert detector.count == 0 and detector.sum == 0  # all begins anew


def test_the_rise_begins_where_the_losses_do():
    losses = np.random.RandomState(0).normal(1.0, 0.1, 60).tolist() + [2.0] * 9
    detector = Cusum()
    step = next(step for step, loss in enumerate(losses) if detector.update(loss))
    assert step + 1 - detector.rise == 60


def test_falling_losses_and_losses_that_are_all_equal_are_no_change():
    detector = Cusum()
    falling = 2.0 * np.exp(-np.arange(500) / 100) + np.random.RandomState(1).normal(0, 0.05, 500)
    assert not any(detector.update(loss) for loss in falling)
    assert not any(Cusum().update(1.0) for _ in range(100))


def test_false_alarms_are_about_as_many_as_theory_says():
    """Siegmund's approximation of the average run length, for a known mean and deviation.

    ARL = (exp(2kb) − 2kb − 1) / 2k², with b = h + 1.166; an estimate from a long window is near.
    """
    allowance, threshold = 0.5, 4.0
    detector, draws = Cusum(allowance, threshold, 2_000), np.random.RandomState(5)
    detector.restart = lambda: setattr(detector, "sum", 0.0)  # keep the estimate
    alarms = sum(detector.update(loss) for loss in draws.normal(0.0, 1.0, 100_000).tolist())
    b = threshold + 1.166
    length = (math.exp(2 * allowance * b) - 2 * allowance * b - 1) / (2 * allowance**2)
    assert alarms == pytest.approx(100_000 / length, rel=0.15)


def test_a_detector_goes_on_from_its_state():
    losses = np.random.RandomState(2).normal(1.0, 0.2, 100).tolist() + [1.6] * 30
    whole, first = Cusum(), Cusum()
    expected = [whole.update(loss) for loss in losses]
    before = [first.update(loss) for loss in losses[:101]]
    second = Cusum()
    second.load_state_dict(first.state_dict())
    assert before + [second.update(loss) for loss in losses[101:]] == expected
    assert any(expected[101:]) and second.state_dict() == whole.state_dict()
    with pytest.raises(UserError, match="change detection"):
        second.load_state_dict(first.state_dict() | {"mean": "high"})
