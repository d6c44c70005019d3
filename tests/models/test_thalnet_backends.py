"""All backends against the reference on ThalNets, plug-ins included: values and gradients."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from properties import (
    KNOWN_DESIGNS,
    assert_close,
    assert_same_gradients,
    examples,
    gradcheck,
    gradients,
    graphs,
    normal,
    seeds,
    task_inputs,
)
from thalnet_cases import (
    UNEQUAL,
    equal,
    every_design,
    every_ops,
    every_reading,
    modules_of,
    net_of,
    state_of,
    whole_center,
)

from thalnet_mtl import registry
from thalnet_mtl.models.designs.base import Design
from thalnet_mtl.models.thalnet import State
from thalnet_mtl.ops import BACKENDS
from thalnet_mtl.topology.spec import ModuleSpec


def both(modules, seed, dtype=torch.float64):
    return [net_of(modules, ops, seed, dtype) for ops in BACKENDS]


def everything(net, batch, time, seed=0, dtype=torch.float64):
    """Outputs, last state, and the gradients of a loss on all of them by all that there is."""
    xs = task_inputs(net, batch, time, seed, dtype)
    start = State(*(part.to(dtype) for part in state_of(net, batch, seed)))
    leaves = {f"xs.{name}": x.requires_grad_() for name, x in xs.items()}
    leaves |= {f"start.{k}": part.requires_grad_() for k, part in enumerate(start) if part.numel()}
    leaves |= dict(net.named_parameters())
    centers, last = net(xs, start, **whole_center(net))
    parts = centers, *last
    loss = sum(
        (part * normal(*part.shape, seed=seed + k, dtype=dtype)).sum()
        for k, part in enumerate(parts)
    )
    return [part.detach() for part in parts], gradients(loss, leaves)


def assert_agree(modules, batch, time, seed=0, dtype=torch.float64):
    (expected, target), *others = (
        everything(net, batch, time, seed, dtype) for net in both(modules, seed, dtype)
    )
    for actual, found in others:
        for part, other in zip(actual, expected, strict=True):
            assert part.dtype == dtype
            assert_close(part, other)
        assert_same_gradients(found, target)


@given(
    graph=graphs(),
    batch=st.sampled_from([1, 7, 17]),
    time=st.sampled_from([1, 2, 9]),
    seed=seeds,
)
@examples(max_examples=60)
def test_all_backends_agree_in_outputs_state_and_gradients(graph, batch, time, seed):
    assert_agree(modules_of(graph), batch, time, seed)


@every_reading
@every_design
def test_all_backends_agree_on_equal_modules(design, reading):
    net = equal(design, reading, modules=4)
    assert_agree(list(net.graph.values()), batch=7, time=9)


@every_design
@pytest.mark.parametrize(
    "other", [{"features": 4}, {"context": 5}, {"hidden": 6}, {"module": "gru_ff"}, {"inputs": 3}]
)
def test_all_backends_agree_on_modules_that_differ_in_one_field(design, other):
    make = ModuleSpec("one", 3, 4, inputs=2, output=True, hidden=5, module=design)
    modules = [make, replace(make, name="two"), replace(make, name="other", **other)]
    assert_agree(modules, batch=2, time=3)


def test_all_backends_agree_on_unequal_modules():
    assert_agree(UNEQUAL, batch=7, time=9)


@pytest.mark.parametrize("design", KNOWN_DESIGNS)
def test_all_backends_agree_in_single_precision(design):
    net = equal(design, "weight_norm", modules=4, features=33, context=17, hidden=9, inputs=28)
    assert_agree(list(net.graph.values()), batch=16, time=28, dtype=torch.float32)


@pytest.mark.parametrize("modules", [1, 3, 5, 64])
def test_all_backends_agree_for_any_number_of_modules(modules):
    net = equal(modules=modules)
    assert_agree(list(net.graph.values()), batch=2, time=3)


@every_ops
@every_reading
def test_gradients_match_finite_differences(reading, ops):
    modules = [
        ModuleSpec("input", 1, 2, inputs=1, reading=reading),
        ModuleSpec("side", 1, 2, reading=reading, module="gru_ff", reads=("output", "input")),
        ModuleSpec("output", 1, 2, output=True, reading=reading),
    ]
    net = net_of(modules, ops)
    xs, state = normal(1, 2, 1), state_of(net, 1)

    def outputs(x, center, memory):
        centers, last = net(x, State(center, memory), **whole_center(net))
        return centers, last.memory

    gradcheck(outputs, net, xs, *state)


@every_ops
@every_design
@every_reading
def test_gradients_reach_every_parameter(reading, design, ops):
    net = equal(design, reading, ops)
    ys, _ = net(normal(3, 6, 2))
    loss = (ys * normal(3, 6, 3, seed=1)).sum()
    for name, gradient in gradients(loss, dict(net.named_parameters())).items():
        assert gradient.abs().max() > 0, name


@every_ops
def test_repeated_runs_are_bit_identical(ops):
    (parts, found), (again, refound) = (everything(net_of(UNEQUAL, ops), 7, 9) for _ in range(2))
    assert all(map(torch.equal, parts, again))
    assert all(torch.equal(found[name], refound[name]) for name in found)


# Plug-ins


@pytest.fixture
def plugin(monkeypatch):
    """Register something for the length of a test."""

    def register(kind, name, entry):
        monkeypatch.setitem(registry._entries[kind], name, entry)

    return register


class Residual(Design):
    """A stack like the built-in ones, used in another way."""

    layers = ("ff", "gru")

    def forward(self, x, memory):
        dense, gru = self.stack
        memory = gru(torch.relu(dense(x)), memory)
        return 0.5 * memory, memory


class Leaky(torch.nn.Module):
    """A design that shares nothing with the built-in ones."""

    def __init__(self, inputs, features, hidden):
        super().__init__()
        self.memory = 2
        self.into, self.out = torch.nn.Linear(inputs, 2), torch.nn.Linear(2, features)

    def forward(self, x, memory):
        memory = 0.9 * memory + 0.1 * self.into(x)
        return torch.sin(self.out(memory)), memory


class Uniform(torch.nn.Module):
    """A reading of nothing but what the contract asks for."""

    dynamic = False

    def __init__(self, features, center, context):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.ones(context, 1))
        self.seen = center

    def weights(self, features=None):
        return self.gain.expand(-1, self.seen) / self.seen


@pytest.mark.parametrize("design", [Residual, Leaky])
def test_all_backends_agree_on_a_design_of_a_plug_in(design, plugin):
    plugin("module", "elsewhere", design)
    net = equal("elsewhere", modules=3)
    assert_agree(list(net.graph.values()), batch=3, time=4)


@pytest.mark.parametrize("design", ["gru", "ff_gru"])
def test_all_backends_agree_on_a_reading_of_a_plug_in(design, plugin):
    plugin("reading", "elsewhere", Uniform)
    net = equal(design, "elsewhere", modules=3)
    assert_agree(list(net.graph.values()), batch=3, time=4)
