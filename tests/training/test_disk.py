"""A disk that is full, slow or suddenly gone: nothing is lost, and the same call goes on."""

import kill_and_resume
import pytest
from disks import PowerCut, WatchedDisk, fail_at, largest_file
from toy_tasks import toy

from thalnet_mtl import cli
from thalnet_mtl.config.load import dump_config
from thalnet_mtl.files import PART
from thalnet_mtl.training.trained_run import load_run
from thalnet_mtl.training.trainer import train

SHORT = {"train": {"steps": 20}}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing has happened to."""
    folder = tmp_path_factory.mktemp("whole")
    train(toy(**SHORT), folder)
    return folder


def test_all_that_a_run_keeps_is_on_the_disk_when_it_ends(tmp_path, monkeypatch):
    disk = WatchedDisk(monkeypatch)
    train(toy(**SHORT), tmp_path / "runs" / "new")
    for form in ("safetensors", "torch"):
        load_run(tmp_path / "runs" / "new").export(form)
    names = {path.name for path in disk.renamed}
    assert names >= {"config.yaml", "last.pt", "best.pt", "model", "result.json", "step.pt2"}
    assert not disk.pending
    missing = disk.missing(tmp_path / "runs")
    again = ("tensorboard", ".lock", "events.out")  # what no later command needs
    assert not [path for path in missing if not any(name in path for name in again)]


@pytest.mark.parametrize("kind", ["full", "power cut"])
@pytest.mark.parametrize("call", [0, 12, 36])
def test_a_run_whose_disk_fails_in_the_middle_goes_on_to_the_same_bits(whole, tmp_path, call, kind):
    config = toy(**SHORT)
    with pytest.MonkeyPatch.context() as patch, pytest.raises((OSError, PowerCut)):
        fail_at(call, patch, PowerCut() if kind == "power cut" else None)
        train(config, tmp_path)
    train(config, tmp_path)
    assert kill_and_resume.differences(whole, tmp_path) == []
    assert not list(tmp_path.rglob(f"{PART}*"))


@pytest.mark.parametrize("size", [50, 3_000, 20_000])
def test_a_quota_is_one_line_and_status_1_and_with_more_room_the_run_goes_on(
    whole, tmp_path, capsys, monkeypatch, size
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toy.yaml").write_text(dump_config(toy(**SHORT)))
    command = ["train", "toy.yaml", "--out", "run"]
    with largest_file(size):
        assert cli.main(command) == 1
    err = capsys.readouterr().err
    assert err.startswith("thalnet: cannot write ") and err.count("\n") == 1
    assert "run" in err and "File too large" in err
    assert cli.main(command) == 0
    assert kill_and_resume.differences(whole, tmp_path / "run") == []
