"""Lesions are one matrix of modules and tasks, in which a needed module costs score."""

import json

import pytest
from run_fixtures import make_run

from thalnet_mtl.report.panels.lesions import lesions_panel
from thalnet_mtl.runs.lesions import TaskLesions, record_lesions
from thalnet_mtl.runs.records import read_run

TWO = {"digits_rows": {}, "mnist_rows": {}}


def lesioned(folder, tasks=TWO, seed=0, shift=0.0):
    run = make_run(folder, tasks, {"train.seed": str(seed)})
    names = {task: options.get("metric", "accuracy") for task, options in tasks.items()}
    record_lesions(run, {
        task: TaskLesions(20, "test", 0, {name: 0.8}, {
            "input": {name: 0.1 + shift}, **({"late": {name: 0.82}} if number else {}),
        })
        for number, (task, name) in enumerate(names.items())
    })  # fmt: skip
    return read_run(run)


def test_a_cell_is_the_score_with_the_module_minus_that_without(tmp_path):
    panel = lesions_panel("a", [lesioned(tmp_path / "a")])
    assert (panel.data["modules"], panel.data["tasks"]) == (["input", "late"], list(TWO))
    [shown] = panel.data["sets"]
    assert shown["values"] == [[70.0, 70.0], [None, pytest.approx(-2.0)]]
    assert shown["limit"] == 70.0 and panel.data["unit"] == "points"
    assert [row["mnist_rows"] for row in panel.table] == ["+70.0 points", "-2.0 points"]
    assert panel.table[1]["digits_rows"] == "–"
    json.dumps(panel.data, allow_nan=False)


def test_where_lower_is_better_a_rise_is_a_loss(tmp_path):
    run = lesioned(tmp_path / "a", {"text8": {"metric": "bits_per_character"}})
    panel = lesions_panel("a", [run])
    assert panel.data["sets"][0]["values"] == [[pytest.approx(-0.7)]]
    assert panel.data["unit"] == "bits"


def test_tasks_with_other_metrics_share_the_scale_from_guessing_to_perfect(tmp_path):
    two = {"digits_rows": {}, "text8": {"metric": "bits_per_character", "classes": 4}}
    panel = lesions_panel("a", [lesioned(tmp_path / "a", two)])
    [[digits, text], _] = panel.data["sets"][0]["values"]
    assert digits == pytest.approx(100 * 0.7 / 0.9, rel=1e-3)  # guessing: 0.1 of 10 classes
    assert text == pytest.approx(100 * -0.7 / 2)  # guessing among 4 classes: 2 bits
    assert "from guessing to the perfect score" in panel.sentence


def test_seeds_are_their_mean_and_one_by_one(tmp_path):
    runs = [lesioned(tmp_path / f"s{k}", seed=k, shift=k / 10) for k in range(3)]
    panel = lesions_panel("a", runs)
    assert [shown["name"] for shown in panel.data["sets"]] == [
        "mean of 3 seeds", "seed 0", "seed 1", "seed 2",
    ]  # fmt: skip
    assert [shown["values"][0][0] for shown in panel.data["sets"]] == [60.0, 70.0, 60.0, 50.0]


def test_runs_that_were_not_evaluated_have_no_lesions(tmp_path):
    assert lesions_panel("a", [read_run(make_run(tmp_path / "a"))]) is None
