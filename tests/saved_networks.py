"""Networks of every kind that can be saved, and how they are compared after they were loaded."""

import torch

from thalnet_mtl import Network
from thalnet_mtl.models.baselines import MLP, StackedLSTM
from thalnet_mtl.models.body import Body
from thalnet_mtl.models.stacked_gru import StackedGRU
from thalnet_mtl.models.thalnet import ThalNet
from thalnet_mtl.topology.spec import ModuleSpec, TaskSpec

ROWS = TaskSpec(inputs=6, outputs=3, steps=4)
WIDE = TaskSpec(inputs=9, outputs=2, steps=4)
TEXT = TaskSpec(inputs=5, outputs=5, tokens=True, every_step=True)
MODULES = [
    ModuleSpec("input", 4, 3, inputs=6, reading="linear", reads=("input",)),
    ModuleSpec("side", 3, 2, module="gru_ff", reading="fast_softmax", hidden=2),
    ModuleSpec("output", 5, 4, output=True, module="ff", reading="fast_gaussian"),
]


def by_hand() -> Network:
    """Return a ThalNet of three tasks, module by module, and grown by every kind of change."""
    network = Network(ThalNet(modules=MODULES))
    network.add_task("rows", ROWS, sub_steps=2)
    network.add_task("text", TEXT, output_modules=["side", "output"])
    network.freeze(task="rows")
    network.unfreeze(task="rows")
    network.attach(ModuleSpec("new", 2, 2, inputs=9, tasks=("wide",)), read_by=["output", "side"])
    network.clone("side", "duplicate", tasks=["wide"])
    network.route("output", "duplicate")
    network.add_task("wide", WIDE, input_modules=["new"], output_modules=["duplicate", "output"])
    network.freeze("side", task="text")
    network.remove_task("rows")
    network.add_task("rows", ROWS)
    return network


def with_tasks(body: Body) -> Network:
    network = Network(body)
    network.add_task("rows", ROWS)
    network.add_task("wide", WIDE)
    if body.recurrent:
        network.add_task("text", TEXT)
        network.freeze(task="text")
    return network


NETWORKS = {
    "gru": lambda: with_tasks(StackedGRU(6, 5, layers=2)),
    "lstm": lambda: with_tasks(StackedLSTM(6, 5, layers=3)),
    "mlp": lambda: with_tasks(MLP(6, 5, layers=2, window=4)),
    "thalnet": lambda: with_tasks(ThalNet(6, 3, 5)),
    "by_hand": by_hand,
}


def inputs_of(task: TaskSpec) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    if task.tokens:
        return torch.randint(task.inputs, (3, 4), generator=generator)
    return torch.rand(3, 4, task.inputs, generator=generator)


def assert_same_network(actual: Network, expected: Network) -> None:
    """Equal in topology, weights, what is trainable, and in the logits of every task."""
    assert actual.describe() == expected.describe()
    assert repr(actual) == repr(expected)
    assert list(actual.adapters) == list(expected.adapters)
    parameters = dict(actual.named_parameters())
    assert list(parameters) == [name for name, _ in expected.named_parameters()]
    for name, parameter in expected.named_parameters():
        assert parameters[name].requires_grad == parameter.requires_grad, name
        assert parameters[name].dtype == parameter.dtype
        assert torch.equal(parameters[name], parameter)
    for name in expected.adapters:
        xs = inputs_of(expected.adapter(name).task)
        assert torch.equal(actual(name, xs)[0], expected(name, xs)[0])
