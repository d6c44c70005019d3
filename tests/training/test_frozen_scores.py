"""Frozen tasks are scored once, and exactly as often again as what they read has changed."""

import json

import pytest
import torch
from rich import console as rich_console
from toy_tasks import GROWING, STREAM, toy

from thalnet_mtl.console import Console
from thalnet_mtl.models.checksum import TaskChecksums
from thalnet_mtl.runs.directory import RunDirectory
from thalnet_mtl.training import context
from thalnet_mtl.training.loop import Trainer
from thalnet_mtl.training.setup import set_up
from thalnet_mtl.training.trainer import train

TASKS = list(STREAM["tasks"])


def grown(**sections):
    return toy(**STREAM, growth=GROWING["frozen"], **sections)


def logged(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


@pytest.fixture
def evaluated(monkeypatch):
    """Tasks and splits in the order in which they are scored."""
    calls, evaluate = [], context.evaluate

    def counted(network, task, split, *arguments, **options):
        calls.append((task.name, split))
        return evaluate(network, task, split, *arguments, **options)

    monkeypatch.setattr(context, "evaluate", counted)
    return calls


def test_a_frozen_task_is_scored_once_and_logged_as_if_it_were_scored_each_time(
    tmp_path, monkeypatch, evaluated
):
    once = train(grown(), tmp_path / "once", Console.silent())
    few = list(evaluated)
    evaluated.clear()
    monkeypatch.setattr(TaskChecksums, "of", lambda self, task: bytes(len(evaluated)))
    always = train(grown(), tmp_path / "always", Console.silent())
    assert logged(tmp_path / "once") == logged(tmp_path / "always")
    assert once.continual.scores == always.continual.scores
    # The first task is scored in its own experience, in the next one while it is frozen, and at
    # the end; always, also in the last one.
    for split in ("validation", "test"):
        counts = [calls.count(("toy_rows", split)) for calls in (few, evaluated)]
        assert counts[0] == counts[1] - 1


def test_lines_of_frozen_tasks_are_marked(tmp_path):
    train(grown(), tmp_path / "run", Console.silent())
    frozen = {
        (line["task"], line["step"])
        for line in logged(tmp_path / "run")
        if line["split"] == "validation" and line.get("frozen")
    }
    assert frozen == {("toy_rows", 40), ("toy_rows", 60), ("toy_wide", 60)}


def test_a_frozen_task_is_shown_once(tmp_path, capsys):
    console = Console(rich_console.Console(width=100))
    train(grown(), tmp_path / "run", console)
    said = [
        line.split()[2] for line in capsys.readouterr().out.splitlines() if " validation " in line
    ]
    assert [said.count(task) for task in TASKS] == [2, 2, 1]


def trained_until(step, folder):
    run = set_up(grown(), fetch=print)
    trainer = Trainer(run, RunDirectory(folder, run.config), Console.silent())
    trainer.resume_or_start()
    while run.step < step:
        trainer.after_step(trainer.train_step(trainer.before_step()))
    return run


@pytest.mark.parametrize("part", ["weight", "buffer", "nothing", "another task"])
def test_a_frozen_task_is_scored_again_if_anything_that_it_reads_has_changed(
    tmp_path, evaluated, part
):
    run = trained_until(45, tmp_path / "run")
    run.scores(["toy_rows"], "validation")
    evaluated.clear()
    cell = run.network.body.cell("input")
    if part == "weight":
        next(cell.parameters()).data[0] += 1  # no version counter of PyTorch sees it
    elif part == "buffer":
        cell.register_buffer("statistics", torch.zeros(1))
    elif part == "another task":
        next(run.network.adapters["toy_text"].parameters()).data[0] += 1
    run.scores(["toy_rows"], "validation")
    expected = [("toy_rows", "validation")] if part in ("weight", "buffer") else []
    assert evaluated == expected


def test_scores_that_are_returned_can_be_changed(tmp_path):
    run = trained_until(45, tmp_path / "run")
    first = run.scores(["toy_rows"], "test")
    first["toy_rows"]["loss"] = -1.0
    assert run.scores(["toy_rows"], "test")["toy_rows"]["loss"] > 0
