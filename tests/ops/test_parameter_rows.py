"""The C++ backend computes with rows of parameters as with the parameters themselves."""

import pytest
import torch
from properties import drawn, normal

from thalnet_mtl.errors import UserError
from thalnet_mtl.models.thalnet import ThalNet
from thalnet_mtl.ops.parameter_rows import gradients_by_row
from thalnet_mtl.topology.spec import ModuleSpec
from thalnet_mtl.training.flat_optimizer import FlatOptimizer

MODULES = [
    ModuleSpec("first", 3, 4, inputs=5, reading="linear", module="ff_gru"),
    ModuleSpec("second", 4, 3, reading="weight_norm", module="gru_ff"),
    ModuleSpec("third", 4, 3, reading="fast_softmax", module="gru"),
    ModuleSpec("fourth", 2, 5, reading="fast_gaussian", module="ff"),
    ModuleSpec("last", 4, 3, output=True, reading="weight_norm", module="gru_ff"),
]


def flattened(dtype=torch.float64):
    """Return a network of many readings and designs, and its parameters in two rows."""
    net = drawn(lambda: ThalNet(modules=MODULES), dtype=dtype)
    net.ops = "cpp"
    parameters = [*net.parameters()]
    used = {"a": parameters, "b": parameters[::3]}
    return net, FlatOptimizer(torch.optim.SGD(parameters, lr=0.1), used)


def gradients_of(net, flat, rows, xs, times=1):
    """Return the gradients of all parameters and of the input, by rows or one by one."""
    flat.zero_grad(["a"])
    xs = xs.clone().requires_grad_()
    for _ in range(times):
        with gradients_by_row(rows):
            ys, _ = net(xs)
        ys.square().sum().backward()
    return [xs.grad, *(p.grad.clone() for p in net.parameters())]


def leaves_of(tensor):
    """Return the number of leaves that a result was computed from."""
    nodes, leaves = [tensor.grad_fn], set()
    while nodes:
        node = nodes.pop()
        leaves |= {node} if hasattr(node, "variable") else set()
        nodes += [after for after, _ in node.next_functions if after]
    return len(leaves)


def freeze(net):
    for parameter in net.cell("second").parameters():
        parameter.requires_grad_(False)


def share(net):
    net.cell("last").design.stack[0].weight_hh = net.cell("second").design.stack[0].weight_hh


CHANGES = {"none": lambda net: None, "a frozen module": freeze, "a shared parameter": share}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_the_same_to_the_bit(change, dtype):
    net, flat = flattened(dtype)
    xs = normal(7, 6, 5, dtype=dtype)
    for apply in (CHANGES["none"], CHANGES[change]):  # also after rows were used
        apply(net)
        for times in (1, 2):
            alone = gradients_of(net, flat, None, xs, times)
            by_row = gradients_of(net, flat, flat.parameter_rows, xs, times)
            # The sum of both gradients of a shared parameter may be rounded otherwise.
            torch.testing.assert_close(by_row, alone)
            assert apply is share or all(map(torch.equal, by_row, alone))
    assert any(grad.any() for grad in alone[1:])


def test_autograd_knows_the_rows_alone():
    net, flat = flattened()
    xs = normal(7, 6, 5, dtype=torch.float64)
    counts = []
    for rows in (None, flat.parameter_rows):
        with gradients_by_row(rows):
            counts.append(leaves_of(net(xs)[0]))
    gates = sum(name.endswith("gates") for name, _ in net.named_parameters())
    assert counts[0] == len([*net.parameters()]) and counts[1] <= len(flat.rows) + gates


def test_hooks_of_a_parameter_see_its_gradient():
    net, flat = flattened()
    xs, seen = normal(7, 6, 5, dtype=torch.float64), []
    gradients_of(net, flat, flat.parameter_rows, xs)
    hooked = net.cell("first").design.stack[0].weight
    hooked.register_hook(lambda grad: seen.append(grad.clone()))
    by_row = gradients_of(net, flat, flat.parameter_rows, xs)
    assert len(seen) == 1 and torch.equal(seen[0], hooked.grad) and hooked.grad.any()
    assert all(map(torch.equal, by_row, gradients_of(net, flat, None, xs)))


def test_second_derivatives_go_through_rows():
    net, flat = flattened()
    found = []
    for rows in (None, flat.parameter_rows):
        flat.zero_grad(["a"])
        xs = normal(3, 4, 5, dtype=torch.float64).requires_grad_()
        with gradients_by_row(rows):
            ys, _ = net(xs)
        (gradient,) = torch.autograd.grad(ys.square().sum(), xs, create_graph=True)
        gradient.square().sum().backward()
        found.append([p.grad.clone() for p in net.parameters()])
    for alone, by_row in zip(*found, strict=True):
        torch.testing.assert_close(by_row, alone)
    assert all(grad.any() for grad in found[1])


def test_parameters_that_were_updated_are_read_from_their_rows():
    net, flat = flattened()
    xs = normal(7, 6, 5, dtype=torch.float64)
    for _ in range(2):
        gradients_of(net, flat, flat.parameter_rows, xs)
        flat.step()
    with gradients_by_row(flat.parameter_rows):
        ys, _ = net(xs)
    torch.testing.assert_close(ys, net(xs)[0], rtol=0, atol=0)


def test_a_parameter_that_took_the_place_of_another_is_read():
    net, flat = flattened()
    xs = normal(7, 6, 5, dtype=torch.float64)
    gradients_of(net, flat, flat.parameter_rows, xs)
    layer = net.cell("first").design.stack[0]
    layer.weight = torch.nn.Parameter(layer.weight.detach() * 2)
    alone = gradients_of(net, flat, None, xs)
    layer.weight.grad = None
    by_row = gradients_of(net, flat, flat.parameter_rows, xs)
    assert all(map(torch.equal, by_row, alone))


def test_shapes_of_parameters_in_rows_are_checked():
    net, flat = flattened()
    xs = normal(7, 6, 5, dtype=torch.float64)
    gradients_of(net, flat, flat.parameter_rows, xs)
    net.cell("first").design.stack[0].weight = net.cell("second").design.stack[0].weight_ih
    with pytest.raises(UserError, match="a weight has shape"):
        gradients_of(net, flat, flat.parameter_rows, xs)


def test_types_are_compared_with_rows_too():
    net, flat = flattened()
    freeze(net)
    with gradients_by_row(flat.parameter_rows):
        net(normal(2, 3, 5, dtype=torch.float64))
        with pytest.raises(UserError, match="same type"):
            net(normal(2, 3, 5, dtype=torch.float32))
        net.cell("second").float()
        with pytest.raises(UserError, match="same type"):
            net(normal(2, 3, 5, dtype=torch.float64))


def test_transforms_of_functions_are_not_computed_with_rows():
    net, flat = flattened()
    xs = normal(3, 2, 4, 5, dtype=torch.float64)
    with gradients_by_row(flat.parameter_rows):
        found = torch.vmap(lambda x: net(x)[0])(xs)
    torch.testing.assert_close(found, torch.stack([net(x)[0] for x in xs]))
