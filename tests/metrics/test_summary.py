"""What a stream came to: in result.json, in compare, in the report."""

import csv
import json

import pytest
import torch
from page_parts import panels
from toy_tasks import toy

from thalnet_mtl import cli
from thalnet_mtl.console import Console
from thalnet_mtl.metrics.continual import AccuracyMatrix, forgetting
from thalnet_mtl.metrics.metric import ACCURACY, RMSE
from thalnet_mtl.metrics.summary import FORMULAS, ContinualSummary, summarize
from thalnet_mtl.report import html as report
from thalnet_mtl.report import terminal as tables
from thalnet_mtl.runs.records import read_run
from thalnet_mtl.tasks.sequences import SequenceTask
from thalnet_mtl.topology.spec import TaskSpec
from thalnet_mtl.training import trainer as training
from thalnet_mtl.training.results import scenario
from thalnet_mtl.training.setup import fetch_with, set_up
from thalnet_mtl.training.trainer import train

TWO = {
    "tasks": {"a": {"name": "toy_rows"}, "b": {"name": "toy_rows"}},
    "stream": [{"tasks": ["a"], "steps": 20}, {"tasks": ["b"], "steps": 20}],
}
GROWS = {
    "growth": {
        "when": "per_task",
        "policy": "frozen",
        "modules": {"own": {"input": True, "output": True, "features": 4}},
    }
}


@pytest.fixture(scope="module")
def streams(tmp_path_factory):
    folder = tmp_path_factory.mktemp("streams")
    training.train(toy(**TWO), folder / "never")
    training.train(toy(**TWO, **GROWS), folder / "frozen")
    return folder


def content(folder):
    return json.loads((folder / "result.json").read_text())["continual"]


def test_the_result_holds_the_matrix_of_the_file_and_its_measures(streams):
    with (streams / "never" / "accuracy_matrix.csv").open() as file:
        header, *rows = csv.reader(file)
    summary = content(streams / "never")
    assert header == ["stage", "a", "b"]
    assert [[float(cell) for cell in row[1:]] for row in rows] == summary["scores"]
    matrix = AccuracyMatrix({"a": ACCURACY, "b": ACCURACY}, [["a"], ["b"]], summary["scores"])
    assert summary["measures"]["forgetting"]["mean"] == forgetting(matrix).mean
    assert (
        summary["measures"]["forgetting"]["mean"]
        == summary["scores"][1][0] - summary["scores"][2][0]
    )
    assert summary["ends"] == [20, 40] and summary["scenario"] == "task-incremental"


def test_what_is_frozen_forgets_exactly_nothing_and_has_no_forward_transfer(streams):
    summary = content(streams / "frozen")
    assert summary["measures"]["forgetting"]["mean"] == 0.0
    assert summary["scores"][0][1] is summary["scores"][1][1] is None  # no head yet
    transfer = summary["measures"]["forward_transfer"]
    assert transfer["mean"] is None and "no score after stage 1" in transfer["why"]
    assert "forgetting 0.0;" in ContinualSummary.from_json(summary, "result").line()
    sizes = summary["stages"]
    assert sizes[0] == sizes[1] and sizes[2]["frozen"] == sizes[1]["total"]
    assert sizes[2]["multiply_adds"]["a"] == sizes[1]["multiply_adds"]["a"]  # runs nothing new


def test_the_scores_of_a_stream_are_those_of_its_last_weights(streams):
    result = json.loads((streams / "never" / "result.json").read_text())
    last = result["continual"]["scores"][-1]
    assert [result["tasks"][name]["test"]["accuracy"] for name in "ab"] == last
    assert result["best_step"] == 40


def test_no_line_of_the_log_mixes_two_experiences(streams):
    lines = [json.loads(x) for x in (streams / "never" / "metrics.jsonl").read_text().splitlines()]
    logged = [
        (x["step"], x["task"]) for x in lines if x["metric"] == "loss" and x["split"] == "train"
    ]
    assert logged == [(8, "a"), (16, "a"), (20, "a"), (24, "b"), (32, "b"), (40, "b")]


