"""Saved networks: what is built by hand comes back to the bit, and folders are never torn."""

import json
import os
from pathlib import Path

import pytest
import torch
from disks import PowerCut
from properties import drawn
from saved_networks import (
    NETWORKS,
    WIDE,
    assert_same_network,
    by_hand,
    inputs_of,
    with_tasks,
)
from torch import nn
from toy_tasks import toy

from thalnet_mtl import Network, load_model, save_model
from thalnet_mtl.errors import UserError
from thalnet_mtl.models import model_folder
from thalnet_mtl.models.body import Body
from thalnet_mtl.models.export import export
from thalnet_mtl.models.stacked_gru import StackedGRU
from thalnet_mtl.models.thalnet import ThalNet
from thalnet_mtl.registry import registered
from thalnet_mtl.topology.spec import ModuleSpec
from thalnet_mtl.training.trainer import train

every_network = pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@every_network
def test_a_network_built_by_hand_comes_back_to_the_bit(tmp_path, make, dtype):
    network = drawn(make, dtype=dtype)
    network.save(tmp_path / "net")
    assert_same_network(Network.load(tmp_path / "net"), network)


@every_network
def test_a_loaded_network_can_be_trained_and_saved_again(tmp_path, make):
    save_model(drawn(make, dtype=torch.float32), tmp_path / "a")
    network = load_model(tmp_path / "a").train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.01)
    network("wide", inputs_of(WIDE))[0].sum().backward()
    optimizer.step()
    network.save(str(tmp_path / "a"))
    assert_same_network(load_model(str(tmp_path / "a")), network)
    assert sorted(os.listdir(tmp_path)) == ["a"]


def test_a_loaded_network_grows_like_the_one_that_was_saved(tmp_path):
    network = drawn(by_hand, dtype=torch.float32)
    network.save(tmp_path / "net")
    loaded = Network.load(tmp_path / "net")
    for each in (network, loaded):
        torch.manual_seed(1)
        each.unfreeze(task="text")
        each.attach(ModuleSpec("later", 2, 2), read_by=["input", "output"])
        each.detach("later")
        each.attach(ModuleSpec("last", 3, 2, output=True), read_by=["input"])
    assert_same_network(loaded, network)


class Measured(StackedGRU):
    """A body whose constructor looks at its numbers."""

    def __init__(self, inputs: int, features: int, layers: int = 1):
        super().__init__(inputs, features, layers)
        self.largest = max(p.max().item() for p in self.parameters())


def test_a_body_that_reads_its_numbers_when_it_is_made_is_loaded(tmp_path):
    with registered("body", {"measured": Measured}):
        network = Network(Measured(6, 4))
        network.save(tmp_path / "net")
        assert_same_network(Network.load(tmp_path / "net"), network)


def test_a_network_without_tasks_can_be_saved(tmp_path):
    network = Network(ThalNet(6, 3, 5))
    network.save(tmp_path / "net")
    assert_same_network(Network.load(tmp_path / "net"), network)
    assert "network(task, xs)" in (tmp_path / "net/README.md").read_text()


def test_a_run_is_loaded_as_its_model(tmp_path):
    train(toy(), tmp_path / "run")
    assert_same_network(Network.load(tmp_path / "run"), Network.load(tmp_path / "run/model"))


def test_the_card_shows_the_network_and_how_to_call_it(tmp_path):
    by_hand().save(tmp_path / "net")
    card = (tmp_path / "net/README.md").read_text()
    assert "# ThalNet on text, wide, rows" in card
    assert 'network("text", xs)' in card and "side: gru_ff" in card


def test_a_network_is_exported_without_a_run(tmp_path):
    network = with_tasks(StackedGRU(6, 5, layers=2))
    network.dropout = 0.5
    assert_same_network(
        Network.load(export(network, "safetensors", tmp_path / "a")), network.eval()
    )
    program = torch.export.load(export(network.train(), "torch", tmp_path / "b", "wide")).module()
    assert network.training
    x, state = torch.rand(2, 9), network.initial("wide", 2)
    expected, _ = network.eval()("wide", x[:, None], state)
    torch.testing.assert_close(program(x, state)[0], expected)
    with pytest.raises(UserError, match="name the task to export: one of rows, wide, text"):
        export(network, "torch", tmp_path / "c")
    with pytest.raises(UserError, match=r"unknown format 'onxn'.*Did you mean 'onnx'"):
        export(network, "onxn", tmp_path / "c")


# What may not be overwritten


def test_an_older_saved_network_is_replaced(tmp_path):
    Network(ThalNet(6, 3, 5)).save(tmp_path / "net")
    network = by_hand()
    network.save(tmp_path / "net")
    assert_same_network(Network.load(tmp_path / "net"), network)


@pytest.mark.parametrize("content", ["file", "notes", "foreign_config", "model_and_notes"])
def test_a_folder_that_is_not_a_saved_model_is_refused_and_left_unchanged(tmp_path, content):
    folder, network = tmp_path / "mine", Network(ThalNet(6, 3, 5))
    if content == "file":
        folder.write_text("mine")
    elif content == "model_and_notes":
        network.save(folder)
        (folder / "notes.txt").write_text("mine")
    else:
        folder.mkdir()
        (folder / ("config.json" if content == "foreign_config" else "notes.txt")).write_text("{}")
    before = contents(tmp_path)
    with pytest.raises(UserError, match="mine exists and is not a saved model") as error:
        network.save(folder)
    assert "\n" not in str(error.value)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("there", [False, True])
