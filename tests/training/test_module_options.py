"""Options of modules in training: runs resume with the same masks, and resets use the start."""

import pytest
import torch
from toy_tasks import toy

from thalnet_mtl.config.load import complete
from thalnet_mtl.console import Console
from thalnet_mtl.errors import UserError
from thalnet_mtl.models.build import build
from thalnet_mtl.models.sequences import map_state
from thalnet_mtl.models.size import count_parameters
from thalnet_mtl.topology.spec import TaskSpec
from thalnet_mtl.training.sampling import reset_states
from thalnet_mtl.training.setup import fetch_with, set_up
from thalnet_mtl.training.stackable import REFUSED, SUPPORTED, check_stackable
from thalnet_mtl.training.step import CAPTURABLE, NOT_CAPTURED
from thalnet_mtl.training.support import unsupported
from thalnet_mtl.training.trainer import train

RANDOM = {"zoneout": 0.3, "dropout": 0.2, "trainable_start": True, "normalize": "features"}


def weights(folder):
    content = torch.load(folder / "checkpoint" / "last.pt")
    return content["network"] | {"rng": content["rng"][0]}


@pytest.mark.parametrize("body", ["thalnet", "gru"])
def test_a_run_with_random_masks_that_goes_on_is_one_that_was_longer(body, tmp_path):
    def config(steps):
        model = {"body": body, "features": 5, "layers": 2, "modules": 2} | RANDOM
        training = {"steps": steps, "schedule": "constant"}
        return toy(tasks={"toy_text": {"reset": 0.2}}, model=model, train=training)

    train(config(6), tmp_path / "whole")
    train(config(3), tmp_path / "parts")
    train(config(6), tmp_path / "parts")
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    starts = [value for name, value in whole.items() if name.endswith("start")]
    assert starts and all(start.any() for start in starts)


def test_a_reset_returns_to_the_trained_start_which_learns_from_it():
    config = toy(
        tasks={"toy_text": {"reset": 0.5}}, model={"trainable_start": True},
        train={"batch": 50},
    )  # fmt: skip
    run = set_up(config, fetch_with(Console()))
    for name, parameter in run.network.named_parameters():
        if name.endswith("start"):
            torch.nn.init.normal_(parameter)
    start = run.network.initial("toy_text", 50)
    state = reset_states(run, "toy_text", map_state(torch.zeros_like, start), 50)
    for part, first in zip(state, start, strict=True):
        anew = (part == first).all(1)
        assert 10 < int(anew.sum()) < 40
        assert not part[~anew].any()
        assert part.requires_grad


@pytest.mark.parametrize("option", ["zoneout", "dropout", "trainable_start"])
def test_stacked_runs_refuse_what_differs_from_step_to_step(option):
    value = {"trainable_start": True}.get(option, 0.5)
    config = toy(model={option: value})
    assert unsupported(config, SUPPORTED, REFUSED) == f"model.{option} {value}"
    with pytest.raises(UserError, match=f"--stacked does not support model.{option} {value}"):
        check_stackable(config)
    captured = f"model.{option} {value}" if option == "trainable_start" else ""
    assert unsupported(config, CAPTURABLE, NOT_CAPTURED) == captured


@pytest.mark.parametrize("body", ["thalnet", "gru"])
@pytest.mark.parametrize("options", [
    {}, {"normalize": "gates"}, {"normalize": "context", "trainable_start": True},
    {"normalize": "features", "zoneout": 0.1},
], ids=str)  # fmt: skip
def test_the_largest_network_within_a_budget_counts_the_parameters_of_options(body, options):
    model = toy(model={"body": body, "features": 0, "budget": 4000} | options).model
    network = build(model, {"a": TaskSpec(inputs=3, outputs=2)})
    assert 3000 < count_parameters(network) <= 4000
    width = network.body.outputs + 1
    wider = toy(model={"body": body, "features": width, "budget": 0} | options).model
    assert count_parameters(build(wider, {"a": TaskSpec(inputs=3, outputs=2)})) > 4000


def test_every_module_of_a_configuration_gets_the_options_and_only_late_ones_same_step():
    options = {"zoneout": 0.1, "same_step": True}
    modules = {"first": {"input": True}, "last": {"output": True}}
    config = toy(model=options | {"features": 4}, modules=modules)
    graph = build(config.model, {"a": TaskSpec(inputs=3, outputs=2)}, config.modules).body.graph
    assert [graph[name].options.changed() for name in graph] == [{"zoneout": 0.1}, options]
    config = toy(model=options, modules={"all": {"input": True, "output": True}})
    with pytest.raises(UserError, match="same_step has no effect: all modules take an input"):
        build(config.model, {"a": TaskSpec(inputs=3, outputs=2)}, config.modules)


def test_a_complete_configuration_names_the_options_that_are_set_alone():
    assert complete(toy()).model.options == {}
    options = {"zoneout": 0.1, "chrono": 0}
    assert complete(toy(model=options)).model.options == {"zoneout": 0.1}
