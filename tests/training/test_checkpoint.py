"""Checkpoints load without running code, and are refused in one line if they do not fit."""

from dataclasses import fields

import pytest
import torch
from toy_tasks import toy

from thalnet_mtl.config.load import load_run_config
from thalnet_mtl.config.schema import ModelConfig
from thalnet_mtl.errors import UserError
from thalnet_mtl.models.build import build
from thalnet_mtl.models.saving import load_model, save_model
from thalnet_mtl.topology.spec import TaskSpec
from thalnet_mtl.training.checkpoint import FORMAT, load_checkpoint, load_matching, save_checkpoint
from thalnet_mtl.training.state import TrainState
from thalnet_mtl.training.trainer import train


def test_checkpoints_load_without_running_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    save_checkpoint(tmp_path / "good.pt", {"step": 3, "state": [torch.ones(2)], "best": None})
    assert load_checkpoint(tmp_path / "good.pt")["state"][0].sum() == 2
    torch.save({"step": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(UserError, match=r"evil.pt is damaged and cannot be read"):
        load_checkpoint(tmp_path / "evil.pt")
    assert not (tmp_path / "ran").exists()


def test_a_network_comes_back_from_its_folder_to_the_bit(tmp_path):
    from toy_tasks import toy

    model = ModelConfig(features=4, modules=3, reading="fast_softmax")
    network = build(model, {"t": TaskSpec(3, 2, steps=4)})
    score = {"accuracy": 0.5}
    task = {"label": "t", "metric": "accuracy", "validation": score, "test": score}
    result = {"tasks": {"t": task}, "steps": 1, "best_step": 1}
    config = toy(model={"features": 4, "modules": 3, "reading": "fast_softmax"})
    save_model(network, tmp_path / "model", config, result)
    again = load_model(tmp_path / "model")
    xs = torch.rand(5, 4, 3)
    assert torch.equal(network("t", xs)[0], again("t", xs)[0])
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_checkpoint_of_an_older_format_is_refused_in_one_line(tmp_path):
    train(toy(), tmp_path)
    (tmp_path / "result.json").unlink()
    path = tmp_path / "checkpoint" / "last.pt"
    content = torch.load(path, weights_only=True)
    for key in ("format", "growth", "scores"):  # which older versions did not write
        del content[key]
    torch.save(content, path)
    before = path.read_bytes()
    message = rf"last.pt has checkpoint format 1, this version .* reads format {FORMAT}\. Use"
    with pytest.raises(UserError, match=message) as error:
        train(toy(), tmp_path)
    assert "\n" not in str(error.value) and path.read_bytes() == before


def test_a_checkpoint_holds_every_part_of_the_state(tmp_path):
    train(toy(), tmp_path)
    content = torch.load(tmp_path / "checkpoint" / "last.pt", weights_only=True)
    parts = {part.name for part in fields(TrainState)} - {"stopping"}  # which has not begun
    assert content.keys() == parts | {"format", "config", "topology", "rng", "metrics_size"}


def test_training_from_python_takes_a_string_and_returns_the_result(tmp_path):
    result = train(toy(), str(tmp_path / "run"))
    assert (
        result.tasks["toy_rows"].test == result.to_json()["tasks"]["toy_rows"]["test"]["accuracy"]
    )
    assert train(toy(), tmp_path / "run") == result


def test_a_field_that_an_earlier_version_did_not_have_was_at_its_default(tmp_path):
    train(toy(train={"steps": 3}), tmp_path)
    path = tmp_path / "checkpoint" / "best.pt"
    content = torch.load(path, weights_only=True)
    del content["config"]["start.frozen"], content["config"]["task.batch"]
    torch.save(content, path)
    config = load_run_config(tmp_path)
    assert load_matching(path, config)["step"] == 3
    for other in ({"start": {"frozen": True}}, {"task": {"name": "toy_rows", "batch": 3}}):
        with pytest.raises(UserError, match="belongs to a run of another configuration"):
            load_matching(path, toy(train={"steps": 3}, **other))
    content["config"]["train.momentum"] = 0.9  # of a later version
    torch.save(content, path)
    with pytest.raises(UserError, match="belongs to a run of another configuration"):
        load_matching(path, config)
