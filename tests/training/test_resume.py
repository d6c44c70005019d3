"""A run resumes to the same bits, or says in one line why it cannot."""

import errno
import json
import os

import kill_and_resume
import pytest
import torch
from run_fixtures import interrupt_at
from toy_tasks import toy

from thalnet_mtl.console import Console
from thalnet_mtl.errors import Interrupted, UserError
from thalnet_mtl.models.model_folder import load_weights
from thalnet_mtl.training import beginning
from thalnet_mtl.training.setup import fetch_with, set_up
from thalnet_mtl.training.step import TrainStep
from thalnet_mtl.training.trainer import train


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(toy(train={"seed": seed}), tmp_path / name)
    assert kill_and_resume.differences(tmp_path / "a", tmp_path / "b") == []
    assert kill_and_resume.differences(tmp_path / "a", tmp_path / "c") != []


@pytest.mark.parametrize("task", ["toy_rows", "toy_text"])
@pytest.mark.parametrize("body", ["thalnet", "gru", "lstm"])
def test_a_run_cut_in_the_middle_of_an_epoch_goes_on_to_the_same_bits(
    tmp_path, monkeypatch, task, body
):
    config = toy(task={"name": task}, model={"body": body, "features": 6}, train={"clip": 0.1})
    train(config, tmp_path / "whole")
    for step in (3, 27, 41):
        with monkeypatch.context() as patch, pytest.raises(SystemExit):
            interrupt_at(step, patch)
            train(config, tmp_path / "cut")
    train(config, tmp_path / "cut")
    assert kill_and_resume.differences(tmp_path / "whole", tmp_path / "cut") == []


def test_a_run_killed_at_random_moments_ends_with_the_same_bits(capfd):
    command = ["digits", "--train.steps=400", "--evaluate.checkpoint_every=10"]
    assert kill_and_resume.main(["--kills", "2", "--window", "0.5", *command]) == 0


