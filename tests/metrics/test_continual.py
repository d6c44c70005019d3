"""Every measure is worked out by hand, and equals Avalanche's where that means the same."""

import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from properties import examples

from thalnet_mtl.compat import import_torchvision
from thalnet_mtl.metrics.continual import (
    AccuracyMatrix,
    Measure,
    avalanche_forgetting,
    average_accuracy,
    average_incremental_accuracy,
    backward_transfer,
    forgetting,
    forward_transfer,
    intransigence,
    transfer,
)
from thalnet_mtl.metrics.metric import ACCURACY, BITS_PER_CHARACTER

DIFFERENCES = (avalanche_forgetting, backward_transfer, forgetting, forward_transfer)
LEVELS = (average_accuracy, average_incremental_accuracy)


def matrix(scores, trained=None, metric=ACCURACY):
    """Tasks a, b, c, …, one a stage if nothing else is said."""
    tasks = "abcdefgh"[: len(scores[0])]
    return AccuracyMatrix(dict.fromkeys(tasks, metric), trained or list(tasks), scores)


def near(expected):
    return pytest.approx(expected, abs=1e-12)


THREE = matrix([
    #  a     b     c
    [0.10, 0.20, 0.30],  # before training
    [0.90, 0.25, 0.28],  # after a
    [0.95, 0.80, 0.40],  # after b
    [0.75, 0.60, 0.85],  # after c
])  # fmt: skip

TEXT = matrix([[8.0, 8.0], [2.0, 5.0], [2.5, 1.5]], metric=BITS_PER_CHARACTER)


def test_average_accuracy_is_the_mean_of_the_last_row():
    assert average_accuracy(THREE).mean == near((0.75 + 0.60 + 0.85) / 3)


def test_average_incremental_accuracy_is_the_mean_over_stages_of_what_was_seen():
    result = average_incremental_accuracy(THREE)
    seen = {"stage 1": 0.90, "stage 2": (0.95 + 0.80) / 2, "stage 3": (0.75 + 0.60 + 0.85) / 3}
    assert result.values == near(seen)
    assert result.mean == near((0.90 + 0.875 + 2.2 / 3) / 3)


def test_forgetting_is_from_the_best_row_and_avalanches_from_the_first():
    assert forgetting(THREE).values == near({"a": 0.95 - 0.75, "b": 0.80 - 0.60})
    assert forgetting(THREE).mean == near(0.20)
    assert avalanche_forgetting(THREE).values == near({"a": 0.90 - 0.75, "b": 0.80 - 0.60})
    assert avalanche_forgetting(THREE).mean == near(0.175)
    assert backward_transfer(THREE).mean == near(-0.175)


def test_forward_transfer_is_from_the_untrained_row_to_the_one_before_a_task():
    assert forward_transfer(THREE).values == near({"b": 0.25 - 0.20, "c": 0.40 - 0.30})
    assert forward_transfer(THREE).mean == near(0.075)


def test_neither_the_untrained_nor_the_last_row_is_a_best_to_forget():
    assert forgetting(matrix([[0.9, 0.1], [0.5, 0.1], [0.4, 0.1]])).mean == near(0.5 - 0.4)
    assert forgetting(matrix([[0.1, 0.1], [0.5, 0.1], [0.7, 0.1]])).mean == near(0.5 - 0.7)


def test_a_row_before_a_task_was_trained_counts_in_its_best_where_there_is_one():
    rows = [[0.1, 0.1, 0.1], [0.9, 0.6, 0.1], [0.9, 0.5, 0.1], [0.9, 0.2, 0.9]]
    assert forgetting(matrix(rows)).values == near({"a": 0.0, "b": 0.6 - 0.2})
    rows[1][1] = None
    assert forgetting(matrix(rows)).values == near({"a": 0.0, "b": 0.5 - 0.2})


def test_runs_of_other_kinds_are_set_against_the_stage_that_learned_a_task():
    joint, single = {"a": 0.92, "b": 0.9, "c": 0.8}, {"a": 0.8, "b": 0.9, "c": 0.8}
    assert intransigence(THREE, joint).values == near({"a": 0.02, "b": 0.10, "c": -0.05})
    assert intransigence(THREE, joint).mean == near(0.07 / 3)
    assert transfer(THREE, single).values == near({"a": 0.10, "b": -0.10, "c": 0.05})
    assert transfer(THREE, single).mean == near(0.05 / 3)
    assert transfer(THREE, {"a": 0.8, "b": math.nan}).missing == {
        "b": "no score of a single-task run", "c": "no score of a single-task run"
    }  # fmt: skip


def test_bits_count_downwards_and_levels_stay_in_bits():
    assert average_accuracy(TEXT).mean == near(2.0)  # (2.5 + 1.5) / 2
    assert average_incremental_accuracy(TEXT).mean == near(2.0)  # (2.0 + 2.0) / 2
    assert forgetting(TEXT).mean == near(0.5)  # 2.5 − 2.0 bits more
    assert avalanche_forgetting(TEXT).mean == near(0.5)
    assert backward_transfer(TEXT).mean == near(-0.5)
    assert forward_transfer(TEXT).mean == near(3.0)  # 8 − 5 bits fewer
    assert intransigence(TEXT, {"a": 1.9, "b": 1.6}).values == near({"a": 0.1, "b": -0.1})
    assert transfer(TEXT, {"a": 2.2, "b": 1.4}).values == near({"a": 0.2, "b": -0.1})


