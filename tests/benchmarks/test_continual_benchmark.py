"""The continual benchmark: its tables and measures."""

import pytest

from benchmarks.continual import report, run
from benchmarks.markdown import with_table


def test_the_report_are_made_from_the_raw_results():
    table = report.report()
    assert table.count("\n") > 40
    assert with_table(run.README.read_text(), table) == run.README.read_text()


def test_measures_of_the_course_of_training_are_worked_by_hand():
    def task(test, untrained):
        return {"test": {"accuracy": test}, "untrained": {"accuracy": untrained}}

    record = {
        "result": {
            "tasks": {"a": task(0.6, 0.1), "b": task(0.8, 0.2)},
            "continual": {
                "trained": [["a"], ["b"]],
                "ends": [300, 600],
                "scores": [[0.1, 0.2], [0.9, 0.2], [0.6, 0.8]],
            },
        },
        "curves": {
            "a": {
                "validation_step": [100, 300, 400, 600],
                "validation_accuracy": [0.5, 0.9, 0.4, 0.6],
            },
            "b": {
                "validation_step": [100, 300, 400, 600],
                "validation_accuracy": [0.9, 0.9, 0.3, 0.8],
            },
        },
    }
    assert report.stability_minimum(record) == 0.4  # of a, in the second experience
    # 0.9 · 0.9 is reached by a after 300 steps; b was better only before its experience.
    assert report.mean_steps(record, {"a": 0.9, "b": 0.95}) == 300
    assert report.mean_steps(record, {"a": 0.5, "b": 0.3}) == 100
    skill, gain = report.single_task_comparison(record, {"a": 0.6, "b": 0.5})
    assert skill == pytest.approx((1 + 2) / 2)
    assert gain == pytest.approx((0 + 0.6) / 2)
    assert report.single_task_comparison(record, {"a": 0.6}) == (None, None)
    assert report.percent([0.5, None]) == "50.00" and report.percent([0]) == "0.0"
    assert report.number([]) == report.number([None]) == "–"
