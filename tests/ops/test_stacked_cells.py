"""Designs and readings of users are batched where ``torch.func`` can, with equal results."""

import copy
import random

import pytest
import torch
from backend_checks import largest_error, run_backend
from properties import drawn
from torch import nn

from thalnet_mtl.models.designs.base import Design
from thalnet_mtl.models.network import Network
from thalnet_mtl.models.readings.base import Reading
from thalnet_mtl.models.thalnet import ThalNet
from thalnet_mtl.ops.stacked_cells import StackedCells
from thalnet_mtl.registry import registered
from thalnet_mtl.topology.spec import ModuleSpec, TaskSpec


class Custom(Design):
    """An LSTM with a norm, in the form of a user's own design."""

    def __init__(self, inputs, features, hidden):
        nn.Module.__init__(self)
        self.memory, self.slope = 2 * features, 0.5
        self.gates = nn.Linear(inputs + features, 4 * features)
        self.norm = nn.LayerNorm(features)

    def forward(self, x, memory):
        h, c = memory.chunk(2, -1)
        i, f, o, u = self.gates(torch.cat([x, h], -1)).chunk(4, -1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(self.slope * u)
        h = torch.sigmoid(o) * torch.tanh(self.norm(c))
        return h, torch.cat([h, c], -1)


class LSTM(Custom):
    """The design as it is."""


class Scaled(Custom):
    """A design with a buffer, which differs between modules."""

    def __init__(self, inputs, features, hidden):
        super().__init__(inputs, features, hidden)
        self.register_buffer("scale", torch.rand(features) + 0.5)

    def forward(self, x, memory):
        features, memory = super().forward(x, memory)
        return features * self.scale, memory


class Branching(Custom):
    """A design whose control flow depends on its data."""

    def forward(self, x, memory):
        return super().forward(-x if x.mean() > 0.1 else x, memory)


class Counting(Custom):
    """A design that changes its own buffer."""

    def __init__(self, inputs, features, hidden):
        super().__init__(inputs, features, hidden)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x, memory):
        self.calls += 1
        return super().forward(x / self.calls.clone(), memory)


class Noisy(Custom):
    """A design that draws random numbers while it is trained."""

    def forward(self, x, memory):
        return super().forward(nn.functional.dropout(x, 0.5, self.training), memory)


class TorchCell(Custom):
    """A design around ``nn.LSTMCell``, for which ``torch.vmap`` has no rule."""

    def __init__(self, inputs, features, hidden):
        nn.Module.__init__(self)
        self.memory, self.cell = 2 * features, nn.LSTMCell(inputs, features)

    def forward(self, x, memory):
        h, c = self.cell(x, memory.chunk(2, -1))
        return h, torch.cat([h, c], -1)


class Drawing(Custom):
    """A design with random numbers that PyTorch does not know."""

    def forward(self, x, memory):
        return super().forward(x * random.random(), memory)


class OwnReading(Reading):
    """A dynamic reading of a user, whose columns can be opened."""

    dynamic = True
    columns = ("weight",)

    def __init__(self, features, center, context):
        super().__init__(features, center, context)
        self.weight = nn.Parameter(torch.randn(context, center))
        self.gate = nn.Linear(features, context)

    def weights(self, features=None):
        return self.gate(features).sigmoid()[..., None] * self.weight


MODULES = {
    "test_lstm": LSTM,
    "test_buffer": Scaled,
    "test_branch": Branching,
    "test_counting": Counting,
    "test_noise": Noisy,
    "test_cell": TorchCell,
    "test_drawing": Drawing,
}
REFUSED = {
    "test_branch": "data-dependent control flow",
    "test_counting": "Counting changes its own buffers",
    "test_noise": "randomness",
    "test_cell": "aten::lstm_cell",
}


@pytest.fixture(autouse=True)
def plug_ins():
    with registered("module", MODULES), registered("reading", {"test_own": OwnReading}):
        yield


def net_of(module, modules=6, reading="linear", **sizes):
    return drawn(lambda: ThalNet(3, modules, 4, module=module, reading=reading, **sizes))


def reasons(net):
    return net.explain_modules()


@pytest.fixture
def calls(monkeypatch):
    """The groups of modules that ran as one."""
    groups, init = [], StackedCells.__init__

    def counted(self, cells, *args):
        groups.append([cell.name for cell in cells])
        init(self, cells, *args)

    monkeypatch.setattr(StackedCells, "__init__", counted)
    return groups


@pytest.mark.parametrize("reading", ["weight_norm", "test_own", "fast_softmax", "fast_gaussian"])
@pytest.mark.parametrize("module", ["test_lstm", "test_buffer"])
def test_a_design_of_a_user_is_batched_and_equals_the_reference(module, reading, calls):
    net = net_of(module, reading=reading, context=6)
    lengths = torch.tensor([4, 1, 3])
    expected = run_backend(net, "reference", 3, 4, torch.float64, lengths=lengths)
    assert not calls
    results = run_backend(net, "batched", 3, 4, torch.float64, lengths=lengths)
    assert largest_error(results, expected) < 1e-12
    assert calls[-1] == [
        "side1",
        "side2",
        "side3",
        "side4",
        "output",
    ]  # the input module has other sizes
    assert reasons(net) == {
        "input": "one by one: no module is equal, and one call pays off from 5 on",
        "side1, side2, side3, side4, output": "batched: 5 modules in one call",
    }
    calls.clear()
    run_backend(net, "batched", 3, 4, torch.float64)
    assert len(calls) == 1  # they are tried once


