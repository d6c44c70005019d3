"""The matrix of the page is R of the run, in the units of the tasks."""

import math

from thalnet_mtl.metrics.metric import ACCURACY, BITS_PER_CHARACTER
from thalnet_mtl.metrics.summary import ContinualSummary, StageCost
from thalnet_mtl.report.panels.matrix import matrix_panel

METRICS = {"a": ACCURACY, "text": BITS_PER_CHARACTER}
GUESSES = {"a": 0.2, "text": 4.0}


def summary(*scores):
    stages = [StageCost(0, 0, 0, {}, 0)] * len(scores)
    trained = [["a"], ["text"]][: len(scores) - 1]
    return ContinualSummary("task-incremental", "naive", "never", [10, 20], stages, trained,
                            scores, {})  # fmt: skip


def test_shades_run_from_guessing_to_the_perfect_score():
    panel = matrix_panel("r", summary((0.1, None), (1.0, 5.0), (0.6, 1.0)), METRICS, GUESSES)
    assert panel.data["shades"] == [[0.0, None], [1.0, 0.0], [0.5, 0.75]]
    assert panel.data["scores"] == [[10.0, None], [100.0, 5.0], [60.0, 1.0]]
    assert panel.data["units"] == ["%", "bits"] and panel.data["trained"] == [[], [0], [1]]


def test_the_table_has_the_same_scores_in_words():
    panel = matrix_panel("r", summary((0.1, None), (0.25, 5.0), (0.6, 1.0)), METRICS, GUESSES)
    assert panel.table == [
        {"after": "untrained", "a": "10.00 %", "text": "–"},
        {"after": "1: a", "a": "25.00 %", "text": "5.0000 bits"},
        {"after": "2: text", "a": "60.00 %", "text": "1.0000 bits"},
    ]


def test_a_score_that_is_not_a_number_has_no_shade():
    panel = matrix_panel("r", summary((math.nan, None), (math.nan, 5.0)), METRICS, GUESSES)
    assert panel.data["shades"][1] == [None, 0.0] and panel.table[1]["a"] == "nan %"
