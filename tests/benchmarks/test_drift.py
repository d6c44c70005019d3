"""The benchmark of the detector of changes: its table, and how it counts."""

import json

import toy_tasks  # noqa: F401

from benchmarks.markdown import with_table
from benchmarks.search import drift


def test_the_table_is_made_from_the_raw_losses():
    table = drift.table(json.loads(drift.RECORDS.read_text()))
    assert table.count("\n") > 12
    assert with_table(drift.TABLE.read_text(), table) == drift.TABLE.read_text()


def test_alarms_near_a_change_detect_it_and_others_do_not(monkeypatch):
    data = drift.Data([], 1, steps=30, unchanged=60)
    monkeypatch.setattr(drift, "alarms", lambda values, setting: values)
    # Changes at 30, 60, 90 and 120; a blur of 10 begins 5 steps before.
    streams = {"0": [26, 33, 74, 110], "1": [60, 120]}
    assert drift.detections(data, "abrupt", streams, (1, 1)) == ["4 of 8", "2", "2"]
    assert drift.detections(data, "blurry", streams, (1, 1)) == ["4 of 8", "0", "2"]
    assert drift.false_alarms(streams, (1, 1)) == "10000.0 (6 in 6)"


def test_a_stream_is_trained_and_its_losses_are_kept_to_three_digits():
    data = drift.Data([{"name": "toy_rows"}] * 4, 2, steps=6, unchanged=8)

    values = drift.losses(data, "blurry", seed=0)
    assert len(values) == 30 and all(float(f"{value:.3g}") == value > 0 for value in values)
    assert len(drift.losses(data, "none", seed=0)) == 8
