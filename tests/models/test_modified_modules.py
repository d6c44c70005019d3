"""What PyTorch's tools do to the modules inside a body counts, also after a call has been made."""

import copy

import pytest
import torch
from properties import drawn
from technique_cases import BODIES, XS, every_case, nets
from torch import nn
from torch.nn.modules.module import register_module_forward_hook
from torch.nn.utils import parametrizations, parametrize, prune

from thalnet_mtl.errors import UserError
from thalnet_mtl.models.network import Network
from thalnet_mtl.models.thalnet import ThalNet
from thalnet_mtl.topology.spec import ModuleSpec, TaskSpec

pytestmark = pytest.mark.filterwarnings("ignore:.*deprecated")


class Half(nn.Module):
    """A parametrization."""

    def forward(self, weight):
        return 0.5 * weight


def weighted(body):
    """Return every module inside a body with the names of its matrices."""
    for module in body.modules():
        names = [name for name, p in module.named_parameters(recurse=False) if p.ndim == 2]
        if names:
            yield module, names


CHANGES = {
    "prune": lambda module, name: prune.l1_unstructured(module, name, 0.5),
    "weight_norm": parametrizations.weight_norm,
    "old weight_norm": nn.utils.weight_norm,
    "spectral_norm": lambda module, name: parametrizations.spectral_norm(module, name).eval(),
    "orthogonal": parametrizations.orthogonal,
    "parametrization": lambda module, name: parametrize.register_parametrization(
        module, name, Half()
    ),
}
# Dynamic readings and Gaussians have their matrices in other places.
KINDS = {
    "static": lambda: ThalNet(3, 2, features=3, context=2, hidden=2),
    "gaussian": lambda: ThalNet(3, 2, features=3, context=2, hidden=2, reading="fast_gaussian"),
    "gru": BODIES["gru"],
    "rnn": BODIES["rnn"],
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_weights_of_changed_modules_are_those_that_are_computed_with(kind, change):
    """Expected is a plain body with the weights that the changed modules say that they have."""
    body, plain = drawn(KINDS[kind]), drawn(KINDS[kind])
    before = body(XS)[0]
    changed = list(weighted(body))
    for module, names in changed:
        for name in names:
            CHANGES[change](module, name)
    for _ in range(2):
        outputs = body(XS)[0]
        outputs.square().sum().backward()
        with torch.no_grad():
            for (module, names), (target, _) in zip(changed, weighted(plain), strict=True):
                for name in names:
                    target.get_parameter(name).copy_(getattr(module, name))
        if kind not in ("gru", "rnn"):
            plain.ops = "reference"
        torch.testing.assert_close(outputs, plain(XS)[0], rtol=1e-9, atol=1e-12)
        with torch.no_grad():  # a step of an optimizer, for all other parameters as well
            for parameter in body.parameters():
                assert parameter.grad is not None
                parameter.add_(parameter.grad, alpha=-0.1)
            for name, parameter in plain.named_parameters():
                if name in dict(body.named_parameters()):
                    parameter.copy_(body.get_parameter(name))
    assert not torch.equal(outputs, before)


@pytest.mark.parametrize("part", ["reading", "reading.mean", "design.stack.0", "design"])
def test_hooks_on_inner_modules_run(part):
    net = drawn(KINDS["gaussian"])
    net(XS)
    calls = []
    for cell in net.cells.values():
        inner = cell.get_submodule(part)
        inner.register_forward_hook(lambda module, args, y: calls.append(module))
    net(XS)
    assert len(calls) == 2 * XS.shape[1]
    static = drawn(KINDS["static"])
    expected = static(XS)[0]
    for cell in static.cells.values():
        cell.reading.register_forward_hook(lambda module, args, y: 0 * y)
    outputs = static(XS)[0]
    assert not torch.allclose(outputs, expected)
    with torch.no_grad():
        for cell in static.cells.values():
            cell.reading.scale.zero_()
    torch.testing.assert_close(outputs, static(XS)[0])
    assert not any(matrix.any() for matrix in static.reading_weights().values())


def test_hooks_on_the_calls_of_all_modules_run():
    net, called = drawn(KINDS["static"]), set()
    handle = register_module_forward_hook(lambda module, args, y: called.add(module))
    try:
        outputs = net(XS)[0]
        with pytest.raises(UserError, match=r"backend 'cpp': .*hooks on the calls of all modules"):
            net.ops = "cpp"
            net(XS)
    finally:
        handle.remove()
    assert {net.cell(name).design.stack[0] for name in net.slots} <= called
    torch.testing.assert_close(outputs, net(XS)[0])


@pytest.mark.parametrize("ops", ["auto", "cpp", "fused", "batched", "reference"])
def test_an_exchanged_module_is_the_one_that_runs(ops):
    net, other = drawn(KINDS["static"]), drawn(KINDS["static"], seed=1)
    net.ops = other.ops = ops
    net(XS)
    for name, cell in net.cells.items():
        cell.design = copy.deepcopy(other.cell(name).design)
        cell.reading = copy.deepcopy(other.cell(name).reading)
    assert torch.equal(net(XS)[0], other(XS)[0])
    net.cells["input"].design.stack[1] = drawn(lambda: nn.GRUCell(2, 3), seed=2)
    assert not torch.equal(net(XS)[0], other(XS)[0])
    third = copy.deepcopy(net)
    third.ops = "reference"
    torch.testing.assert_close(net(XS)[0], third(XS)[0])


def replicate(module):
    """Return a replica as ``DataParallel`` makes it, here on the same device."""
    replicas = {part: part._replicate_for_data_parallel() for part in module.modules()}
    for part, replica in replicas.items():
        for name, child in part._modules.items():
            replica._modules[name] = None if child is None else replicas[child]
        for name, parameter in part._parameters.items():
            if parameter is None:
                replica._parameters[name] = None
            else:
                setattr(replica, name, 1 * parameter)
    return replicas[module]


@pytest.mark.parametrize("called_before", [False, True])
@every_case
def test_replicas_compute_with_their_own_weights(kind, ops, called_before):
    net, _ = nets(kind, ops)
    if called_before:
        net(XS)
    expected = torch.autograd.grad(net(XS)[0].square().sum(), list(net.parameters()))
    if not called_before:
        net, _ = nets(kind, ops)
    replica, placement = replicate(net), net.placement() if kind in ("static", "dynamic") else None
    outputs = replica(XS)[0]
    assert placement is None or net.placement() is placement
    found = torch.autograd.grad(outputs.square().sum(), list(net.parameters()), retain_graph=True)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    name, weight = next((n, p) for n, p in net.named_parameters() if p.ndim == 2)
    *path, leaf = name.split(".")
    own = getattr(replica.get_submodule(".".join(path)), leaf)
    assert own is not weight
    (through,) = torch.autograd.grad(outputs.square().sum(), own, allow_unused=True)
    assert through is not None and through.any()
    with torch.no_grad():
        weight.zero_()
    assert not torch.equal(net(XS)[0], outputs)  # the replica has left no weights of its own


@pytest.mark.parametrize("kind", ["static", "gaussian", "gru"])
def test_dynamic_quantization_is_close_and_counts(kind):
    network = Network(drawn(KINDS[kind], dtype=torch.float32))
    network.add_task("task", TaskSpec(3, 2))
    xs = XS.float()
    expected = network("task", xs)[0].detach()
    kinds = {nn.Linear, nn.GRUCell, nn.GRU}
    quantized = torch.ao.quantization.quantize_dynamic(network, kinds)
    assert quantized.initial("task", 2) is not None
    for _ in range(2):
        outputs = quantized("task", xs)[0]
        assert 0 < (outputs - expected).norm() < 0.05 * expected.norm()
    torch.ao.quantization.quantize_dynamic(network, kinds, inplace=True)  # after a call
    assert torch.equal(network("task", xs)[0], outputs)


class Doubled(torch.Tensor):
    """A tensor that means twice the numbers in its memory."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        factor = 1 if function is torch.Tensor.contiguous else 2
        plain = [factor * a.as_subclass(torch.Tensor) if isinstance(a, cls) else a for a in args]
        return function(*plain, **(kwargs or {}))


@pytest.mark.parametrize("part", ["design.stack.0", "reading"])
def test_weights_of_another_kind_of_tensor_are_not_read_as_memory(part):
    net, plain = drawn(KINDS["static"]), drawn(KINDS["static"])
    net(XS)
    for changed, double in ((net, True), (plain, False)):
        module = changed.cell("input").get_submodule(part)
        weight = module.weight.detach()
        module._parameters["weight"] = weight.as_subclass(Doubled) if double else 2 * weight
    plain.ops = "reference"
    torch.testing.assert_close(net(XS)[0], plain(XS)[0])


@pytest.mark.parametrize("name", ["reading.weight", "design.stack.0.weight", "reading.mean.bias"])
def test_a_weight_of_another_shape_is_refused(name):
    net = drawn(KINDS["gaussian" if "mean" in name else "static"])
    net(XS)
    key = f"cells.input.{name}"
    smaller = {key: net.get_parameter(key)[:1]}
    with pytest.raises(UserError, match=r"a weight has shape \(1.*; expected \("):
        torch.func.functional_call(net, smaller, (XS,))


@pytest.mark.parametrize("change", ["prune", "weight_norm"])
def test_growth_refuses_readings_whose_weights_are_made_at_every_call(change):
    network = Network(ThalNet(3, 2, features=3, context=2))
    network.add_task("task", TaskSpec(3, 2))
    CHANGES[change](network.body.cell("output").reading, "weight")
    before = repr(network)
    with pytest.raises(UserError, match="'weight' is pruned or parametrized") as error:
        network.attach(ModuleSpec("new", 3, 2), read_by=["output"])
    assert "\n" not in str(error.value) and repr(network) == before
