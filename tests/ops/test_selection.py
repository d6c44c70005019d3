"""The choice of a backend: which can run a network, and what is said about the others."""

import pytest
import torch
from properties import drawn, normal

from thalnet_mtl.errors import UserError
from thalnet_mtl.models.designs.stacks import FFGRU
from thalnet_mtl.models.thalnet import ThalNet
from thalnet_mtl.ops import BACKENDS


class CustomReading(torch.nn.Module):
    """A custom dynamic reading."""

    dynamic = True

    def __init__(self, features, center, context):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(context, center))

    def weights(self, features=None):
        return self.weight * features.mean()


class CustomDesign(FFGRU):
    """A custom design that derives from a built-in one."""

    def forward(self, x, memory):
        return super().forward(2 * x, memory)


def remove_bias(design):
    design.stack[0].bias = None


def add_hook(design):
    design.stack[0].register_forward_hook(lambda layer, args, y: 2 * y)


def replace_layer(design):
    design.stack[0] = torch.nn.Sequential(design.stack[0], torch.nn.Tanh())


def test_backends_say_why_they_cannot_run_and_name_those_that_can():
    net = ThalNet(2, 3, 4)
    assert list(net.explain()) == list(BACKENDS)
    assert net.explain()["cpp"] is None and net.backend() == "cpp"
    assert "float16" in net.half().explain()["cpp"]
    net = net.float()
    with torch.autocast("cpu", torch.bfloat16):
        assert net.explain()["cpp"] == "autocast is on"
        assert net.backend() == "fused"
    dynamic = ThalNet(2, 3, 4, reading="fast_softmax")
    assert "'input' has a dynamic reading" in dynamic.explain()["fused"]
    dynamic.ops = "fused"
    with pytest.raises(
        UserError, match=r"^backend 'fused': .* Use one of auto, cpp, batched, reference"
    ):
        dynamic(torch.zeros(1, 1, 2))
    dynamic.ops = "cp"
    with pytest.raises(UserError, match=r"unknown backend 'cp'.*'cpp'"):
        dynamic(torch.zeros(1, 1, 2))
    custom = ThalNet(2, 3, 4)
    custom.cell("input").reading = CustomReading(4, 12, 4)
    assert "custom dynamic reading, CustomReading" in custom.explain()["cpp"]
    assert custom.backend() == "batched"
    custom = ThalNet(2, 3, 4)
    custom.cell("side1").design = CustomDesign(4, 4, 4)
    for backend in ("cpp", "fused"):
        assert custom.explain()[backend] == "module 'side1' has a custom design, CustomDesign"


@pytest.mark.parametrize("backend", ["auto", "cpp", "fused"])
def test_a_network_is_traced_with_a_backend_that_can_be(backend):
    net, xs = ThalNet(2, 3, 4), torch.rand(4, 3, 2)
    expected, net.ops = net(xs)[0], backend
    if backend == "auto":
        traced = torch.export.export(net, (xs,)).module()
        torch.testing.assert_close(traced(xs)[0], expected)
    else:
        with pytest.raises(Exception, match=f"backend '{backend}': it cannot be traced"):
            torch.export.export(net, (xs,))


@pytest.mark.parametrize("change", [remove_bias, add_hook, replace_layer])
def test_modified_layers_are_computed_as_they_are(change):
    net, xs = drawn(lambda: ThalNet(2, 3, 4)), normal(4, 3, 2)
    change(net.cell("side1").design)
    net.ops = "reference"
    expected = net(xs)[0]
    for net.ops in ("auto", "batched"):
        torch.testing.assert_close(net(xs)[0], expected)
