import itertools
import json
import time

import kill_and_resume
import pytest
import torch
from disks import largest_file
from run_fixtures import interrupt_at
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from toy_tasks import toy

from thalnet_mtl.errors import UserError, describe_os_error
from thalnet_mtl.files import PART
from thalnet_mtl.runs.directory import RunDirectory, open_log
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


def test_a_line_that_a_full_disk_has_cut_is_no_sign_of_a_lost_checkpoint(tmp_path):
    for end in ('{"step": 0, "value": 1}\n{"st', '{"st'):
        (tmp_path / "metrics.jsonl").write_text(end)
        directory = RunDirectory(tmp_path, toy())
        directory.rewind(0)
        directory.close()
        assert (tmp_path / "metrics.jsonl").read_bytes() == b""


def test_a_disk_that_is_full_while_a_line_is_logged_is_an_error_with_the_file(tmp_path):
    directory = RunDirectory(tmp_path, toy())
    with largest_file(2_000):
        with pytest.raises(OSError, match="File too large") as error:
            for step in range(100):
                directory.log(step, "t", "train", {"loss": 1.0})
        with pytest.raises(OSError, match="File too large"):  # it still holds a line
            directory.close()
    line = describe_os_error(error.value)
    assert line == f"cannot write the log of {tmp_path}: File too large."
    RunDirectory(tmp_path, toy()).close()  # the lock is free


def test_files_left_by_a_kill_are_removed_when_the_directory_is_opened(tmp_path):
    part = tmp_path / "checkpoint" / f"{PART}1234-last.pt"
    part.parent.mkdir()
    part.write_bytes(b"half")
    RunDirectory(tmp_path, toy()).close()
    assert not part.exists()


def test_the_clock_may_jump(tmp_path, monkeypatch):
    train(toy(), tmp_path / "usual")
    clock = itertools.cycle([2e9, 1e9, 0.0])
    monkeypatch.setattr(time, "time", lambda: next(clock))
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        interrupt_at(33, patch)
        train(toy(), tmp_path / "jumping")
    train(toy(), tmp_path / "jumping")
    assert kill_and_resume.differences(tmp_path / "usual", tmp_path / "jumping") == []
    assert json.loads((tmp_path / "jumping" / "result.json").read_text())["seconds"] < 1000
    boards = []
    for name in ("usual", "jumping"):  # TensorBoard reads event files in the order of their names
        events = EventAccumulator(str(tmp_path / name / "tensorboard"))
        events.Reload()
        boards.append([(e.step, e.value) for e in events.Scalars("toy_rows/loss/train")])
    assert boards[0] == boards[1]


def test_a_closed_directory_can_be_opened_again_and_an_open_one_cannot(tmp_path):
    directory = RunDirectory(tmp_path, toy())
    with pytest.raises(UserError, match="another process is writing"):
        RunDirectory(tmp_path, toy())
    directory.close()
    RunDirectory(tmp_path, toy()).close()


def test_the_environment_says_versions_hardware_commit_and_data():
    found = environment(torch.device("cpu"), {"a": "md5:0"})
    assert found["packages"]["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert found["device"] == "cpu" and found["cores"] > 0 and found["data"] == {"a": "md5:0"}
    assert found["commit"] is None or len(found["commit"].rstrip("+")) == 40


def test_a_log_that_is_a_link_to_another_file_is_refused(tmp_path):
    (tmp_path / "other").write_text("of somebody")
    (tmp_path / "metrics.jsonl").symlink_to("other")
    with pytest.raises(UserError, match="symbolic links"), open_log(tmp_path / "metrics.jsonl"):
        pass
    assert (tmp_path / "other").read_text() == "of somebody"
