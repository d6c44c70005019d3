"""Runs that several processes train: what is written, saved, resumed, refused and stopped."""

import json
import os
import shutil
import signal
import time
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from own_bodies import Leaky
from rank_processes import Failure, in_ranks
from torch import Tensor
from toy_tasks import TOY, toy

from thalnet_mtl import Callback, SequenceTask, Strategy, Tracker, UserError, cli, train
from thalnet_mtl.config.schema import Config
from thalnet_mtl.console import Console
from thalnet_mtl.errors import Interrupted
from thalnet_mtl.registry import registered
from thalnet_mtl.runs.results import RunResult
from thalnet_mtl.training.devices import choose_device
from thalnet_mtl.training.ranks import RankLost, process_group

QUIET = Console.silent()


def text_and_rows(steps: int, **options: Any) -> Config:
    """Two tasks with carried states, resets and dropout, whose run can be made longer."""
    training = {"steps": steps, "optimizer": "sgd", "dropout": 0.2, "schedule": "constant"}
    return toy(
        tasks={"toy_text": {"reset": 0.1}, "toy_rows": {}},
        train=training | options,
        evaluate={"every": 5, "log_every": 5},
    )


def checkpoint(folder: Path) -> dict[str, Any]:
    """The last checkpoint of a run."""
    content: dict[str, Any] = torch.load(folder / "checkpoint" / "last.pt")
    return content