def test_readings_with_large_matrices_are_computed_module_by_module(calls, monkeypatch):
    monkeypatch.setattr("thalnet_mtl.ops.stacked_cells.LARGEST", 0)
    net = net_of("test_lstm", reading="test_own")
    expected = run_backend(net, "reference", 3, 4, torch.float64)
    assert largest_error(run_backend(net, "batched", 3, 4, torch.float64), expected) < 1e-12
    assert calls


@pytest.mark.parametrize(("module", "reason"), REFUSED.items())
def test_a_design_that_cannot_be_batched_runs_one_by_one_and_says_why(module, reason, calls):
    net = net_of(module)
    nets = [copy.deepcopy(net) for _ in range(2)]
    torch.manual_seed(0)
    expected = run_backend(nets[0], "reference", 3, 4, torch.float64)
    torch.manual_seed(0)
    results = run_backend(nets[1], "batched", 3, 4, torch.float64)
    assert largest_error(results, expected) < 1e-12
    assert reason in reasons(nets[1])["side1, side2, side3, side4, output"]
    buffers = dict(nets[0].named_buffers())
    assert all(torch.equal(b, buffers[name]) for name, b in nets[1].named_buffers())


def test_other_results_than_those_of_each_module_alone_are_found():
    net = net_of("test_drawing")
    reason = "one by one: Drawing computes something else in one call"
    assert reasons(net)["side1, side2, side3, side4, output"] == reason


def test_random_numbers_stop_no_batch_in_evaluation_mode(calls):
    net = net_of("test_noise").eval()
    expected = run_backend(net, "reference", 3, 4, torch.float64)
    assert largest_error(run_backend(net, "batched", 3, 4, torch.float64), expected) < 1e-12
    assert calls and "batched" in reasons(net)["side1, side2, side3, side4, output"]


def test_modules_with_other_attributes_or_hooks_are_told_apart():
    net = net_of("test_lstm", modules=8)
    net.cell("side1").design.slope = 2.0
    net.cell("side2").design.norm.eps = 0.1
    assert [name for name in reasons(net) if "," in name] == ["side3, side4, side5, side6, output"]
    expected = run_backend(net, "reference", 3, 4, torch.float64)
    assert largest_error(run_backend(net, "batched", 3, 4, torch.float64), expected) < 1e-12
    net.cell("side3").design.gates.register_forward_hook(lambda layer, args, y: 2 * y)
    assert reasons(net)["side3, side4, side5, side6, output"] == "one by one: Linear has hooks"
    expected = run_backend(net, "reference", 3, 4, torch.float64)
    assert largest_error(run_backend(net, "batched", 3, 4, torch.float64), expected) < 1e-12


def test_a_tensor_that_is_neither_parameter_nor_buffer_is_seen():
    net = net_of("test_lstm")
    for name, cell in net.cells.items():
        cell.design.secret = torch.tensor(float(len(name)))
    assert "the attribute 'secret' of LSTM" in reasons(net)["side1, side2, side3, side4, output"]


@pytest.mark.parametrize("reading", ["linear", "test_own"])
def test_batched_designs_follow_every_change_of_the_modules(reading, calls):
    body = ThalNet(3, 9, 4, module="test_lstm", reading=reading)
    network = Network(body).double()
    network.add_task("a", TaskSpec(inputs=3, outputs=2))
    new = ModuleSpec("new", 4, 4, inputs=3, module="test_lstm", reading=reading)
    changes = [
        lambda: network.attach(new, read_by=["output", "side1"]),
        lambda: network.route("output", "input", open=False),
        lambda: network.freeze("side1"),
        lambda: network.clone("output", "duplicate"),
        lambda: network.detach("duplicate"),
    ]
    for change in changes:
        change()
        with torch.no_grad():
            for parameter in body.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
        expected = run_backend(body, "reference", 4, 3, torch.float64)
        calls.clear()
        assert largest_error(run_backend(body, "batched", 4, 3, torch.float64), expected) < 1e-12
        assert len(calls[-1]) >= 5


def test_gradients_of_gradients_of_batched_designs_are_those_of_the_reference(calls):
    net, xs = net_of("test_lstm", reading="test_own"), torch.randn(2, 3, 3, dtype=torch.float64)
    results = {}
    for net.ops in ("reference", "batched"):
        weight = net.cell("side2").design.gates.weight
        (grad,) = torch.autograd.grad(net(xs)[0].square().sum(), weight, create_graph=True)
        results[net.ops] = torch.autograd.grad(grad.square().sum(), list(net.parameters()))
    assert calls
    for got, expected in zip(*results.values(), strict=True):
        torch.testing.assert_close(got, expected)
