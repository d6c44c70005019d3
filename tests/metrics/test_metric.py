import pytest

from thalnet_mtl.errors import UserError
from thalnet_mtl.metrics.metric import ACCURACY, BITS_PER_CHARACTER
from thalnet_mtl.metrics.multitask import delta_m, relative_gain, skill


def test_each_metric_knows_its_direction_and_how_people_read_it():
    assert ACCURACY.better(0.9, 0.8) and not ACCURACY.better(0.8, 0.8)
    assert BITS_PER_CHARACTER.better(1.3, 1.4) and not BITS_PER_CHARACTER.better(1.4, 1.4)
    assert ACCURACY.format(0.94321) == "94.32 %"
    assert BITS_PER_CHARACTER.format(1.40005) == "1.4001 bits"


def test_skill_is_0_untrained_1_at_the_baseline_and_knows_no_direction():
    assert skill(0.82, baseline=0.9, guess=0.1) == pytest.approx(0.9)  # 0.72 / 0.8
    assert skill(2.6, baseline=2.0, guess=8.0) == pytest.approx(0.9)  # 5.4 / 6
    assert skill(0.1, baseline=0.9, guess=0.1) == 0
    assert skill(0.9, baseline=0.9, guess=0.1) == 1
    assert skill(1.4, baseline=2.0, guess=8.0) == pytest.approx(1.1)
    with pytest.raises(UserError, match=r"the baseline scores 0\.1, as guessing does"):
        skill(0.5, baseline=0.1, guess=0.1)


def test_a_gain_is_positive_past_the_baseline_in_either_direction():
    assert relative_gain(0.6, 0.5, ACCURACY) == pytest.approx(0.2)
    assert relative_gain(0.4, 0.5, ACCURACY) == pytest.approx(-0.2)
    assert relative_gain(1.5, 2.0, BITS_PER_CHARACTER) == pytest.approx(0.25)
    assert relative_gain(2.5, 2.0, BITS_PER_CHARACTER) == pytest.approx(-0.25)
    with pytest.raises(UserError, match="accuracy of the baseline is 0"):
        relative_gain(0.5, 0.0, ACCURACY)


def test_delta_m_is_the_mean_over_tasks():
    assert delta_m([0.2, -0.25, 0.2]) == pytest.approx(0.05)
    with pytest.raises(ValueError, match="there are no tasks"):
        delta_m([])
