"""Scores on the splits, and against sizes, are drawn where there is something to compare."""

import json

import pytest
from run_fixtures import make_run

from thalnet_mtl.report.panels import splits
from thalnet_mtl.report.sections import make_sections
from thalnet_mtl.report.task_views import task_views
from thalnet_mtl.runs.records import read_runs


def tasks_of(*folders):
    return task_views(make_sections(read_runs(folders)))


def with_size(run, parameters):
    content = json.loads((run / "result.json").read_text())
    content["parameters"] |= {"total": parameters}
    (run / "result.json").write_text(json.dumps(content))
    return run


def test_a_single_row_needs_no_figure(tmp_path):
    tasks = tasks_of(make_run(tmp_path / "a"))
    assert splits.splits_panel(tasks) is None and splits.sizes_panel(tasks) is None
    assert splits.splits_panel(tasks_of(make_run(tmp_path / "b", finished=False))) is None


def test_seeds_are_a_row_with_an_interval(tmp_path):
    runs = [make_run(tmp_path / f"s{n}", flags={"train.seed": str(n)}, test=0.5 + n / 10)
            for n in range(3)]  # fmt: skip
    other = make_run(tmp_path / "b", flags={"train.batch": "7"}, batches=2)
    panel = splits.splits_panel(tasks_of(*runs, other))
    [metric] = panel.data["metrics"]
    seeds, single = metric["rows"]
    assert (seeds["test"], seeds["count"], seeds["interval"]) == (60.0, 3, [50.0, 70.0])
    assert (single["train"], single["validation"]) == (91.23, 87.65) and "interval" not in single
    assert "Some runs were scored on the first 2 batches only" in panel.sentence
    assert panel.table[0]["test"] == "60.00 [50.00, 70.00]" and panel.table[0]["n"] == "3"


def test_tasks_with_other_metrics_have_an_axis_of_their_own(tmp_path):
    two = {"digits_rows": {}, "text8": {"metric": "bits_per_character"}}
    panel = splits.splits_panel(tasks_of(make_run(tmp_path / "a", two)))
    assert [metric["unit"] for metric in panel.data["metrics"]] == ["%", "bits"]


def test_of_many_rows_some_are_drawn_and_all_are_in_the_table(tmp_path, monkeypatch):
    monkeypatch.setattr(splits, "ROWS", 3)
    tasks = {f"t{number}": {"kind": "digits_rows"} for number in range(7)}
    panel = splits.splits_panel(tasks_of(make_run(tmp_path / "a", tasks)))
    [metric] = panel.data["metrics"]
    assert [row["task"][:2] for row in metric["rows"]] == ["t0", "t3", "t6"]
    assert len(panel.table) == 7 and "Drawn are 3 of 7 rows" in panel.sentence


def test_sizes_are_compared_where_they_differ(tmp_path):
    runs = [make_run(tmp_path / body, {"digits_rows": {}, "mnist_rows": {"test": 0.4}},
                     {"model.body": body}, test=0.8) for body in ("gru", "thalnet")]  # fmt: skip
    assert splits.sizes_panel(tasks_of(*runs)) is None
    with_size(runs[0], 50_000)
    panel = splits.sizes_panel(tasks_of(*runs))
    [metric] = panel.data["metrics"]
    sizes = {point["group"]: (point["parameters"], point["test"]) for point in metric["points"]}
    assert sizes == {"gru": (50_000, 60.0), "thalnet": (12_345, pytest.approx(60.0))}
    assert "over the tasks that it has" in panel.sentence
