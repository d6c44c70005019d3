"""A run that goes on for more steps ends as if it had been longer from the start."""

import json
import os
import shutil
from dataclasses import replace

import kill_and_resume
import pytest
from disks import PowerCut, fail_at
from run_fixtures import interrupt_at
from toy_tasks import GROWTH, JOINT, STREAM, toy

from thalnet_mtl import cli
from thalnet_mtl.config.load import dump_config
from thalnet_mtl.console import Console
from thalnet_mtl.errors import UserError
from thalnet_mtl.runs.run_files import read_environment
from thalnet_mtl.training.stacked import train_stacked
from thalnet_mtl.training.step import TrainStep
from thalnet_mtl.training.trainer import train

SHORT = {"steps": 33}  # neither a validation nor a line of the log is due at this step
LONG = {"steps": 50}


def lineage(folder):
    return read_environment(folder / "environment.json")["lineage"]


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run of 33 steps, and one of 50."""
    folder = tmp_path_factory.mktemp("runs")
    train(toy(train=SHORT), folder / "short")
    train(toy(train=LONG), folder / "long")
    return folder


@pytest.mark.parametrize(
    ("steps", "sections"),
    [
        (7, {}),
        (33, {"task": {"name": "toy_text"}, "model": {"body": "lstm", "features": 5}}),
        (40, {**JOINT, "changes": [GROWTH[0] | {"step": 5}]}),
        (35, {"tasks": JOINT["tasks"], "train": {"draw": 2.0, "patience": 1, "dropout": 0.2}}),
    ],
    ids=["single", "text", "joint, changed", "joint, drawn"],
)
def test_a_longer_run_is_the_same_as_one_that_was_longer_from_the_start(tmp_path, steps, sections):
    options = sections.get("train", {})
    whole, longer = tmp_path / "whole", tmp_path / "longer"
    train(toy(**sections | {"train": options | LONG}), whole)
    first = train(toy(**sections | {"train": options | {"steps": steps}}), longer)
    train(toy(**sections | {"train": options | LONG}), longer)
    assert kill_and_resume.differences(whole, longer) == []
    earlier = longer / "earlier" / f"step-{first.steps}"
    assert json.loads((earlier / "result.json").read_text()) == first.to_json()
    assert (earlier / "model" / "model.safetensors").is_file()
    assert len(lineage(longer)) == 1


def test_best_weights_of_a_last_step_without_a_validation_do_not_outlive_it(tmp_path, runs):
    short, long = toy(train={"steps": 35}), toy(train={"steps": 45})
    train(long, tmp_path / "whole")
    assert train(short, tmp_path / "longer").best_step == 35
    assert train(long, tmp_path / "longer").best_step not in (35, 45)
    assert kill_and_resume.differences(tmp_path / "whole", tmp_path / "longer") == []


def test_more_epochs_are_the_same_as_more_epochs_from_the_start(tmp_path):
    for name, counts in (("whole", [3]), ("longer", [1, 2, 3])):
        for epochs in counts:
            options = {"steps": 0, "epochs": epochs, "batch": 60}
            train(toy(train=options, evaluate={"every": 0}), tmp_path / name)
    assert kill_and_resume.differences(tmp_path / "whole", tmp_path / "longer") == []
    changed = [entry["changed"] for entry in lineage(tmp_path / "longer")]
    assert changed == [{"train.epochs": [1, 2]}, {"train.epochs": [2, 3]}]


def test_seeds_that_are_trained_together_become_longer_together(tmp_path):
    def configs(folder, options):
        config = toy(train=options)
        seeds = {f"seed{n}": replace(config, train=replace(config.train, seed=n)) for n in (0, 1)}
        return {folder / name: config for name, config in seeds.items()}

    train_stacked(configs(tmp_path / "whole", LONG), Console())
    for options in (SHORT, LONG):
        train_stacked(configs(tmp_path / "longer", options), Console())
    for name in ("seed0", "seed1"):
        whole, longer = (tmp_path / folder / name for folder in ("whole", "longer"))
        assert kill_and_resume.differences(whole, longer) == []


@pytest.mark.parametrize("call", [2, 5, 12, 17, 20, 31])
def test_a_run_whose_power_is_cut_while_it_becomes_longer_ends_with_the_same_bits(
    tmp_path, runs, call
):
    folder = shutil.copytree(runs / "short", tmp_path / "run")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(PowerCut):
        fail_at(call, patch, PowerCut())
        train(toy(train=LONG), folder)
    train(toy(train=LONG), folder)
    assert kill_and_resume.differences(runs / "long", folder) == []
    assert len(lineage(folder)) == 1
    assert sorted(os.listdir(folder / "earlier" / "step-33")) == ["model", "result.json"]


def test_a_run_that_is_cut_after_it_became_longer_may_end_where_it_would_have(tmp_path, runs):
    folder = shutil.copytree(runs / "short", tmp_path / "run")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit):
        interrupt_at(34, patch)
        train(toy(train=LONG), folder)
    assert not (folder / "result.json").exists()
    train(toy(train=SHORT), folder)
    assert kill_and_resume.differences(runs / "short", folder) == []
    train(toy(train=LONG), folder)
    assert kill_and_resume.differences(runs / "long", folder) == []


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_with_other_steps(tmp_path, runs):
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit):
        interrupt_at(0, patch)
        train(toy(train=SHORT), tmp_path)
    (tmp_path / "checkpoint" / "last.pt").unlink()
    train(toy(train=LONG), tmp_path)
    assert kill_and_resume.differences(runs / "long", tmp_path) == []
    assert "lineage" not in read_environment(tmp_path / "environment.json")


@pytest.mark.parametrize(
    ("sections", "longer", "message"),
    [
        ({}, {"steps": 9}, r"has taken 20 steps already, more than 9 \(train.steps 9 \(there 20"),
        ({"train": {"schedule": "cosine"}}, {"steps": 30}, "follow train.schedule cosine"),
        ({**STREAM, "stream": [{"tasks": [t]} for t in STREAM["tasks"]]}, {"steps": 30}, "stream"),
        (
            {"growth": {"when": "on_plateau", "policy": "shared", "modules": {"more": {}}}},
            {"steps": 30},
            "growth.when on_plateau plans",
        ),
        ({}, {"steps": 30, "batch": 11}, "another configuration: train.batch 11, there 10. Give"),
    ],
    ids=["shorter", "cosine", "stream", "growth", "batch"],
)
def test_a_run_that_cannot_become_longer_says_why_and_stays(tmp_path, sections, longer, message):
    options = sections.get("train", {}) | {"steps": 20}
    train(toy(**sections | {"train": options}), tmp_path / "run")
    before = content(tmp_path)
    with pytest.raises(UserError, match=message):
        train(toy(**sections | {"train": options | longer}), tmp_path / "run")
    assert content(tmp_path) == before
    train(toy(**sections | {"train": options}), tmp_path / "run")


@pytest.mark.parametrize("file", ["checkpoint/last.pt", "metrics.jsonl", "config.yaml"])
def test_a_damaged_run_does_not_become_longer_and_keeps_its_result(tmp_path, runs, file):
    folder = shutil.copytree(runs / "short", tmp_path / "run")
    (folder / file).write_bytes((folder / file).read_bytes()[:99])
    before = content(folder)
    with pytest.raises(UserError, match=file.rpartition("/")[2]):
        train(toy(train=LONG), folder)
    assert content(folder) == before


def test_what_cannot_change_a_finished_run_trains_nothing_and_says_so(runs, monkeypatch, capsys):
    before = content(runs / "short")
    monkeypatch.setattr(TrainStep, "__call__", None)
    options = SHORT | {"epochs": 99, "threads": 2}
    train(toy(train=options, evaluate={"log_every": 3}), runs / "short")
    assert content(runs / "short") == before
    lines = capsys.readouterr().out.splitlines()
    fields = ("train.epochs 99 (there 10)", "train.threads 2 (there 0)",
              "evaluate.log_every 3 (there 8)")  # fmt: skip
    for field in fields:
        assert f"note: {field} changes nothing: {runs / 'short'} has finished" in lines


@pytest.mark.parametrize("every", [5, 25, 1000])
def test_other_times_of_log_and_checkpoints_are_no_other_run(tmp_path, runs, every):
    times = {"log_every": every, "checkpoint_every": every}
    train(toy(train=LONG, evaluate=times), tmp_path / "whole")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit):
        interrupt_at(31, patch)
        train(toy(train=LONG), tmp_path / "run")
    train(toy(train=LONG, evaluate=times), tmp_path / "run")
    whole, run = (
        kill_and_resume.metrics(tmp_path / name / "metrics.jsonl") for name in ("whole", "run")
    )
    assert [m for m in run if m["split"] != "train"] == [m for m in whole if m["split"] != "train"]
    held = 30 - 8  # the old log held the losses of the steps after this one
    later = [
        [m for m in ms if m["step"] > 30 and (m["step"] - 1) // every * every >= held]
        for ms in (whole, run)
    ]
    assert later[0] == later[1]
    assert any(m["split"] == "train" for m in later[0]) == (every < 50)
    weights = "model/model.safetensors"
    assert (tmp_path / "whole" / weights).read_bytes() == (tmp_path / "run" / weights).read_bytes()


def test_other_hardware_is_said_and_recorded_with_the_step(tmp_path, capsys):
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit):
        interrupt_at(31, patch)
        train(toy(train=LONG), tmp_path)
    capsys.readouterr()
    options = LONG | {"ops": "reference", "threads": 1, "device": "cpu"}
    train(toy(train=options), tmp_path)
    out = capsys.readouterr().out
    for line in ("train.ops reference (there auto)", "train.threads 1 (there 0)"):
        assert f"note: {line}, from step 30 on: results may differ by rounding" in out
    assert "resumed" not in read_environment(tmp_path / "environment.json")  # the same machine
    (entry,) = lineage(tmp_path)
    assert entry["step"] == 30
    assert entry["changed"] == {"train.ops": ["auto", "reference"], "train.threads": [0, 1],
                                "train.device": ["auto", "cpu"]}  # fmt: skip


def test_the_command_line_goes_on_with_a_longer_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toy.yaml").write_text(dump_config(toy(train=SHORT)))
    assert cli.main(["train", "toy.yaml", "--out", "run"]) == 0
    assert cli.main(["train", "toy.yaml", "--out", "run", "--train.steps", "50"]) == 0
    assert "resuming run at step 33 of 50" in capsys.readouterr().out
    assert cli.main(["train", "toy.yaml", "--out", "run"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("thalnet: run has taken 50 steps already") and err.count("\n") == 1