def test_the_best_bits_are_the_fewest():
    rows = [[8.0, 8.0, 8.0], [2.0, 5.0, 6.0], [1.8, 1.5, 5.0], [2.5, 1.7, 1.0]]
    result = forgetting(matrix(rows, metric=BITS_PER_CHARACTER))
    assert result.values == near({"a": 2.5 - 1.8, "b": 1.7 - 1.5})


def test_a_stage_may_train_several_tasks_and_a_task_may_come_again():
    result = matrix(
        [
            #  a    b    c
            [0.1, 0.1, 0.1],
            [0.8, 0.7, 0.2],  # after a and b
            [0.6, 0.5, 0.9],  # after c
            [0.9, 0.4, 0.7],  # after a, again
            [0.7, 0.3, 0.8],  # after c, again
        ],
        trained=[["a", "b"], ["c"], ["a"], ["c"]],
    )
    assert [result.first(task) for task in "abc"] == [1, 1, 2]
    assert [result.last(task) for task in "abc"] == [3, 1, 4]
    assert result.old == ["a", "b"]
    assert forgetting(result).values == near({"a": 0.9 - 0.7, "b": 0.7 - 0.3})
    assert avalanche_forgetting(result).values == near({"a": 0.8 - 0.7, "b": 0.7 - 0.3})
    assert backward_transfer(result).values == near({"a": 0.7 - 0.9, "b": 0.3 - 0.7})
    assert forward_transfer(result).values == near({"c": 0.2 - 0.1})
    seen = {"stage 1": 0.75, "stage 2": 2.0 / 3, "stage 3": 2.0 / 3, "stage 4": 1.8 / 3}
    assert average_incremental_accuracy(result).values == near(seen)
    single = dict.fromkeys("abc", 0.5)
    assert transfer(result, single).values == near({"a": 0.4, "b": 0.2, "c": 0.3})
    assert intransigence(result, single).values == near({"a": -0.4, "b": -0.2, "c": -0.3})


def test_one_joint_stage_has_no_old_and_no_later_task():
    result = matrix([[0.1, 0.1], [0.8, 0.7]], trained=[["a", "b"]])
    assert average_accuracy(result).mean == near(0.75)
    for of in DIFFERENCES:
        assert of(result) == Measure({}, {}, None, "there is no such task")


def test_a_head_that_was_not_there_leaves_forward_transfer_undefined():
    rows = [[0.1, None, None], [0.9, math.nan, 0.2], [0.9, 0.8, 0.3], [0.9, 0.8, 0.7]]
    result = forward_transfer(matrix(rows))
    assert (result.values, result.mean) == ({}, None)
    assert result.missing == {"b": "no score after stage 1", "c": "no score before training"}
    assert result.why == "b: no score after stage 1; c: no score before training"
    assert forgetting(matrix(rows)).mean == near(0.0)


def test_there_is_no_mean_of_some_of_the_tasks_only():
    rows = [[0.1, None, 0.1], [0.9, None, 0.2], [0.9, 0.8, 0.3], [0.9, 0.8, 0.7]]
    result = forward_transfer(matrix(rows))
    assert result.values == near({"c": 0.2})
    assert (result.mean, result.why) == (None, "b: no score after stage 1")


def test_a_task_that_was_taken_away_is_missing_at_the_end():
    rows = [[0.1, 0.1], [0.9, 0.2], [None, 0.8]]
    for of in (average_accuracy, forgetting, avalanche_forgetting, backward_transfer):
        assert of(matrix(rows)).missing["a"] == "no score after stage 2"
    assert average_incremental_accuracy(matrix(rows)).values == near({"stage 1": 0.9})


def test_a_best_is_not_taken_from_the_rows_that_happen_to_be_there():
    rows = [[0.1, 0.1, 0.1], [0.9, 0.1, 0.1], [None, 0.8, 0.1], [0.7, 0.8, 0.9]]
    assert forgetting(matrix(rows)).missing == {"a": "no score after stage 2"}


def test_scores_of_different_metrics_have_no_mean():
    metrics = {"a": ACCURACY, "b": BITS_PER_CHARACTER}
    result = AccuracyMatrix(metrics, ["a", "b"], [[0.1, 8.0], [0.9, 8.0], [0.82, 2.6]])
    assert average_accuracy(result).values == {"a": 0.82, "b": 2.6}
    assert average_accuracy(result).mean is None
    assert "accuracy and bits_per_character, of which there is no mean" in (
        average_accuracy(result).why
    )