def logged(folder: Path) -> list[dict[str, Any]]:
    """The log of a run, without times."""
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def files(folder: Path) -> set[str]:
    """The names of all files of a run; those of TensorBoard have the times of their begin."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {p.relative_to(folder).as_posix() for p in paths if p.parent.name != "tensorboard"}


def assert_equal_runs(found: Path, expected: Path) -> None:
    """Fail unless two runs have the same files, weights, states, random numbers and scores."""
    assert files(found) == files(expected)
    here, there = checkpoint(found), checkpoint(expected)
    assert here["network"].keys() == there["network"].keys()
    for part in ("network", "carried_states"):
        torch.testing.assert_close(here[part], there[part], rtol=0, atol=1e-6)
    assert torch.equal(here["rng"][0], there["rng"][0])
    lines, others = logged(found), logged(expected)
    assert len(lines) == len(others)
    for line, other in zip(lines, others, strict=True):
        assert line == other | {"value": pytest.approx(other["value"], abs=1e-5)}


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 20 steps in one process."""
    folder = tmp_path_factory.mktemp("one")
    train(text_and_rows(20), folder, QUIET)
    return folder


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first 10 steps of it, in two processes."""
    folder = tmp_path_factory.mktemp("half")
    results = in_ranks(2, train, text_and_rows(10), folder, QUIET)
    assert results == [RunResult.load(folder)] * 2
    return folder


@pytest.mark.parametrize("size", [1, 3])
def test_a_run_goes_on_with_any_number_of_ranks(
    one: Path, half: Path, tmp_path: Path, size: int
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(half, folder)
    results = in_ranks(size, train, text_and_rows(20), folder, QUIET)
    assert results == [RunResult.load(folder)] * size
    shutil.rmtree(folder / "earlier")  # the result of the first half
    assert_equal_runs(folder, one)


def test_one_rank_writes_and_shows_what_one_process_would(
    one: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shown() -> str:
        with redirect_stdout(StringIO()) as output:
            train(text_and_rows(20), tmp_path / "two")
        return output.getvalue()

    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    first, second = in_ranks(2, shown)
    assert "step 20/20" in first and second == ""
    assert_equal_runs(tmp_path / "two", one)
    assert len(list((tmp_path / "two" / "tensorboard").iterdir())) == 1
    assert not list((tmp_path / "temporary").iterdir())


# Mistakes, failures and requests to stop


def command(*words: str) -> tuple[int, str]:
    """Status of a command, and what it writes to standard error."""
    with redirect_stderr(StringIO()) as errors, redirect_stdout(StringIO()):
        status = cli.main(list(words))
    return status, errors.getvalue()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["train", "digits", "--train.stepz", "3"], "unknown field 'stepz'"),
        (["train", *TOY, "--model.reading=lineer"], "Did you mean 'linear'?"),
        (["train", *TOY, "--seeds", "0", "1", "--stacked"], "--stacked does not run in the 2"),
        (["train", *TOY, "--train.strategy=avalanche:naive"], "takes the steps itself"),
        (["list", "tasks"], "thalnet list does not run in the 2 processes of torchrun"),
    ],
)
def test_a_mistake_is_reported_once(words: list[str], line: str, tmp_path: Path) -> None:
    os.chdir(tmp_path)
    (first, text), (second, nothing) = in_ranks(2, command, *words)
    assert (first, second) == (2, 2)
    assert line in text and text.count("\n") == 1 and nothing == ""


def rank() -> int:
    """The number of this process."""
    return int(os.environ["RANK"])


def test_a_mistake_of_one_rank_names_it(tmp_path: Path) -> None:
    def missing() -> tuple[int, str]:
        batch = 7 + 1000 * rank()
        return command("train", *TOY, f"--train.batch={batch}", f"--out={tmp_path}/run")

    (first, text), (second, nothing) = in_ranks(2, missing)
    assert (first, second, nothing) == (2, 2, "")
    assert text.startswith("thalnet: rank 1: batch 1007 is larger than the 300")


def test_a_mistake_that_rank_0_alone_can_see_is_that_of_all(one: Path) -> None:
    for error in in_ranks(2, train, text_and_rows(20, seed=1), one, QUIET):
        assert error.kind is UserError and "holds a run of another configuration" in error.text


def test_ranks_with_other_options_data_or_folders_are_refused(tmp_path: Path) -> None:
    def other_seed() -> None:
        train(toy(train={"seed": rank()}), tmp_path / "seed", QUIET)

    def other_data() -> None:
        xs = torch.rand(90, 4, 3, generator=torch.Generator().manual_seed(rank()))
        data = dict.fromkeys(("train", "validation", "test"), (xs, torch.arange(90) % 2))
        task = SequenceTask("own", data)
        train(toy(task={"name": "own"}), tmp_path / "data", QUIET, tasks=[task])

    def other_folder() -> None:
        train(toy(), f"runs/{rank()}", QUIET)

    cases = {
        "folder runs/1": other_folder,
        "train.seed 1": other_seed,
        "data of task 'own'": other_data,
    }
    for what, function in cases.items():
        for error in in_ranks(2, function):
            assert error.kind is UserError and f"rank 1 has {what}" in error.text


@pytest.mark.parametrize("change", ["weights", "frozen"])
def test_ranks_whose_networks_come_apart_are_stopped(tmp_path: Path, change: str) -> None:
    class Change(Callback):
        def on_step_end(self, run: Any, losses: Any) -> None:
            parameter = next(run.network.parameters())
            if run.step == 7 and rank() and change == "weights":
                with torch.no_grad():
                    parameter.add_(1e-6)
            if run.step == 7 and change == "frozen":
                parameter.requires_grad_(rank() == 0)
                run.__dict__["_run"].state.topology_log.append({})

    config = text_and_rows(20)
    for error in in_ranks(2, lambda: train(config, tmp_path / "run", QUIET, callbacks=[Change()])):
        assert error.kind is UserError
        assert "the processes of this run differ: rank 1 has " in error.text


@pytest.mark.parametrize("how", ["error", "death"])
def test_where_a_rank_ends_the_others_end_with_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr("thalnet_mtl.training.ranks.PATIENCE", 0.5)

    class Fail(Callback):
        def on_step_end(self, run: Any, losses: Any) -> None:
            if run.step == 7 and rank() == 1:
                if how == "death":
                    os._exit(9)
                raise OSError(28, "No space left on device", "/data")

    start = time.monotonic()
    config = text_and_rows(20)
    first, second = in_ranks(2, lambda: train(config, tmp_path, QUIET, callbacks=[Fail()]))
    assert first.kind is RankLost and time.monotonic() - start < 20
    if how == "death":
        assert "another process of this run has ended" in first.text and second == 9
    else:
        assert first.text == "rank 1 has ended: /data: No space left on device."
        assert second.kind is OSError


def test_a_signal_to_one_rank_stops_all_at_one_step(one: Path, tmp_path: Path) -> None:
    class Signal(Callback):
        def on_step_end(self, run: Any, losses: Any) -> None:
            if run.step == 3 and rank() == 1:
                os.kill(os.getpid(), signal.SIGTERM)

    config = text_and_rows(20)
    errors = in_ranks(2, lambda: train(config, tmp_path / "run", QUIET, callbacks=[Signal()]))
    assert errors == [Failure(Interrupted, "saved at step 8 of 20")] * 2
    train(config, tmp_path / "run", QUIET)
    assert_equal_runs(tmp_path / "run", one)


def test_a_callback_of_one_rank_ends_the_run_of_all(tmp_path: Path) -> None:
    class Stop(Callback):
        def on_step_end(self, run: Any, losses: Any) -> None:
            if run.step == 4 and rank() == 1:
                run.stop("enough")

    config = text_and_rows(20)
    results = in_ranks(2, lambda: train(config, tmp_path, QUIET, callbacks=[Stop()]))
    assert [result.steps for result in results] == [4, 4]


def test_trackers_are_fed_by_one_rank(tmp_path: Path) -> None:
    class Print(Tracker):
        def log(self, step: int, values: Any) -> None:
            with (tmp_path / f"rank {rank()}").open("a") as file:
                file.write(f"{step}\n")

    in_ranks(2, lambda: train(text_and_rows(5), tmp_path / "run", QUIET, callbacks=[Print()]))
    assert {path.name for path in tmp_path.glob("rank *")} == {"rank 0"}


def test_a_network_with_random_numbers_of_its_own_is_refused(tmp_path: Path) -> None:
    class Noisy(Leaky):
        def forward(self, xs: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
            return super().forward(xs + self.training * torch.rand_like(xs), state)

    with registered("body", {"noisy": Noisy}):
        config = toy(model={"body": "noisy"})
        for error in in_ranks(2, train, config, tmp_path, QUIET):
            assert error.kind is UserError and "draws random numbers by itself" in error.text


def test_a_strategy_that_takes_the_steps_is_refused(tmp_path: Path) -> None:
    class Itself(Strategy):
        def fit(self, trainer: Any) -> None:
            trainer.run_steps()

    with registered("strategy", {"itself": Itself}):
        config = text_and_rows(20, strategy="itself")
        for error in in_ranks(2, train, config, tmp_path, QUIET):
            assert error.kind is UserError and "takes the steps itself" in error.text


def test_dropout_and_passes_are_refused_together(tmp_path: Path) -> None:
    for error in in_ranks(2, train, text_and_rows(20, accumulate=2), tmp_path, QUIET):
        assert error.kind is UserError and error.text.startswith("train.accumulate: ")


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        ({"WORLD_SIZE": "2"}, "RANK is not"),
        ({"WORLD_SIZE": "2", "RANK": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"}, "RANK 2 is not"),
        ({"WORLD_SIZE": "x", "RANK": "0", "MASTER_ADDR": "a", "MASTER_PORT": "1"}, "WORLD_SIZE x"),
    ],
)
def test_a_damaged_environment_is_one_line(
    variables: dict[str, str], line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=line), process_group():
        pass


def test_too_few_gpus_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert choose_device("auto").type == "cuda"
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(UserError, match="2 processes on this machine, with 1 GPUs"):
        choose_device("auto")
    assert choose_device("cpu").type == "cpu"
