"""What ``print(network)`` shows: who reads whom, in a line a module and a line a task."""

from thalnet_mtl.models.baselines import MLP
from thalnet_mtl.models.network import Network
from thalnet_mtl.models.size import parameter_counts
from thalnet_mtl.models.stacked_gru import StackedGRU
from thalnet_mtl.models.thalnet import ThalNet
from thalnet_mtl.topology.spec import ModuleSpec, TaskSpec

MODULES = [
    ModuleSpec("input", 16, 8, inputs=28, reads=("input", "side"), reading="linear"),
    ModuleSpec("side", 10, 4, module="gru", tasks=("digits",)),
    ModuleSpec("output", 20, 12, output=True, reads=("input",)),
]


def test_a_network_shows_who_reads_whom():
    network = Network(ThalNet(modules=MODULES))
    network.add_task("digits", TaskSpec(28, 10), sub_steps=2, extra_steps=1)
    text = TaskSpec(27, 27, tokens=True, every_step=True)
    network.add_task("text", text, output_modules=["input", "output"])
    network.freeze(task="digits")
    counts = parameter_counts(network)
    assert (
        repr(network)
        == f"""\
Network(
  body: ThalNet(
    center: 46 features of 3 modules
    input: ff_gru, features 16, context 8; reads input, side (linear); task input 28; frozen
    side: gru, features 10, context 4; reads all modules (weight_norm); only for digits; frozen
    output: ff_gru, features 20, context 12; reads input (weight_norm); output; frozen
  )
  task digits: rows of 28 -> 10 outputs at the last step; input -> head on output; \
2 steps per input; 1 extra step; frozen
  task text: tokens of 27 -> 27 outputs at every step; input -> head on input, output
  parameters: {counts["total"]:,}, of which {counts["trainable"]:,} trainable
)"""
    )


def test_a_thalnet_shows_its_modules():
    assert (
        repr(ThalNet(inputs=8, modules=1, features=5))
        == """\
ThalNet(
  center: 5 features of 1 module
  module: ff_gru, features 5, context 5; reads module (weight_norm); task input 8; output
)"""
    )


def test_a_baseline_shows_what_it_was_made_of():
    network = Network(StackedGRU(28, 32, layers=2))
    network.add_task("digits", TaskSpec(28, 10))
    assert (
        repr(network)
        == """\
Network(
  body: StackedGRU(inputs=28, features=32, layers=2)
  task digits: rows of 28 -> 10 outputs at the last step
  parameters: 12,618, of which 12,618 trainable
)"""
    )
    assert "MLP(inputs=28, features=6, layers=4, window=9)" in repr(Network(MLP(28, 6, window=9)))


def test_a_network_is_shown_after_every_change():
    network = Network(ThalNet(inputs=8, modules=3, features=4))
    assert "task" not in repr(network).replace("task input", "")
    network.attach(ModuleSpec("new", 2, 2), read_by=["output"])
    assert "new: ff_gru, features 2, context 2; reads all modules" in repr(network)
    network.route("output", "side1", open=False)
    assert "reads input, output, new (weight_norm); output" in repr(network)
    network.detach("new")
    assert "new" not in repr(network)