def test_a_matrix_that_does_not_fit_its_stages_is_refused():
    with pytest.raises(ValueError, match="2 stages and 2 rows"):
        matrix([[0.1, 0.1], [0.9, 0.1]])
    with pytest.raises(ValueError, match="0 stages and 1 rows"):
        AccuracyMatrix({}, [], [[]])
    with pytest.raises(ValueError, match="a score for each of: a, b"):
        matrix([[0.1, 0.1], [0.9], [0.9, 0.8]])
    for trained in (["a", "a"], ["a", "z"]):
        with pytest.raises(ValueError, match="exactly these tasks: \\['a', 'b'\\]"):
            matrix([[0.1, 0.1], [0.9, 0.1], [0.9, 0.8]], trained)


ANSWERS = 100  # each task is tested on so many
counts = st.integers(2, 5).flatmap(
    lambda n: st.lists(
        st.lists(st.integers(0, ANSWERS), min_size=n, max_size=n), min_size=n + 1, max_size=n + 1
    )
)
accuracies = counts.map(lambda rows: [[k / ANSWERS for k in row] for row in rows])


def avalanche_of(plugins, rows):
    """Feed rows of right answers to Avalanche's plugins as its strategies do: one task a stage."""
    strategy = SimpleNamespace(
        is_training=False, is_eval=True, clock=SimpleNamespace(train_iterations=0), eval_every=0
    )
    for stage, row in enumerate(rows):
        strategy.experience = SimpleNamespace(
            current_experience=stage - 1, task_label=0, origin_stream=SimpleNamespace(name="test")
        )
        if stage:
            for plugin in plugins:
                plugin.before_training_exp(strategy)
        for plugin in plugins:
            plugin.before_eval(strategy)
        for task, right in enumerate(row):
            strategy.experience.current_experience = task
            strategy.mb_y = torch.zeros(ANSWERS, dtype=torch.long)
            strategy.mb_output = (torch.arange(ANSWERS) >= right).long()
            for plugin in plugins:
                plugin.before_eval_exp(strategy)
                plugin.after_eval_iteration(strategy)
                plugin.after_eval_exp(strategy)
        for plugin in plugins:
            plugin.after_eval(strategy)
    return [plugin.result() for plugin in plugins]


@examples(max_examples=25)
@given(counts)
def test_transfer_and_avalanches_forgetting_equal_avalanche(rows):
    import_torchvision()
    from avalanche.evaluation.metrics.forgetting_bwt import StreamBWT, StreamForgetting
    from avalanche.evaluation.metrics.forward_transfer import StreamForwardTransfer

    plugins = [StreamForgetting(), StreamBWT(), StreamForwardTransfer()]
    forgot, backward, forward = avalanche_of(plugins, rows)
    result = matrix([[k / ANSWERS for k in row] for row in rows])
    assert avalanche_forgetting(result).mean == near(forgot)
    assert backward_transfer(result).mean == near(backward)
    assert forward_transfer(result).mean == near(forward)


@examples(max_examples=25)
@given(counts)
def test_average_accuracy_equals_avalanches_stream_accuracy(rows):
    import_torchvision()
    from avalanche.evaluation.metrics.accuracy import Accuracy

    stream = Accuracy()
    for right in rows[-1]:
        stream.update((torch.arange(ANSWERS) >= right).long(), torch.zeros(ANSWERS).long())
    result = matrix([[k / ANSWERS for k in row] for row in rows])
    assert average_accuracy(result).mean == near(stream.result())


@examples()
@given(accuracies, st.floats(-2, 2))
def test_a_constant_on_all_scores_moves_levels_and_nothing_else(rows, constant):
    result, shifted = matrix(rows), matrix([[x + constant for x in row] for row in rows])
    for of in DIFFERENCES:
        assert of(shifted).mean == near(of(result).mean)
    for of in LEVELS:
        assert of(shifted).mean == near(of(result).mean + constant)


@examples()
@given(accuracies)
def test_bits_are_accuracy_upside_down(rows):
    result = matrix(rows)
    down = matrix([[-x for x in row] for row in rows], metric=BITS_PER_CHARACTER)
    for of in DIFFERENCES:
        assert of(down).values == near(of(result).values)
    joint = dict.fromkeys(result.metrics, 0.7)
    turned = {task: -score for task, score in joint.items()}
    for of in (intransigence, transfer):
        assert of(down, turned).values == near(of(result, joint).values)


@examples()
@given(accuracies)
def test_forgetting_is_at_least_avalanches_which_is_minus_backward_transfer(rows):
    result = matrix(rows)
    for task, least in avalanche_forgetting(result).values.items():
        assert forgetting(result).values[task] >= least
        assert backward_transfer(result).values[task] == -least


@examples()
@given(accuracies, st.randoms(use_true_random=False))
def test_the_order_of_the_columns_is_no_part_of_the_measures(rows, random):
    result = matrix(rows)
    order = random.sample(range(len(rows[0])), len(rows[0]))
    tasks = [list(result.metrics)[j] for j in order]
    other = AccuracyMatrix(
        dict.fromkeys(tasks, ACCURACY), result.trained, [[row[j] for j in order] for row in rows]
    )
    for of in (*DIFFERENCES, *LEVELS):
        assert of(other).values == of(result).values
