"""The configs on real data train a few steps, and are cut and resumed to the same bits.

The first use of a data set downloads 6 MB.
"""

import json

import kill_and_resume
import pytest
from run_fixtures import interrupt_at

from thalnet_mtl.config.load import load_config
from thalnet_mtl.training.trainer import train

SHORT = {
    "train": {"steps": 4, "epochs": 1, "batch": 8},
    "evaluate": {"every": 2, "batches": 1, "log_every": 2},
}
ONE_TASK = ("japanese_vowels", "solar", "digits_labels", "digits_stream")


@pytest.mark.parametrize("name", [f"timeseries/{task}" for task in ONE_TASK])
def test_a_config_of_each_kind_of_target_trains_and_scores(tmp_path, name):
    config = load_config(name, **SHORT)
    train(config, tmp_path)
    result = json.loads((tmp_path / "result.json").read_text())
    (task,) = result["tasks"].values()
    (main, *_) = task["metrics"]
    assert main["name"] in task["test"] and main["name"] in task["guess"]["test"]


@pytest.mark.parametrize(
    ("name", "step"), [("joint/four_targets", 3), ("continual/four_targets", 9)]
)
def test_four_kinds_of_target_resume_to_the_same_bits(tmp_path, monkeypatch, name, step):
    config = load_config(name, **SHORT)
    train(config, tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        interrupt_at(step, patch)
        train(config, tmp_path / "cut")
    train(config, tmp_path / "cut")
    assert kill_and_resume.differences(tmp_path / "whole", tmp_path / "cut") == []