def test_compare_shows_measures_below_the_runs(streams, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert cli.main(["compare", str(streams / "never"), str(streams / "frozen")]) == 0
    shown = capsys.readouterr().out
    assert "stream of 2" in shown and "per_task, frozen" in shown
    (line,) = [line for line in shown.splitlines() if line.startswith("frozen  per_task, frozen")]
    cells = line.split()
    assert "All: scenario task-incremental, strategy naive" in shown
    assert cells[-1] == "–" and cells[-3] == "0.0" and cells[-4] == "0.0"
    assert FORMULAS.split(".")[0] in shown


def test_the_report_draws_the_matrix_and_says_why_a_measure_is_missing(streams, tmp_path):
    page = report.write([streams / "frozen", streams / "never"], tmp_path / "r.html").read_text()
    assert len(panels(page, "matrix")) == 2
    assert "forward transfer: b: no score after stage 1" in page
    assert "experience 2: b" in page and "a (toy_rows)" in page
    alone = tmp_path / "alone"
    training.train(toy(train={"steps": 8}), alone)
    assert not panels(report.write([alone], tmp_path / "s.html").read_text(), "matrix")


def test_the_worst_validation_of_an_old_task_is_found_between_the_ends(streams):
    run = read_run(streams / "never")
    curves = {"a": [(20, 0.0, 0.9), (30, 0.0, 0.4), (40, 0.0, 0.6)], "b": []}
    summary = run.continual.minimum_accuracy({"a": ACCURACY, "b": ACCURACY}, curves)
    assert summary.mean == pytest.approx(0.4)


def test_a_measure_that_an_older_version_did_not_have_is_missing_and_says_why(streams):
    result = json.loads((streams / "never" / "result.json").read_text())["continual"]
    del result["measures"]["forgetting"]
    summary = ContinualSummary.from_json(result, "here")
    assert summary.measures["forgetting"].mean is None
    assert "does not have it" in summary.measures["forgetting"].why
    assert "forgetting –" in summary.line()


def test_a_damaged_result_is_one_line(streams, tmp_path):
    folder = tmp_path / "damaged"
    training.train(toy(**TWO, train={"steps": 8}), folder)
    path = folder / "result.json"
    result = json.loads(path.read_text())
    del result["continual"]["scores"]
    path.write_text(json.dumps(result))
    with pytest.raises(ValueError, match="has changed since the run finished"):
        tables.runs_table([folder])
    (folder / "SHA256SUMS").unlink()
    with pytest.raises(ValueError, match="scores"):
        tables.runs_table([folder])


@pytest.mark.parametrize(
    ("tasks", "name"),
    [
        ({"a": {"name": "toy_rows"}, "b": {"name": "toy_rows"}}, "task-incremental"),
        (
            {"a": {"name": "toy_rows", "head": "h"}, "b": {"name": "toy_rows", "head": "h"}},
            "domain-incremental",
        ),
        (
            {"a": {"name": "toy_rows", "head": "h"}, "b": {"name": "toy_rows", "head": "h"},
             "c": {"name": "toy_text"}},
            "task-incremental, some heads shared",
        ),
    ],
)  # fmt: skip
def test_the_scenario_follows_from_the_heads(tasks, name):
    assert scenario(set_up(toy(tasks=tasks), fetch_with(Console()))) == name


@pytest.mark.parametrize(
    ("stream", "classes", "name"),
    [
        ("a b c", {"a": (0, 1), "b": (2, 3), "c": (4,)}, "class-incremental"),
        ("a b a", {"a": (0, 1), "b": (2, 3)}, "class-incremental"),  # one returns
        ("ac b", {"a": (0, 1), "b": (3,), "c": (2,)}, "class-incremental"),
        ("a b c", {"a": (0, 1, 2), "b": (0, 1), "c": (2,)}, "domain-incremental"),  # subsets
        ("ac b", {"a": (0, 1), "b": (1, 2), "c": (2,)}, "domain-incremental"),
        ("a b", {"a": (), "b": ()}, "domain-incremental"),  # numbers have no classes
        ("a b", {"a": (0, 1), "b": (0, 1, 2)}, "class- and domain-incremental"),
        ("a b c", {"a": (0, 1), "b": (2,), "c": (0,)}, "class- and domain-incremental"),
    ],
)
def test_the_scenario_of_a_head_follows_from_the_classes_that_are_new(stream, classes, name):
    tasks = {task: {"name": "toy_rows", "head": "h"} for task in classes}
    experiences = [{"tasks": list(names)} for names in stream.split()]
    run = set_up(toy(tasks=tasks, stream=experiences), fetch_with(Console()))
    for task, seen in classes.items():
        run.tasks[task].classes_seen = seen
    assert scenario(run) == name


def test_own_tasks_of_one_head_with_other_classes_are_class_incremental(tmp_path):
    def task(name, low):
        xs = torch.rand(40, 3, 2)
        ys = low + torch.arange(40) % 2
        splits = dict.fromkeys(("train", "validation", "test"), (xs, ys))
        return SequenceTask(name, splits, TaskSpec(2, 4, steps=3))

    tasks = {name: {"head": "all"} for name in ("first", "second")}
    stream = [{"tasks": [name], "steps": 1} for name in tasks]
    sections = {"tasks": tasks, "stream": stream, "train": {"batch": 5}}
    own = [task("first", 0), task("second", 2)]
    result = train(toy(**sections), tmp_path, tasks=own)
    assert result.continual.scenario == "class-incremental"


def test_the_mean_over_tasks_of_different_metrics_is_one_of_normalized_scores():
    summary = summarize(
        {"a": ACCURACY, "b": RMSE},
        [["a"], ["b"]],
        [{"a": 0.5, "b": 4.0}, {"a": 0.9, "b": 4.0}, {"a": 0.7, "b": 1.0}],
        scenario="task-incremental",
        strategy="naive",
        growth="never",
        ends=[10, 20],
        stages=[],
        guess={"a": 0.5, "b": 4.0},
    )
    acc = summary.measures["average_accuracy"]
    assert acc.mean == pytest.approx((0.4 + 0.75) / 2) and acc.values == {"a": 0.7, "b": 1.0}
    assert "0 for guessing, 1 for a perfect answer" in acc.why
    # After stage 1 only a is seen: 0.8. After stage 2: 0.575.
    incremental = summary.measures["average_incremental_accuracy"]
    assert incremental.mean == pytest.approx((0.8 + 0.575) / 2)
    assert incremental.values == pytest.approx({"stage 1": 0.8, "stage 2": 0.575})
    # Only a was learned before the last stage: its forgetting stays in its own unit.
    forgetting = summary.measures["forgetting"]
    assert forgetting.mean == pytest.approx(0.2) and not forgetting.why
    # What people read says which means are normalized.
    assert summary.line().startswith("ACC 0.5750 (normalized); AIA 0.6875 (normalized); forgetting")
    assert "forgetting 0.2000;" in summary.line()
    shown = summary.line(dict.fromkeys(summary.measures["forgetting"].values, ACCURACY))
    assert "forgetting 20.00 %;" in shown and "ACC 0.5750 (normalized)" in shown


def test_without_a_guess_tasks_of_different_metrics_have_no_mean():
    sections = {"scenario": "", "strategy": "", "growth": "", "ends": [1], "stages": []}
    scores = [{"a": 0.5, "b": 4.0}, {"a": 0.9, "b": 1.0}]
    for guess in (None, {"a": 0.5}, {"a": 1.0, "b": 4.0}):
        summary = summarize(
            {"a": ACCURACY, "b": RMSE}, [["a", "b"]], scores, guess=guess, **sections
        )
        acc = summary.measures["average_accuracy"]
        assert acc.mean is None and "of which there is no mean" in acc.why