def test_a_failed_save_changes_no_file(tmp_path, monkeypatch, there):
    if there:
        by_hand().save(tmp_path / "net")
    before = contents(tmp_path)

    def fail(*arguments):
        raise OSError(28, "No space left on device")

    for name in ("models.model_folder.Path.write_bytes", "files.os.replace"):
        with monkeypatch.context() as patch:
            patch.setattr(f"thalnet_mtl.{name}", fail)
            with pytest.raises(OSError, match="No space left"):
                Network(ThalNet(6, 3, 5)).save(tmp_path / "net")
        assert contents(tmp_path) == before


def contents(folder: Path) -> dict[str, bytes]:
    """Return all files below a folder, by path."""
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# What cannot be loaded or saved


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("no folder", "there is no folder .*net"),
        ("empty", "no config.json in .*net"),
        ("no config", "no config.json in .*net"),
        ("torn config", "config.json is damaged"),
        ("list", r"config.json is damaged: \[1\] is not an object"),
        ("old", "config.json has format 2, that of another version"),
        ("misspelled", "config.json is damaged: KeyError 'arguments'"),
        ("arguments", "config.json is damaged: TypeError"),
        ("sizes", "config.json is damaged"),
        ("no weights", "model.safetensors is missing or damaged"),
        ("torn weights", "model.safetensors is missing or damaged"),
        ("other weights", "holds another network: 'body.rnn.weight_ih_l0' is .* in the file"),
    ],
)
def test_missing_and_damaged_files_are_reported_in_one_line(tmp_path, damage, message):
    folder = tmp_path / "net"
    config, weights = folder / "config.json", folder / "model.safetensors"
    if damage == "empty":
        folder.mkdir()
    elif damage != "no folder":
        with_tasks(StackedGRU(6, 5, layers=2)).save(folder)
    if damage == "no config":
        config.unlink()
    elif damage == "torn config":
        config.write_bytes(config.read_bytes()[:50])
    elif damage == "list":
        config.write_text("[1]")
    elif damage == "no weights":
        weights.unlink()
    elif damage == "torn weights":
        weights.write_bytes(weights.read_bytes()[:50])
    elif damage == "other weights":
        with_tasks(StackedGRU(6, 7, layers=2)).save(tmp_path / "other")
        weights.write_bytes((tmp_path / "other/model.safetensors").read_bytes())
    elif damage in ("old", "misspelled", "arguments", "sizes"):
        content = json.loads(config.read_text())
        topology = content["topology"]
        if damage == "old":
            content["thalnet_mtl"] = 2
        elif damage == "misspelled":
            topology["argument"] = topology.pop("arguments")
        elif damage == "arguments":
            topology["arguments"]["width"] = 3
        else:
            topology["arguments"]["features"] = -3
        config.write_text(json.dumps(content))
    with pytest.raises(UserError, match=message) as error:
        Network.load(folder)
    assert "\n" not in str(error.value)


def test_an_unfinished_run_has_no_model_yet(tmp_path):
    (tmp_path / "config.yaml").write_text("{}")
    with pytest.raises(UserError, match="is not finished: it has no model/ yet"):
        Network.load(tmp_path)


class Forgetful(StackedGRU):
    """A body of a user that is not registered."""


class Rescaled(Body):
    """A body of a user that does not keep its argument."""

    def __init__(self, scale: float):
        super().__init__()
        self.inputs = self.outputs = 6
        self.weight = nn.Parameter(torch.tensor(scale))


def test_a_body_that_cannot_be_rebuilt_is_refused_by_save(tmp_path, monkeypatch):
    network = with_tasks(Forgetful(6, 5))
    with pytest.raises(UserError, match=r"Forgetful cannot be saved: register it with @register"):
        network.save(tmp_path / "net")
    assert "Forgetful(inputs=6, features=5, layers=4)" in repr(network)
    with pytest.raises(UserError, match="Rescaled cannot be saved: keep its argument 'scale'"):
        Rescaled(0.5).arguments()
    assert "Rescaled(inputs=6, outputs=6)" in repr(Network(Rescaled(0.5)))
    assert not list(tmp_path.iterdir())


def test_the_files_of_a_model_folder_are_those_that_a_save_may_replace(tmp_path):
    by_hand().save(tmp_path / "net")
    assert {path.name for path in (tmp_path / "net").iterdir()} < model_folder.FILES


def test_a_save_that_is_killed_between_its_two_renamings_loses_nothing(tmp_path, monkeypatch):
    network = by_hand()
    network.save(tmp_path / "net")
    calls, replace = [], os.replace

    def cut(*paths):
        calls.append(paths)
        if len(calls) > 1:  # the first moves the old folder aside
            raise PowerCut
        replace(*paths)

    with monkeypatch.context() as patch, pytest.raises(PowerCut):
        patch.setattr(os, "replace", cut)
        by_hand().save(tmp_path / "net")
    assert not (tmp_path / "net").exists()
    loaded = Network.load(tmp_path / "net")
    assert all(torch.equal(p, loaded.state_dict()[n]) for n, p in network.state_dict().items())
