"""The parts of a module are those of PyTorch, in its order."""

from torch import nn

from thalnet_mtl.models.parts import named_parts, parameters


def shared_network() -> nn.Module:
    """Return a module that has a part twice, an empty place, and two names for a parameter."""
    shared, network = nn.Linear(3, 3), nn.Module()
    network.first = nn.Sequential(shared, nn.ReLU(), nn.Sequential(nn.BatchNorm1d(3), shared))
    network.register_module("missing", None)
    network.last = nn.Linear(3, 2, bias=False)
    network.tied = network.last.weight
    return network


def test_parts_are_those_of_named_modules_in_the_same_order():
    network = shared_network()
    expected = [(f"{n}." if n else "", m) for n, m in network.named_modules()]
    assert list(named_parts(network)) == expected


def test_parameters_are_those_of_pytorch_each_once():
    network = shared_network()
    assert [id(p) for p in parameters(network)] == [id(p) for p in network.parameters()]
    assert len(parameters(network)) == 5
