"""ThalNets on which several tests agree: equal and unequal modules, with any backend."""

import pytest
import torch
from properties import (
    DESIGNS,
    READINGS,
    assert_close,
    drawn,
    normal,
)

from thalnet_mtl.models.thalnet import State, ThalNet
from thalnet_mtl.ops import BACKENDS
from thalnet_mtl.topology.spec import ModuleSpec

every_ops = pytest.mark.parametrize("ops", list(BACKENDS))
every_reading = pytest.mark.parametrize("reading", READINGS)
every_design = pytest.mark.parametrize("design", DESIGNS)

# Modules that have nothing in common: designs, sizes, readings, what they see, roles.
UNEQUAL = [
    ModuleSpec("input_a", 5, 3, inputs=4, reading="linear", module="gru_ff", hidden=2),
    ModuleSpec(
        "input_b",
        3,
        5,
        inputs=2,
        reading="fast_softmax",
        module="ff",
        reads=("output_b", "input_a"),
    ),
    ModuleSpec("side_a", 4, 4, reading="weight_norm_rows", module="ff_gru_ff", hidden=7),
    ModuleSpec(
        "side_b", 4, 4, reading="weight_norm", module="ff_gru_ff", hidden=7, reads=("side_b",)
    ),
    ModuleSpec(
        "output_a", 2, 1, output=True, reading="fast_gaussian", module="gru", reads=("side_a",)
    ),
    ModuleSpec(
        "output_b",
        6,
        2,
        inputs=4,
        output=True,
        module="ff_gru",
        reads=("input_b", "output_a", "side_b"),
    ),
]


def modules_of(graph):
    return [ModuleSpec(**arguments) for arguments in graph]


def computed(net, ops):
    """Return a network with this backend, or ``auto`` if it cannot run the network."""
    net.ops = ops if net.explain()[ops] is None else "auto"
    return net


def net_of(modules, ops="batched", seed=0, dtype=torch.float64):
    net = drawn(lambda: ThalNet(modules=modules), seed, dtype)
    return computed(net, ops)


def equal(design="ff_gru", reading="weight_norm", ops="batched", modules=3, inputs=2, **sizes):
    sizes = {"features": 3, "context": 4, "hidden": 5} | sizes
    net = drawn(lambda: ThalNet(inputs, modules, module=design, reading=reading, **sizes))
    return computed(net, ops)


def state_of(net, batch, seed=7):
    """A state in the middle of a sequence."""
    center, memory = normal(batch, net.center, seed=seed), normal(batch, net.memory, seed=seed + 1)
    return State(center.tanh(), memory.tanh())


def whole_center(net):
    return {"outputs": tuple(net.slots)}


def assert_same_state(actual, expected):
    for part, other in zip(actual, expected, strict=True):
        assert_close(part, other)
