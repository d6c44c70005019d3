"""Tasks that are validated, tested and reported, and never trained."""

import csv
from typing import Any

import pytest
import torch
from run_fixtures import lines
from toy_tasks import toy

from thalnet_mtl import cli
from thalnet_mtl.errors import UserError
from thalnet_mtl.runs.records import read_run
from thalnet_mtl.training.setup import set_up
from thalnet_mtl.training.trainer import train

TASKS: dict[str, dict[str, Any]] = {
    "first": {"name": "toy_rows"},
    "turned": {"name": "toy_turned", "head": "first", "only_scored": True},
    "text": {"name": "toy_text"},
}


def test_a_task_that_is_only_scored_changes_nothing_of_the_others(tmp_path):
    alone = {name: TASKS[name] for name in ("first", "text")}
    options = {"combine": "uncertainty", "patience": 2}
    result, expected = (
        train(toy(tasks=entries, train=options), tmp_path / folder)
        for folder, entries in (("all", TASKS), ("alone", alone))
    )
    for name, task in expected.tasks.items():
        assert result.tasks[name].test == task.test
    assert (result.steps, result.best_step) == (expected.steps, expected.best_step)
    assert result.parameters == expected.parameters
    record = read_run(tmp_path / "all").records[1]
    assert (record.task, record.mode) == ("turned", "as 'turned', only scored")
    scored = [x for x in lines(tmp_path / "all") if x["task"] == "turned"]
    assert {x["split"] for x in scored} == {"validation", "test"}
    saved = torch.load(tmp_path / "all" / "checkpoint" / "last.pt", weights_only=True)
    assert saved["batches_seen"] == {"first": 60, "turned": 0, "text": 60}
    kept = saved["scores"]["best"]
    again = torch.load(tmp_path / "alone" / "checkpoint" / "last.pt", weights_only=True)
    assert kept == again["scores"]["best"]


def test_a_stream_scores_it_in_every_row_and_measures_leave_it_out(tmp_path, capsys):
    stream = [{"tasks": ["first"], "steps": 20}, {"tasks": ["text"], "steps": 20}]
    result = train(toy(tasks=TASKS, stream=stream), tmp_path / "run")
    with (tmp_path / "run" / "accuracy_matrix.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 and all(row["turned"] for row in rows)
    assert result.continual is not None
    assert all("turned" not in m.values for m in result.continual.measures.values())
    assert result.continual.scenario == "task-incremental"
    assert [len(row) for row in result.continual.scores] == [3, 3, 3]
    assert cli.main(["report", str(tmp_path / "run"), "--out", str(tmp_path / "page.html")]) == 0
    assert "turned" in (tmp_path / "page.html").read_text()


def test_growth_scores_it_from_the_row_in_which_its_head_is_there(tmp_path):
    tasks = {
        "first": {"name": "toy_rows"},
        "second": {"name": "toy_rows", "head": "later"},
        "scored": {"name": "toy_turned", "head": "later", "only_scored": True},
    }
    stream = [{"tasks": ["first"], "steps": 10}, {"tasks": ["second"], "steps": 10}]
    growth = {"when": "per_task", "modules": {"in": {"input": True}, "out": {"output": True}}}
    train(toy(tasks=tasks, stream=stream, growth=growth), tmp_path)
    with (tmp_path / "accuracy_matrix.csv").open() as file:
        assert [bool(row["scored"]) for row in csv.DictReader(file)] == [False, False, True]


def test_its_training_part_may_be_smaller_than_a_batch(tmp_path):
    tasks = TASKS | {
        "few": {"name": "toy_kinds", "rows": 64, "head": "kinds", "only_scored": True},
        "kinds": {"name": "toy_kinds"},
    }
    config = toy(tasks=tasks, train={"steps": 0, "epochs": 1})
    run = set_up(config, fetch=print)
    assert run.total_steps == 14 and run.experience.tasks == ("first", "text", "kinds")


@pytest.mark.parametrize(
    ("tasks", "stream", "message"),
    [
        ({"turned": {"only_scored": True}}, None,
         "turned.only_scored: nothing trains its head 'turned'. .* 'head': first, text"),
        ({"first": {"only_scored": True}, "text": {"only_scored": True}}, None,
         "every task is only scored"),
        ({}, [{"tasks": ["first", "turned"]}, {"tasks": ["text"]}],
         "stream: task 'turned' is only scored"),
    ],
)  # fmt: skip
def test_a_scored_task_that_nothing_trains_or_a_stream_trains_is_refused(tasks, stream, message):
    entries = TASKS | {name: {"name": TASKS[name]["name"]} | x for name, x in tasks.items()}
    with pytest.raises(UserError, match=message) as error:
        set_up(toy(tasks=entries, **({"stream": stream} if stream else {})), fetch=print)
    assert "\n" not in str(error.value)
