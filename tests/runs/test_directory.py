import json

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from toy_tasks import toy

from thalnet_mtl.errors import UserError
from thalnet_mtl.runs.directory import RunDirectory
from thalnet_mtl.training.environment import environment
from thalnet_mtl.training.trainer import train


def test_metrics_and_tensorboard_hold_the_same_numbers(tmp_path):
    train(toy(), tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    for tag in ("toy_rows/loss/train", "toy_rows/accuracy/validation", "toy_rows/accuracy/test"):
        _, metric, split = tag.split("/")
        logged = [
            (x["step"], x["value"]) for x in lines if (x["split"], x["metric"]) == (split, metric)
        ]
        shown = [(event.step, event.value) for event in events.Scalars(tag)]
        assert [step for step, _ in shown] == [step for step, _ in logged]
        assert [value for _, value in shown] == pytest.approx([value for _, value in logged])


def test_what_was_logged_after_a_checkpoint_can_be_forgotten(tmp_path):
    directory = RunDirectory(tmp_path, toy())
    directory.log(1, "t", "train", {"loss": 1.0})
    size = directory.size
    directory.log(2, "t", "train", {"loss": 2.0})
    directory.rewind(size)
    directory.log(3, "t", "train", {"loss": 3.0})
    directory.close()
    steps = [
        json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()
    ]
    assert steps == [1, 3]


def test_a_closed_directory_can_be_opened_again_and_an_open_one_cannot(tmp_path):
    directory = RunDirectory(tmp_path, toy())
    with pytest.raises(UserError, match="another process is writing"):
        RunDirectory(tmp_path, toy())
    directory.close()
    RunDirectory(tmp_path, toy()).close()


def test_the_environment_says_versions_hardware_commit_and_data():
    found = environment(torch.device("cpu"), {"a": "md5:0"})
    assert found["packages"]["torch"] == torch.__version__
    assert found["device"] == "cpu" and found["cores"] > 0 and found["data"] == {"a": "md5:0"}
    assert found["commit"] is None or len(found["commit"].rstrip("+")) == 40
