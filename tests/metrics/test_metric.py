import json
import math

import pytest

from thalnet_mtl.errors import UserError
from thalnet_mtl.metrics.continual import AccuracyMatrix, average_accuracy, forgetting
from thalnet_mtl.metrics.learning_curves import minimum_accuracy, steps_to_reach
from thalnet_mtl.metrics.metric import (
    ACCURACY,
    BITS_PER_CHARACTER,
    MAE,
    METRICS,
    PERPLEXITY,
    R2,
    Metric,
    format_scores,
    guess_among_equal_classes,
)
from thalnet_mtl.metrics.multitask import delta_m, relative_gain, skill


def test_each_metric_knows_its_direction_and_how_people_read_it():
    assert ACCURACY.better(0.9, 0.8) and not ACCURACY.better(0.8, 0.8)
    assert BITS_PER_CHARACTER.better(1.3, 1.4) and not BITS_PER_CHARACTER.better(1.4, 1.4)
    assert ACCURACY.format(0.94321) == "94.32 %"
    assert BITS_PER_CHARACTER.format(1.40005) == "1.4001 bits"


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_no_score_is_better_than_the_perfect_one(metric):
    worse = metric.perfect - 0.1 if metric.higher_is_better else metric.perfect + 0.1
    assert metric.better(metric.perfect, worse) and not metric.better(worse, metric.perfect)
    assert metric.better(worse, metric.worst)
    assert metric.better(worse, math.nan) and not metric.better(math.nan, worse)
    assert not metric.better(math.nan, math.nan)
    assert metric.improvement(metric.perfect, worse) == pytest.approx(0.1)
    assert Metric.from_json(json.loads(json.dumps(metric.to_json())), "") == metric


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_a_normalized_score_is_0_for_guessing_and_1_for_perfection(metric):
    guess = 0.5 if metric.higher_is_better else 4.0
    assert metric.normalized_score(guess, guess) == 0
    assert metric.normalized_score(metric.perfect, guess) == 1
    middle, worse = (guess + metric.perfect) / 2, 2 * guess - metric.perfect
    assert metric.normalized_score(middle, guess) == pytest.approx(0.5)
    assert metric.normalized_score(worse, guess) == pytest.approx(-1)
    with pytest.raises(UserError, match=f"{metric.name}: guessing already has the perfect score"):
        metric.normalized_score(0.3, metric.perfect)


def test_normalized_scores_by_hand():
    assert R2.normalized_score(0.6, -0.25) == pytest.approx(0.85 / 1.25)
    assert PERPLEXITY.normalized_score(3.0, 5.0) == pytest.approx(0.5)  # 1 is perfect
    assert MAE.normalized_score(3.0, 2.0) == -0.5  # worse than guessing


def test_a_value_is_shown_with_its_unit_and_enough_digits():
    assert format_scores([ACCURACY, R2], {"accuracy": 0.5, "r2": -0.12345}) == (
        "accuracy 50.00 %, r2 -0.1235"
    )
    values = (0.0, 1.0, 0.00123456, 1.23456e-7, 123.456, 98765.4, 1.23e9, math.nan, math.inf)
    assert [MAE.format(value) for value in values] == [
        *("0.000", "1.000", "0.001235", "1.235e-07", "123.5", "98765", "1.230e+09", "nan", "inf")
    ]
    own = Metric("hit_rate(width=2)", True, 1.0, "%", decimals=1)
    assert (own.format(0.3), own.label) == ("30.0 %", "hit rate(width=2) (%)")
    assert own.title == "hit rate (width=2) ↑" and MAE.title == "mae ↓"
    assert Metric("cost", False, 0.0, "€").format(2.5) == "2.500 €"


def test_guessing_among_equal_classes_is_that_of_runs_that_did_not_record_it():
    assert guess_among_equal_classes("accuracy", 4) == 0.25
    assert guess_among_equal_classes("bits_per_character", 256) == 8


def test_a_gain_over_a_score_that_is_not_above_0_is_refused():
    for metric, baseline in ((R2, -0.2), (R2, 0.0), (MAE, 0.0)):
        with pytest.raises(UserError, match=f"the {metric.name} of the baseline is .*above 0"):
            relative_gain(0.5, baseline, metric)
    assert relative_gain(0.5, 0.4, R2) == pytest.approx(0.25)
    assert relative_gain(3.0, 2.0, MAE) == pytest.approx(-0.5)


def test_learning_curves_of_errors_are_read_downwards():
    curve = {"a": [(10, 4.0), (20, 2.3), (30, 2.1)]}
    assert steps_to_reach({"a": MAE}, curve, {"a": 2.0}).values == {"a": 30.0}  # 2.2 or less
    assert "scores -0.3000, not above 0" in steps_to_reach({"a": R2}, curve, {"a": -0.3}).why


def test_measures_of_a_stream_of_errors_and_of_mixed_metrics():
    scores = [[9.0, 0.1], [2.0, 0.2], [5.0, 0.8]]
    errors = AccuracyMatrix({"a": MAE, "b": MAE}, [["a"], ["b"]], scores)
    assert forgetting(errors).values == {"a": 3.0}  # 5 − 2: more of an error is forgotten
    assert minimum_accuracy(errors, {"a": [(5, 2.0), (15, 7.0), (20, 5.0)]}, [10, 20]).mean == 7.0
    mixed = AccuracyMatrix({"a": MAE, "b": R2}, [["a"], ["b"]], scores)
    assert average_accuracy(mixed).mean is None and average_accuracy(mixed).values["b"] == 0.8
    assert "mae and r2, of which there is no mean" in average_accuracy(mixed).why
    assert forgetting(mixed).mean == 3.0  # of one task


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
