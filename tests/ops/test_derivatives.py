"""Second derivatives of backends with hand-written gradients, against differences."""

import pytest
import torch
from backend_checks import every_backend
from properties import READINGS, drawn, normal
from torch.autograd import gradgradcheck

from thalnet_mtl.models.network import Network
from thalnet_mtl.models.readings.base import Reading
from thalnet_mtl.models.thalnet import State, ThalNet
from thalnet_mtl.topology.spec import ModuleSpec, TaskSpec


class Product(Reading):
    """A static reading without a kernel: PyTorch computes its matrix."""

    columns = ("weight",)

    def __init__(self, features, center, context):
        super().__init__(features, center, context)
        self.weight = torch.nn.Parameter(torch.randn(context, center))

    def weights(self, features=None):
        return self.weight.square()


def penalties(net, lengths=None):
    """Return the gradients of a penalty on first derivatives by everything that is trained."""
    start = normal(2, net.center, seed=1), normal(2, net.memory, seed=2)
    leaves = [x.detach().requires_grad_() for x in (normal(2, 2, 3), *start)]
    leaves += net.parameters()
    xs, center, memory, *_ = leaves
    ys, last = net(xs, State(center, memory), lengths)
    loss = ys.square().sum() + (last.center * last.center.sin()).sum() + last.memory.exp().sum()
    slopes = torch.autograd.grad(loss, leaves, create_graph=True, allow_unused=True)
    penalty = sum(slope.pow(2).sum() for slope in slopes if slope is not None)
    return torch.autograd.grad(penalty, leaves, materialize_grads=True)


def assert_like_reference(net, backend, lengths=None):
    net.ops = backend if net.explain()[backend] is None else "auto"
    found, net.ops = penalties(net, lengths), "reference"
    assert sum(grad.abs().sum() for grad in found) > 0
    for grad, expected in zip(found, penalties(net, lengths), strict=True):
        torch.testing.assert_close(grad, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("lengths", [None, torch.tensor([2, 1])], ids=["equal", "unequal"])
@pytest.mark.parametrize("reading", READINGS)
@every_backend
def test_second_derivatives_are_those_of_the_reference(backend, reading, lengths):
    options = {"features": 2, "context": 2, "hidden": 2, "reading": reading}
    net = drawn(lambda: ThalNet(3, 2, module="ff_gru_ff", **options))
    assert_like_reference(net, backend, lengths)


@every_backend
def test_second_derivatives_are_those_of_differences(backend):
    net, x = drawn(lambda: ThalNet(1, 2, features=1)), normal(1, 2, 1).requires_grad_()
    net.ops = backend
    assert gradgradcheck(lambda x: net(x)[0], [x])


@pytest.mark.parametrize("reading", ["linear", "fast_softmax", "fast_gaussian"])
@every_backend
def test_second_derivatives_of_a_grown_network(backend, reading):
    """Opened slots have gates in dynamic readings."""
    network = drawn(lambda: Network(ThalNet(3, 2, features=2, context=2, reading=reading)))
    network.add_task("task", TaskSpec(3, 2))
    network.attach(ModuleSpec("new", 2, 2, reading=reading), read_by=["output"])
    network.attach(ModuleSpec("unread", 2, 2, reading="linear"))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * normal(*parameter.shape))
    assert_like_reference(network.body, backend)


@every_backend
def test_second_derivatives_with_a_reading_that_pytorch_computes(backend):
    net = drawn(lambda: ThalNet(3, 2, features=2, context=2))
    net.cell("output").reading = drawn(lambda: Product(2, 4, 2))
    assert_like_reference(net, backend)


@pytest.mark.parametrize("backend", ["cpp", "batched"])
def test_second_derivatives_of_many_networks_under_vmap(backend):
    nets = [drawn(lambda: ThalNet(3, 2, features=2), seed) for seed in range(3)]
    stacked, _ = torch.func.stack_module_state(nets)
    leaves = {name: value.detach().requires_grad_() for name, value in stacked.items()}
    xs = normal(3, 2, 2, 3)
    nets[0].ops = backend

    def run(parameters, x):
        return torch.func.functional_call(nets[0], parameters, (x,))[0]

    def penalty(outputs, tensors):
        slopes = torch.autograd.grad(outputs.square().sum(), tensors, create_graph=True)
        return sum(slope.square().sum() for slope in slopes)

    total = penalty(torch.vmap(run)(leaves, xs), list(leaves.values()))
    found = dict(zip(leaves, torch.autograd.grad(total, leaves.values()), strict=True))
    for k, net in enumerate(nets):
        net.ops = "reference"
        tensors = list(net.parameters())
        expected = torch.autograd.grad(penalty(net(xs[k])[0], tensors), tensors)
        for (name, _), grad in zip(net.named_parameters(), expected, strict=True):
            torch.testing.assert_close(found[name][k], grad)


@every_backend
def test_third_derivatives_and_a_graph_that_is_used_twice(backend):
    net, x = drawn(lambda: ThalNet(3, 2, features=2)), normal(1, 2, 3).requires_grad_()
    found = []
    for net.ops in (backend, "reference"):
        value = net(x)[0].sum()
        for _ in range(3):
            (slope,) = torch.autograd.grad(value, x, create_graph=True)
            value = value + slope.square().sum()
        value.backward(inputs=list(net.parameters()))
        found.append([parameter.grad.clone() for parameter in net.parameters()])
        net.zero_grad()
    for grad, expected in zip(*found, strict=True):
        torch.testing.assert_close(grad, expected)


def test_second_derivatives_under_autocast_are_close():
    net, x = drawn(lambda: ThalNet(3, 2, features=4), dtype=torch.float32), normal(2, 3, 3).float()
    found = []
    for autocast in (True, False):
        x.requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            assert net.backend() == ("fused" if autocast else "cpp")
            ys = net(x)[0]
        (slope,) = torch.autograd.grad(ys.float().square().sum(), x, create_graph=True)
        grads = torch.autograd.grad(slope.square().sum(), list(net.parameters()))
        found.append(torch.cat([grad.flatten() for grad in grads]))
    assert 0 < (found[0] - found[1]).norm() < 0.05 * found[1].norm()
