"""A signal saves a run within seconds, whatever it is doing, and it goes on to the same bits."""

import signal
import time

import kill_and_resume
import pytest
import torch
from run_fixtures import lines
from toy_tasks import GROWING, STREAM, toy

from thalnet_mtl import cli
from thalnet_mtl.config.load import dump_config
from thalnet_mtl.console import Console
from thalnet_mtl.errors import Interrupted
from thalnet_mtl.models import cost
from thalnet_mtl.strategies import ewc
from thalnet_mtl.training import context
from thalnet_mtl.training.stacked import train_stacked
from thalnet_mtl.training.step import TrainStep
from thalnet_mtl.training.trainer import train

# What a run is doing when the signal comes: the function that it calls, and the number of the call.
MOMENTS = {
    "validation": (context, "evaluate", 6),
    "Fisher information": (ewc, "fisher_information", 2),
    "tests after an experience": (context, "evaluate", 8),
    "scores of a new task before it is learned": (context, "evaluate", 9),
    "last validation": (context, "evaluate", 11),
    "counting of costs": (cost, "count_macs", 2),
}


@pytest.fixture(autouse=True, scope="module")
def few_samples():
    """The Fisher information of few sequences, for speed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ewc, "SAMPLES", 10)
        yield


@pytest.fixture(autouse=True)
def in_a_terminal():
    """Tests may run behind '&', where Ctrl+C is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def grown_stream():
    """A stream of three tasks, 8 steps each, with a network that grows."""
    stream = [{"tasks": [task], "steps": 8} for task in STREAM["tasks"]]
    return toy(
        tasks=STREAM["tasks"],
        stream=stream,
        growth=GROWING["shared"],
        train={"strategy": "ewc"},
        evaluate={"batches": 2, "every": 8},
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that no signal has come to."""
    folder = tmp_path_factory.mktemp("whole")
    train(grown_stream(), folder)
    return folder


def signal_at_call(module, name: str, call: int, monkeypatch, number=signal.SIGINT) -> list[int]:
    """Send a signal from within a call of a function, which then lasts a minute."""
    real, calls = getattr(module, name), []

    def called(*arguments, **options):
        calls.append(len(calls))
        if len(calls) == call:
            signal.raise_signal(number)
            time.sleep(60)
        return real(*arguments, **options)

    monkeypatch.setattr(module, name, called)
    return calls


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_signal_in_long_work_saves_at_once_and_the_run_goes_on_to_the_same_bits(
    whole, tmp_path, moment
):
    module, name, call = MOMENTS[moment]
    start = time.monotonic()
    with pytest.MonkeyPatch.context() as patch:
        calls = signal_at_call(module, name, call, patch)
        with pytest.raises(Interrupted, match=r"saved at step \d+ of 24"):
            train(grown_stream(), tmp_path)
    assert len(calls) == call and time.monotonic() - start < 30
    train(grown_stream(), tmp_path)
    assert kill_and_resume.differences(whole, tmp_path) == []


@pytest.mark.parametrize(
    ("name", "call", "number", "line"),
    [
        (
            "guess_scores",
            1,
            signal.SIGHUP,
            "interrupted, nothing was saved yet; start again with: thalnet train ",
        ),
        ("evaluate", 1, signal.SIGTERM, "interrupted, nothing was saved yet; start again with: "),
        ("evaluate", 8, signal.SIGHUP, "saved at step 16 of 24; resume with: thalnet train "),
        ("evaluate", 16, signal.SIGTERM, "interrupted, the last checkpoint is kept; resume with: "),
    ],
)
def test_every_signal_ends_a_command_in_one_line_and_the_same_command_goes_on(
    whole, tmp_path, monkeypatch, capsys, name, call, number, line
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stream.yaml").write_text(dump_config(grown_stream()))
    start = time.monotonic()
    with monkeypatch.context() as patch:
        signal_at_call(context, name, call, patch, number)
        assert cli.main(["train", "stream.yaml", "--out", "run"]) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"thalnet: {line}") and err.count("\n") == 1
    assert time.monotonic() - start < 30
    train(grown_stream(), tmp_path / "run")
    assert kill_and_resume.differences(whole, tmp_path / "run") == []


def test_the_second_signal_ends_a_run_at_once_and_its_checkpoint_stays(tmp_path, monkeypatch):
    real = TrainStep.__call__

    def hanging(self, inputs):
        if self.run.step == 33:
            signal.raise_signal(signal.SIGINT)  # a request, and the step goes on
            signal.raise_signal(signal.SIGINT)
        return real(self, inputs)

    monkeypatch.setattr(TrainStep, "__call__", hanging)
    with pytest.raises(KeyboardInterrupt):
        train(toy(), tmp_path)
    assert torch.load(tmp_path / "checkpoint" / "last.pt", weights_only=True)["step"] == 30


def test_a_stop_in_a_long_validation_of_stacked_runs_saves_all_of_them(tmp_path, monkeypatch):
    configs = {tmp_path / f"seed{n}": toy(train={"seed": n, "steps": 30}) for n in (0, 1)}
    with monkeypatch.context() as patch, pytest.raises(Interrupted, match="saved at step 20 of 30"):
        signal_at_call(context, "evaluate", 3, patch)
        train_stacked(configs, Console())
    saved = [torch.load(f / "checkpoint" / "last.pt", weights_only=True) for f in configs]
    assert [content["step"] for content in saved] == [20, 20]
    assert [content["due"] for content in saved] == [["validate"], ["validate"]]
    train_stacked(configs, Console())
    for folder, config in configs.items():
        scores = [x["step"] for x in lines(folder) if x["split"] == "validation"]
        assert scores.count(20) == scores.count(30) > 0 and config