def test_a_finished_run_is_not_trained_again(tmp_path, monkeypatch):
    result = train(toy(), tmp_path).to_json()
    before = (tmp_path / "metrics.jsonl").read_bytes()
    monkeypatch.setattr(TrainStep, "__call__", None)
    assert train(toy(), tmp_path).to_json() == result
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_a_directory_of_another_configuration_is_refused_and_left_alone(tmp_path):
    train(toy(), tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    for batch in (11, 5):  # 5 is the batch of evaluation: the same word in another section
        with pytest.raises(UserError, match=rf"configuration: train.batch {batch}, there 10"):
            train(toy(train={"batch": batch}), tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


def test_a_finished_run_stays_even_without_its_checkpoint(tmp_path):
    result = train(toy(), tmp_path).to_json()
    (tmp_path / "checkpoint" / "last.pt").unlink()
    before = (tmp_path / "metrics.jsonl").read_bytes()
    assert train(toy(), tmp_path).to_json() == result
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_an_unfinished_run_without_its_checkpoint_is_not_overwritten(tmp_path):
    train(toy(), tmp_path)
    (tmp_path / "result.json").unlink()
    (tmp_path / "checkpoint" / "last.pt").unlink()
    before = (tmp_path / "metrics.jsonl").read_bytes()
    with pytest.raises(UserError, match=r"has lost its checkpoint. Put checkpoint/last.pt back"):
        train(toy(), tmp_path)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_a_log_that_lost_lines_is_not_padded(tmp_path):
    train(toy(), tmp_path)
    (tmp_path / "result.json").unlink()
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(UserError, match=r"metrics.jsonl has lost lines: 0 bytes of \d+ are left"):
        train(toy(), tmp_path)


def test_a_run_that_goes_on_elsewhere_says_so(tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        interrupt_at(13, patch)
        train(toy(), tmp_path)
    real = beginning.run_environment
    monkeypatch.setattr(beginning, "run_environment", lambda *a: real(*a) | {"python": "4.0"})
    train(toy(), tmp_path)
    about = json.loads((tmp_path / "environment.json").read_text())
    assert [(x["step"], x["python"]) for x in about["resumed"]] == [(12, "4.0")]
    assert about["python"] != "4.0"


def test_a_wish_to_stop_saves_the_very_step(tmp_path, monkeypatch):
    real = TrainStep.__call__

    def stopping(self, inputs):
        if self.run.step == 32:
            import signal

            signal.raise_signal(signal.SIGINT)
        return real(self, inputs)

    monkeypatch.setattr(TrainStep, "__call__", stopping)
    with pytest.raises(Interrupted, match="saved at step 33 of 60"):
        train(toy(), tmp_path)
    saved = torch.load(tmp_path / "checkpoint" / "last.pt", weights_only=True)
    assert saved["step"] == 33


@pytest.mark.parametrize("name", ["last.pt", "best.pt"])
def test_a_checkpoint_of_another_run_is_refused(tmp_path, name):
    train(toy(), tmp_path / "a")
    train(toy(train={"seed": 3}), tmp_path / "b")
    (tmp_path / "a" / "result.json").unlink()
    (tmp_path / "b" / "checkpoint" / name).replace(tmp_path / "a" / "checkpoint" / name)
    with pytest.raises(UserError, match=rf"{name} belongs to a run of another configuration"):
        train(toy(), tmp_path / "a")


def test_a_network_that_does_not_fit_its_checkpoint_is_named(tmp_path):
    train(toy(), tmp_path)
    path = tmp_path / "checkpoint" / "last.pt"
    weights = torch.load(path, weights_only=True)["network"]
    network = set_up(toy(model={"features": 7}), fetch=print).network
    with pytest.raises(UserError, match=r"another network: 'body.cells.*' is \(\d+, \d+\) in the"):
        load_weights(network, weights)


@pytest.mark.parametrize("damage", ["truncate", "garbage"])
def test_a_damaged_checkpoint_is_one_line_and_not_overwritten(tmp_path, damage):
    train(toy(), tmp_path)
    (tmp_path / "result.json").unlink()
    path = tmp_path / "checkpoint" / "last.pt"
    content = path.read_bytes()
    path.write_bytes(content[:1000] if damage == "truncate" else b"garbage" * 99)
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"last.pt is damaged and cannot be read"):
        train(toy(), tmp_path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("number", [errno.EACCES, errno.EMFILE, errno.ESTALE, errno.EIO])
def test_a_checkpoint_that_cannot_be_read_now_is_not_called_damaged(tmp_path, number):
    train(toy(train={"steps": 6}), tmp_path)
    (tmp_path / "result.json").unlink()

    def refuse(*arguments, **options):
        raise OSError(number, os.strerror(number), "last.pt")

    with pytest.MonkeyPatch.context() as patch, pytest.raises(OSError, match=r"last\.pt"):
        patch.setattr(torch, "load", refuse)
        train(toy(train={"steps": 6}), tmp_path)
    train(toy(train={"steps": 6}), tmp_path)


def test_dropout_is_of_training_alone_and_goes_on_where_it_stopped(tmp_path, monkeypatch):
    plain, dropped = toy(), toy(train={"dropout": 0.5})
    train(plain, tmp_path / "plain")
    train(dropped, tmp_path / "dropped")
    with monkeypatch.context() as patch:
        interrupt_at(33, patch)
        with pytest.raises(SystemExit):
            train(dropped, tmp_path / "resumed")
    train(dropped, tmp_path / "resumed")
    ends = [torch.load(tmp_path / n / "checkpoint/last.pt") for n in ("dropped", "resumed")]
    for key, weight in ends[0]["network"].items():
        assert torch.equal(ends[1]["network"][key], weight), key
    one, two = (torch.load(tmp_path / n / "checkpoint/last.pt") for n in ("plain", "dropped"))
    name = "body.cells.input.design.stack.0.weight"
    assert not torch.equal(one["network"][name], two["network"][name])
    run = set_up(dropped, fetch_with(Console()))
    port = run.tasks["toy_rows"].head_name
    xs = torch.rand(5, 4, 3)
    run.network.train()
    assert not torch.equal(run.network(port, xs)[0], run.network(port, xs)[0])
    run.network.eval()
    assert torch.equal(run.network(port, xs)[0], run.network(port, xs)[0])
