"""Networks as programs, and networks without numbers: exported, compiled, on ``meta``."""

from functools import cached_property

import jaxtyping
import pytest
import torch
from properties import drawn, normal
from technique_cases import BODIES, XS
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from thalnet_mtl.errors import UserError
from thalnet_mtl.models.network import Network
from thalnet_mtl.models.thalnet import ThalNet
from thalnet_mtl.topology.spec import ModuleSpec, TaskSpec

# Of PyTorch's own layers, which keep a list of their weights as well.
pytestmark = pytest.mark.filterwarnings("ignore:The tensor attributes .*_flat_weights")
BATCH = torch.export.Dim("batch", min=1)


@pytest.fixture(autouse=True)
def without_checks_of_shapes(monkeypatch):
    """Turn off what checks types in tests only: it cannot be traced."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


class Task(nn.Module):
    """A task of a network as a function of tensors."""

    def __init__(self, body):
        super().__init__()
        self.network = Network(body)
        self.network.add_task("task", TaskSpec(3, 2, every_step=True))

    def forward(self, xs, lengths):
        return self.network("task", xs, None, lengths)[0]


@pytest.mark.parametrize("kind", ["static", "dynamic", "gru"])
def test_an_exported_network_takes_any_batch_and_any_lengths(kind):
    model, full = drawn(lambda: Task(BODIES[kind]())).eval(), torch.tensor([2, 2])
    shapes = {"xs": {0: BATCH}, "lengths": {0: BATCH}}
    program = torch.export.export(model, (XS[:, :2], full), dynamic_shapes=shapes).module()
    for xs, lengths in [
        (XS[:, :2], torch.tensor([1, 2])),
        (XS[:1, :2], torch.tensor([1])),
        (normal(5, 2, 3), torch.tensor([1, 2, 2, 1, 1])),
    ]:
        torch.testing.assert_close(program(xs, lengths), model(xs, lengths))
    for value in (0, 3):
        with pytest.raises(RuntimeError, match="lengths: a sequence of this batch has 1 to 2"):
            program(XS[:, :2], torch.tensor([1, value]))


def test_nothing_of_a_graph_is_left_to_be_computed_in_a_trace():
    """The lock of a cached property cannot be traced: not by a strict export, nor as one graph."""
    graph = ThalNet(3, 2).graph
    members = vars(type(graph)).items()
    lazy = {name for name, member in members if isinstance(member, cached_property)}
    assert lazy and lazy <= vars(graph).keys()


@pytest.mark.parametrize("kind", BODIES)
@pytest.mark.parametrize("where", ["meta", "fake"])
def test_a_body_is_built_and_run_without_data(kind, where):
    context = torch.device("meta") if where == "meta" else FakeTensorMode()
    with context:
        body, xs = BODIES[kind](), torch.rand(2, 3, 3)
        shape = body(xs, None, torch.ones(2, dtype=torch.long))[0].shape
    assert shape == BODIES[kind]()(torch.rand(2, 3, 3))[0].shape


def grown(reading):
    network = Network(ThalNet(3, 2, features=2, context=2, reading=reading))
    network.add_task("task", TaskSpec(3, 2))
    network.attach(ModuleSpec("new", 2, 2, reading=reading), read_by=["output"])
    return network


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("reading", ["weight_norm", "fast_softmax", "fast_gaussian"])
def test_a_grown_network_is_built_without_data_and_then_loaded(reading, assign, monkeypatch):
    network = drawn(lambda: grown(reading), dtype=torch.float32)
    with torch.device("meta"):
        again = Network.from_description(network.describe())
    if not assign:
        empty = torch.empty_like  # its memory may hold anything
        monkeypatch.setattr(torch, "empty_like", lambda *a, **k: empty(*a, **k).fill_(7))
        again.to_empty(device="cpu")
        monkeypatch.undo()
    again.load_state_dict(network.state_dict(), assign=assign)
    for ops in ("auto", "reference"):
        again.body.ops = network.body.ops = ops
        torch.testing.assert_close(again("task", XS.float())[0], network("task", XS.float())[0])


@pytest.mark.parametrize("kind", BODIES)
@pytest.mark.parametrize("xs", [XS.numpy(), XS.tolist(), None])
def test_what_is_no_tensor_is_refused_in_one_line(kind, xs):
    with pytest.raises(UserError, match=r"expected a tensor, .*not ") as error:
        drawn(BODIES[kind])(xs)
    assert "\n" not in str(error.value)
