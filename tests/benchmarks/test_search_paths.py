"""The benchmark of paths: its table, and what counts as right."""

import json

import toy_tasks  # noqa: F401

from benchmarks.markdown import with_table
from benchmarks.search import drift, paths


def test_the_table_is_made_from_the_raw_records():
    table = paths.table(json.loads(paths.RECORDS.read_text()))
    assert table.count("\n") > 8
    assert with_table(paths.TABLE.read_text(), table) == paths.TABLE.read_text()


def test_new_tasks_are_right_on_a_path_of_their_own_and_returning_ones_on_theirs():
    # The tasks are 0, 1, 2, 0, 1.
    assert paths.right(["a", "b", "c", "a", "b"]) == (2, 2)
    assert paths.right(["a", "a", "c", "a", "c"]) == (1, 1)
    assert paths.right(["a", "b", "b", "d", "b"]) == (1, 1)


def test_a_run_says_which_path_trains_after_each_experience():
    data = drift.Data([{"name": "toy_rows"}] * 3, 2, steps=6, unchanged=8)
    for growth in ("paths", "never"):
        record = paths.train(data, "blurry", 0, growth)
        assert record["ends"] == ["path1"] * 5 and record["paths"] == 1
        assert len(record["scores"]) == 3
