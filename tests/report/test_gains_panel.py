"""Gains over single-task runs are bars with intervals over seeds."""

import json

import pytest
from run_fixtures import make_run

from thalnet_mtl.report.baselines import compare_with_baselines
from thalnet_mtl.report.panels import gains
from thalnet_mtl.report.rows import fold_runs
from thalnet_mtl.runs.records import read_runs

TWO = {"digits_rows": {}, "mnist_rows": {}}


def panel_of(runs, baselines):
    records = read_runs(runs)
    return gains.gains_panel(fold_runs(records), compare_with_baselines(records, baselines))


@pytest.fixture
def alone(tmp_path):
    return read_runs([make_run(tmp_path / f"alone-{kind}", {kind: {}}, test=0.5) for kind in TWO])


def joint(folder, digits, mnist=0.75, seed=0):
    tasks = {"digits_rows": {"test": digits}, "mnist_rows": {"test": mnist}}
    return make_run(folder, tasks, {"train.seed": str(seed)})


def test_bars_are_the_gain_of_each_task_and_their_mean(tmp_path, alone):
    panel = panel_of([joint(tmp_path / "a", 0.4)], alone)
    assert [(bar["task"], bar["gain"], bar["total"]) for bar in panel.data["bars"]] == [
        ("digits_rows", -20.0, False), ("mnist_rows", 50.0, False), ("Δm of 2 tasks", 15.0, True),
    ]  # fmt: skip
    assert all("interval" not in bar for bar in panel.data["bars"])
    assert "A single run has no interval" in panel.sentence
    assert [row["gain (%)"] for row in panel.table] == ["-20.00", "50.00", "15.00"]


def test_seeds_are_a_mean_with_an_interval(tmp_path, alone):
    runs = [joint(tmp_path / f"s{n}", 0.4 + n / 10, seed=n) for n in range(3)]
    panel = panel_of(runs, alone)
    digits, mnist, total = panel.data["bars"]
    assert (digits["gain"], digits["count"], digits["interval"]) == (0.0, 3, [-20.0, 20.0])
    assert (total["gain"], total["interval"]) == (25.0, [15.0, 35.0])
    assert mnist["interval"] == [50.0, 50.0]
    assert "means over 3 seeds" in panel.sentence and "95 %" in panel.sentence
    json.dumps(panel.data, allow_nan=False)


def test_of_many_tasks_the_lowest_and_the_highest_are_drawn(tmp_path, alone, monkeypatch):
    monkeypatch.setattr(gains, "ROWS", 2)
    scores = {f"t{n}": {"kind": "digits_rows", "test": 0.5 + n / 100} for n in (3, 1, 4, 2)}
    panel = panel_of([make_run(tmp_path / "a", scores)], alone)
    assert [bar["task"][:2] for bar in panel.data["bars"]] == ["t1", "t4", "Δm"]  # in their order
    assert "the 1 lowest and the 1 highest gains of 4 tasks" in panel.sentence
    assert len(panel.table) == 5


def test_without_a_finished_run_there_are_no_bars(tmp_path, alone):
    run = make_run(tmp_path / "a", TWO, finished=False)
    assert panel_of([run], alone) is None
