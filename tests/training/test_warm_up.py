"""The warm-up of what is new: larger steps there, and nowhere else."""

from functools import partial

import pytest
import torch
from properties import assert_close
from random_networks import case_of
from torch.optim import SGD, Adam, RMSprop

from thalnet_mtl.topology.spec import ModuleSpec
from thalnet_mtl.training.search.warm_up import larger_steps, new_entries

NEW = ModuleSpec("new", 2, 2, reads=("input_a",))


@pytest.mark.parametrize("reading", ["linear", "fast_gaussian"])
def test_new_entries_are_those_that_changes_have_added(reading):
    case = case_of(reading)
    before = {name: p.shape for name, p in case.network.named_parameters()}
    changes = [
        case.change("attach", NEW, read_by=["output_a"]),
        case.change("route", "side", "output_a"),
        case.change("connect", "a", output_modules=["new"]),
    ]
    new = new_entries(changes)
    named = dict(case.network.named_parameters())
    for name, parameter in named.items():
        added = parameter.numel() - (before[name].numel() if name in before else 0)
        assert int(new[name].sum() if name in new else 0) == added, name
    head = new["adapters.a.head.weight"]
    assert head[:, -2:].all() and not head[:, :-2].any()
    again = new_entries([*changes, case.change("disconnect", "a", "new")])
    assert "adapters.a.head.weight" not in again


@pytest.mark.parametrize("optimizer", [SGD, Adam, RMSprop, partial(SGD, momentum=0.9)], ids=str)
def test_larger_steps_are_those_of_a_higher_rate(optimizer):
    """Compare with a parameter group of its own, as PyTorch has it."""
    torch.manual_seed(0)
    layer, same = (torch.nn.Linear(3, 2, dtype=torch.float64) for _ in range(2))
    same.load_state_dict(layer.state_dict())
    stepped = optimizer(layer.parameters(), lr=0.1)
    grouped = optimizer([{"params": [same.weight], "lr": 0.3}, {"params": [same.bias]}], lr=0.1)
    new = {"weight": torch.ones(2, 3, dtype=torch.bool)}
    for xs in torch.randn(4, 5, 3, dtype=torch.float64):
        for net, each in ((layer, stepped), (same, grouped)):
            each.zero_grad()
            net(xs).square().mean().backward()
        with larger_steps(layer, new, 3.0):
            stepped.step()
        grouped.step()
    assert_close(layer.weight.detach(), same.weight.detach())
    assert_close(layer.bias.detach(), same.bias.detach())


def test_other_entries_take_the_usual_steps():
    layer = torch.nn.Linear(3, 2)
    new = {"weight": torch.tensor([[True, False, False], [False] * 3])}
    start = layer.weight.detach().clone()
    with larger_steps(layer, new, 3.0), torch.no_grad():
        layer.weight.add_(1.0)
    moved = layer.weight.detach() - start
    assert_close(moved, torch.tensor([[3.0, 1, 1], [1, 1, 1]]))
