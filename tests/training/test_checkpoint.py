import pytest
import torch

from thalnet_mtl.config.schema import ModelConfig
from thalnet_mtl.errors import UserError
from thalnet_mtl.models.build import build
from thalnet_mtl.models.saving import load_model, save_model
from thalnet_mtl.topology.spec import TaskSpec
from thalnet_mtl.training.checkpoint import load_checkpoint, save_checkpoint


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
