import pytest
import torch

from thalnet_mtl import checkpoint
from thalnet_mtl.body import Interface
from thalnet_mtl.config import ModelConfig, UserError
from thalnet_mtl.network import build


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    checkpoint.write_text(path, "old")

    def failing(part):
        part.write_text("half of the n")
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        checkpoint.write_atomically(path, failing)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_checkpoints_load_without_running_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    checkpoint.save(tmp_path / "good.pt", {"step": 3, "state": [torch.ones(2)], "best": None})
    assert checkpoint.load(tmp_path / "good.pt")["state"][0].sum() == 2
    torch.save({"step": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(UserError, match=r"evil.pt is damaged and cannot be read"):
        checkpoint.load(tmp_path / "evil.pt")
    assert not (tmp_path / "ran").exists()


def test_a_network_comes_back_from_its_folder_to_the_bit(tmp_path):
    from toys import toy

    model = ModelConfig(features=4, modules=3, reading="fast_softmax")
    network = build(model, {"t": Interface(3, 2, steps=4)})
    score = {"accuracy": 0.5}
    result = {"task": "t", "metric": "accuracy", "validation": score, "test": score}
    config = toy(model={"features": 4, "modules": 3, "reading": "fast_softmax"})
    checkpoint.save_model(
        tmp_path / "model", network, config, result | {"steps": 1, "best_step": 1}
    )
    again = checkpoint.load_model(tmp_path / "model")
    xs = torch.rand(5, 4, 3)
    assert torch.equal(network("t", xs)[0], again("t", xs)[0])
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
