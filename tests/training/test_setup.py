"""What cannot be built or trained is refused before a run directory is made."""

import itertools
import json

import pytest
import torch
from toy_tasks import toy

from thalnet_mtl.config.schema import Config
from thalnet_mtl.errors import UserError
from thalnet_mtl.tasks.sequences import SequenceTask
from thalnet_mtl.topology.spec import TaskSpec
from thalnet_mtl.training import devices
from thalnet_mtl.training.setup import set_up
from thalnet_mtl.training.trained_run import load_run
from thalnet_mtl.training.trainer import train


def test_large_networks_take_the_threads_that_pytorch_has_and_small_ones_one(monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.setattr(devices, "THREADS", 3)
    sizes = {"small": {"features": 6}, "large": {"modules": 1, "features": 300, "budget": 10**6}}
    taken = {}
    try:
        for (name, model), threads in itertools.product(sizes.items(), (0, 2)):
            set_up(toy(model=model, train={"threads": threads}), print)
            taken[name, threads] = torch.get_num_threads()
    finally:
        torch.set_num_threads(before)
    assert taken == {("small", 0): 1, ("small", 2): 2, ("large", 0): 3, ("large", 2): 2}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (toy(train={"batch": 301}), "batch 301 is larger than the 300 sequences of toy_rows"),
        (toy(task={"name": "toy_row"}), r"unknown task 'toy_row'.*Did you mean 'toy_rows'"),
        (toy(model={"module": "ffgru"}), r"unknown module 'ffgru'.*Did you mean 'ff_gru'"),
        (toy(model={"reading": "gaussian"}), r"unknown reading 'gaussian'.*'fast_gaussian'"),
        (toy(train={"optimizer": "adan"}), r"unknown optimizer 'adan'.*Did you mean 'adam'"),
        (toy(model={"body": "thalnett"}), r"unknown body 'thalnett'.*'thalnet'"),
        (toy(model={"features": 500}), r"over model.budget 50,000"),
        (toy(model={"features": 0, "budget": 30}), "model.budget 30 is too small"),
        (toy(model={"features": 0, "budget": 0}), "both are 0"),
        (toy(task={"name": "toy_text"}, train={"chunk": 999}), "too few for batch 10"),
        (toy(task={"name": "toy_text"}, model={"extra_steps": 1}), "extra_steps.*every step"),
        (toy(task={"name": "toy_text"}, model={"body": "mlp"}), "one output a sequence"),
        (
            toy(train={"warmup": 60}),
            r"train.warmup \(60\) must be smaller .* \(60 steps\)",
        ),
        (toy(model={"features": 10**6, "budget": 0}), "takes at least 360,000 GB to train"),
        (toy(train={"device": "cuda"}), "no GPU"),
        (toy(tasks={"toy_rows": {"reset": 0.1}}), "toy_rows.reset: only a text"),
        (toy(train={"device": "cpu", "precision": "tf32"}), "only a GPU has it. .*fp32, bf16"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is_written(
    tmp_path, config: Config, message: str
):
    if "GPU" in message and torch.cuda.is_available():
        config = toy(train={"batch": 301})
        message = "batch 301"
    with pytest.raises(UserError, match=message):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"cannot write to .*file/run: Not a directory"):
        train(toy(), tmp_path / "file" / "run")


def test_two_processes_do_not_write_to_one_run(tmp_path):
    from filelock import FileLock

    (tmp_path / "run").mkdir()
    with (
        FileLock(tmp_path / "run" / ".lock"),
        pytest.raises(UserError, match="another process is writing"),
    ):
        train(toy(), tmp_path / "run")


def test_nan_in_the_input_is_refused():
    xs = torch.zeros(5, 4, 3)
    xs[2, 1, 1] = torch.nan
    data = {name: (xs, torch.zeros(5)) for name in ("train", "validation", "test")}
    with pytest.raises(UserError, match="task 'mine', train: the input of row 2 holds NaN"):
        SequenceTask("mine", lambda: data, TaskSpec(3, 2, steps=4), scale=255).load("cpu")


def test_a_configured_loss_replaces_that_of_the_task(tmp_path):
    loss = {"name": "cross_entropy", "label_smoothing": 0.1}
    for name, values in (("plain", {}), ("smooth", {"loss": loss})):
        train(toy(task={"name": "toy_rows", **values}, train={"steps": 4}), tmp_path / name)
    losses = [
        json.loads((tmp_path / name / "result.json").read_text())["tasks"]["toy_rows"]
        for name in ("plain", "smooth")
    ]
    assert losses[0] != losses[1]
    assert load_run(tmp_path / "smooth").task().loss_function.label_smoothing == 0.1


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (
            "mse",
            r"^task 'toy_rows': the loss 'mse' is for targets of kind numbers, not 'class'",
        ),
        ("msee", r"^unknown loss 'msee'.*Did you mean 'mse'"),
        ({"name": "cross_entropy", "smoothing": 1}, "unknown field 'smoothing'.*'label_smoothing'"),
    ],
)
def test_a_loss_that_does_not_fit_is_one_line(tmp_path, loss, message):
    with pytest.raises(UserError, match=message):
        train(toy(task={"name": "toy_rows", "loss": loss}), tmp_path / "run")
    assert not (tmp_path / "run").exists()
