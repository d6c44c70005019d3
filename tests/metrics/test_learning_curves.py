"""Curves by hand: first steps that reach a score, and the worst scores of old tasks."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from properties import examples

from thalnet_mtl.metrics.continual import AccuracyMatrix, backward_transfer
from thalnet_mtl.metrics.learning_curves import minimum_accuracy, steps_to_reach
from thalnet_mtl.metrics.metric import ACCURACY, BITS_PER_CHARACTER

SINGLE, TEXT = {"a": ACCURACY}, {"a": BITS_PER_CHARACTER}
TWO = {"a": ACCURACY, "b": ACCURACY}

# a is learned until step 100, b until 200, c until 300.
THREE = AccuracyMatrix(
    dict.fromkeys("abc", ACCURACY),
    ["a", "b", "c"],
    [[0.1, 0.1, 0.1], [0.9, 0.1, 0.1], [0.8, 0.9, 0.1], [0.7, 0.8, 0.9]],
)
ENDS = [100, 200, 300]
CURVES = {
    "a": [(50, 0.3), (100, 0.9), (110, 0.5), (200, 0.8), (210, 0.6), (300, 0.7)],
    "b": [(50, 0.1), (110, 0.2), (200, 0.9), (210, 0.4), (300, 0.8)],
    "c": [(210, 0.2), (300, 0.9)],
}


def near(expected):
    return pytest.approx(expected, abs=1e-12)


def test_ninety_percent_are_reached_at_an_evaluation_not_between_two():
    curve = [(0, 0.1), (10, 0.5), (20, 0.7), (30, 0.75), (40, 0.6), (50, 0.8)]
    assert steps_to_reach(SINGLE, {"a": curve}, {"a": 0.8}).values == {"a": 30.0}  # 0.72 or more
    assert steps_to_reach(SINGLE, {"a": curve}, {"a": 0.8}, part=0.5).values == {"a": 10.0}
    assert steps_to_reach(SINGLE, {"a": [(7, 0.75)]}, {"a": 1.0}, part=0.75).values == {"a": 7.0}


def test_bits_are_reached_from_above():
    curve = [(0, 8.0), (10, 2.3), (20, 2.1)]
    assert steps_to_reach(TEXT, {"a": curve}, {"a": 2.0}).values == {"a": 20.0}  # 2.2 or fewer


def test_steps_have_a_mean_over_tasks_of_any_metrics():
    metrics = {"a": ACCURACY, "b": BITS_PER_CHARACTER}
    curves = {"a": [(10, 0.9)], "b": [(30, 2.0)]}
    assert steps_to_reach(metrics, curves, {"a": 0.9, "b": 2.0}).mean == 20.0


def test_what_was_never_reached_has_no_step():
    result = steps_to_reach(SINGLE, {"a": [(0, 0.1), (10, 0.7), (20, math.nan)]}, {"a": 0.8})
    assert (result.mean, result.why) == (None, "a: never reached 72.00 %")
    assert "no score" in steps_to_reach(SINGLE, {"a": [(0, 0.1)]}, {}).why
    assert "scores 0" in steps_to_reach(SINGLE, {"a": [(0, 0.1)]}, {"a": 0.0}).why


def test_min_acc_is_the_worst_of_each_old_task_after_it_was_learned():
    result = minimum_accuracy(THREE, CURVES, ENDS)
    assert result.values == {"a": 0.5, "b": 0.4}  # 0.3 and 0.1 were before
    assert result.mean == near(0.45)


def test_the_end_of_a_stage_can_be_the_worst():
    curves = CURVES | {"a": [(100, 0.01), (110, 0.5), (210, 0.6), (300, 0.2)]}
    assert minimum_accuracy(THREE, curves, ENDS).values["a"] == 0.2


def test_the_worst_bits_are_the_most():
    text = AccuracyMatrix(
        dict.fromkeys("ab", BITS_PER_CHARACTER), ["a", "b"], [[8.0, 8.0], [2.0, 6.0], [2.2, 1.0]]
    )
    curves = {"a": [(10, 2.0), (15, 4.0), (20, 2.2)], "b": [(20, 1.0)]}
    assert minimum_accuracy(text, curves, [10, 20]).mean == 4.0


def test_evaluations_at_the_ends_of_stages_show_no_gap():
    ends_only = {task: [(n, x) for n, x in CURVES[task] if n in ENDS] for task in CURVES}
    result = minimum_accuracy(THREE, ends_only, ENDS)
    reasons = {"a": "no evaluation within stage 2", "b": "no evaluation within stage 3"}
    assert (result.missing, result.mean) == (reasons, None)
    one_stage = CURVES | {"a": [(110, 0.5), (200, 0.8), (300, 0.7)]}
    assert minimum_accuracy(THREE, one_stage, ENDS).missing == {"a": "no evaluation within stage 3"}
    diverged = CURVES | {"a": [(110, 0.5), (210, math.nan)]}
    assert minimum_accuracy(THREE, diverged, ENDS).missing == {
        "a": "an evaluation that is not finite"
    }
    with pytest.raises(ValueError, match="3 stages need as many ends, got 2"):
        minimum_accuracy(THREE, CURVES, [100, 200])


def test_a_task_that_came_again_is_old_from_its_last_time():
    again = AccuracyMatrix(TWO, ["a", "b", "a", "b"], [[0.5, 0.5]] * 5)
    curve = [(15, 0.1), (25, 0.2), (30, 0.9), (35, 0.6), (40, 0.7)]
    assert minimum_accuracy(again, {"a": curve}, [10, 20, 30, 40]).values == {"a": 0.6}


@examples()
@given(st.lists(st.integers(0, 100).map(lambda n: n / 100), min_size=4, max_size=4))
def test_the_worst_is_no_better_than_the_end_and_seen_only_in_between(scores):
    first, *after = scores
    curve = [(10, first), *zip((12, 16, 20), after, strict=True)]
    result = AccuracyMatrix(TWO, ["a", "b"], [[0.0, 0.0], [first, 0.0], [after[-1], 0.0]])
    worst = minimum_accuracy(result, {"a": curve}, [10, 20]).mean
    assert worst == min(after)
    assert worst - first <= backward_transfer(result).mean
