"""Whoever looks at a network leaves no trace in it, and frozen modules stand still, buffers too."""

import pytest
import torch
from random_networks import case_of
from stream_fixtures import STRATEGIES, knobs_of, step_until
from torch import nn
from toy_tasks import GROWING, STREAM, toy

from thalnet_mtl.models.cost import count_macs
from thalnet_mtl.models.designs.base import Design
from thalnet_mtl.models.export import export
from thalnet_mtl.models.modes import evaluation_mode
from thalnet_mtl.models.network import Network
from thalnet_mtl.models.recurrent import RecurrentBody
from thalnet_mtl.models.thalnet import ThalNet
from thalnet_mtl.registry import registered
from thalnet_mtl.strategies import ewc
from thalnet_mtl.topology.spec import ModuleSpec, TaskSpec
from thalnet_mtl.training.dry_run import dry_run_changes
from thalnet_mtl.training.evaluate import evaluate, lesions
from thalnet_mtl.training.readings import save_readings
from thalnet_mtl.training.setup import set_up

in_training = []  # the modes in which modules of the design were called


class Normed(Design):
    """A design whose outputs depend on its mode, and that moves all it can at every call."""

    def __init__(self, inputs, features, hidden):
        nn.Module.__init__(self)
        self.memory = features
        self.norm, self.drop = nn.BatchNorm1d(inputs), nn.Dropout(0.5)
        self.gru = nn.GRUCell(inputs, features)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x, memory):
        in_training.append(self.training)
        if not torch.compiler.is_compiling():
            self.calls += torch.rand(())  # in evaluation mode as well
        memory = self.gru(self.drop(self.norm(x)), memory)
        return memory, memory


@pytest.fixture(autouse=True)
def design():
    in_training.clear()
    with registered("module", {"normed": Normed}):
        yield


def run_of(strategy="naive", **sections):
    return set_up(
        toy(
            **STREAM | sections,
            model={"module": "normed", "reading": "fast_softmax"},
            train={"strategy": strategy},
            strategy=knobs_of(strategy),
        ),
        fetch=print,
    )


def traces(network):
    """Return all of a network that a look could move, and the random state."""
    tensors = {name: value.clone() for name, value in network.state_dict().items()}
    modes = {name: torch.tensor(part.training) for name, part in network.named_modules()}
    objects = {name: id(buffer) for name, buffer in network.named_buffers()}
    return {**tensors, **modes, "rng": torch.get_rng_state()}, objects


def assert_untouched(network, before):
    now, old = traces(network), before
    assert now[1] == old[1]
    for name, value in old[0].items():
        assert torch.equal(now[0][name], value), name


def batch(run, size=1):
    return next(run.tasks["toy_rows"].iterate("validation", size, 7)).xs


CHANGE = {"step": 3, "verb": "attach", "name": "late", "read_by": ["output"]}
LOOKERS = {
    "evaluate": lambda run, path: evaluate(run.network, run.tasks["toy_rows"], "test", 50),
    "scores": lambda run, path: run.scores(list(run.tasks), "validation"),
    "lesions": lambda run, path: lesions(run.network, run.tasks["toy_rows"], "test"),
    "multiply-adds": lambda run, path: count_macs(run.network, "toy_rows", batch(run)),
    "Fisher information": lambda run, path: ewc.fisher_information(run, "toy_rows"),
    "reading weights": lambda run, path: run.network.body.reading_weights(torch.ones(2, 4, 6)),
    "saved readings": lambda run, path: save_readings(run, path / "readings"),
    "program": lambda run, path: export(run.network, "torch", path / "program", "toy_rows"),
    "saved network": lambda run, path: export(run.network, "safetensors", path / "network"),
    "rehearsal": lambda run, path: dry_run_changes(
        toy(**STREAM, changes=[CHANGE]), run.network, run.stream
    ),
}


@pytest.mark.parametrize(
    ("looker", "training"),
    [(name, mode) for name in LOOKERS for mode in (True, False) if mode or name != "program"],
)
def test_whoever_looks_at_a_network_leaves_no_trace(tmp_path, monkeypatch, looker, training):
    monkeypatch.setattr(ewc, "SAMPLES", 10)
    run = run_of()
    run.network.train(training)
    run.network.body.cells["side1"].design.norm.train(not training)  # by hand
    before = traces(run.network)
    in_training.clear()
    LOOKERS[looker](run, tmp_path)
    assert in_training and (looker == "rehearsal" or not any(in_training))  # it trains a copy
    assert_untouched(run.network, before)


def test_a_look_that_fails_leaves_no_trace():
    run = run_of()
    before = traces(run.network)
    with pytest.raises(ZeroDivisionError), evaluation_mode(run.network):
        run.network("toy_rows", batch(run))
        raise ZeroDivisionError
    assert_untouched(run.network, before)


def test_a_body_is_made_of_a_module_without_a_trace():
    class Layer(nn.GRU):
        def forward(self, xs, state=None):
            self.calls += torch.rand(())
            return super().forward(xs, state)

    module = Layer(3, 4, batch_first=True)
    module.register_buffer("calls", torch.zeros(()))
    before = traces(module)
    RecurrentBody(module)
    assert_untouched(module, before)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_no_strategy_moves_a_network_at_the_end_of_an_experience(monkeypatch, strategy):
    monkeypatch.setattr(ewc, "SAMPLES", 10)
    run = run_of(strategy)
    step_until(run, 19)
    before = traces(run.network)
    in_training.clear()
    run.state.strategy.after_experience(run.experience)
    assert not any(in_training)
    assert_untouched(run.network, before)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_frozen_task_with_statistics_gives_the_same_logits_under_every_strategy(
    monkeypatch, strategy
):
    monkeypatch.setattr(ewc, "SAMPLES", 10)
    run = run_of(strategy, growth=GROWING["frozen"])
    xs, logits = batch(run, 5), []
    for step in (20, 30):
        step_until(run, step)
        with evaluation_mode(run.network):
            logits.append(run.network("toy_rows", xs)[0])
        run.network.train()  # as every loop says
    assert torch.equal(*logits) and run.network.adapter("toy_rows").spec.frozen
    assert any(in_training)  # the new modules


# Modes of frozen and of new modules


def normed_network():
    modules = [
        ModuleSpec("one", 4, 4, inputs=3, module="normed"),
        ModuleSpec("two", 4, 4, output=True, module="normed"),
    ]
    network = Network(ThalNet(modules=modules))
    for task in ("a", "b"):
        network.add_task(task, TaskSpec(inputs=3, outputs=2))
    return network


def modes(network, name):
    return {part.training for part in network.body.cells[name].modules()}


def test_a_frozen_module_stays_in_evaluation_mode_until_it_is_unfrozen():
    network, xs = normed_network(), torch.rand(5, 3, 3)
    network("a", xs)
    network.freeze("one")
    assert modes(network, "one") == {False} and modes(network, "two") == {True}
    statistics = network.body.cells["one"].design.norm.running_mean.clone()
    network.train()
    network("a", xs)
    assert torch.equal(network.body.cells["one"].design.norm.running_mean, statistics)
    assert modes(network, "one") == {False}
    network.eval()
    network.unfreeze("one")
    assert modes(network, "one") == {False}
    network.train()
    assert modes(network, "one") == {True}
    network.freeze(task="a")
    assert not network.adapter("a").training and network.adapter("b").training
    network.unfreeze(task="a")
    assert all(part.training for part in network.modules())
    assert not torch.equal(network("a", xs)[0], network("a", xs)[0])


def test_a_loaded_frozen_network_is_in_evaluation_mode_where_it_is_frozen(tmp_path):
    network = normed_network()
    network.freeze(task="a")
    again = Network.from_description(network.describe()).train()
    assert modes(again, "one") == modes(again, "two") == {False}
    assert not again.adapter("a").training and again.adapter("b").training


def test_a_frozen_baseline_drops_nothing():
    network = Network(RecurrentBody(nn.GRU(3, 4, 2, batch_first=True, dropout=0.5)))
    for task in ("a", "b"):
        network.add_task(task, TaskSpec(inputs=3, outputs=2))
    xs = torch.rand(5, 3, 3)
    assert not torch.equal(network("a", xs)[0], network("a", xs)[0])
    network.freeze(task="a")
    network.train()
    assert torch.equal(network("a", xs)[0], network("a", xs)[0])
    assert not Network.from_description(network.describe()).body.training
    network.unfreeze(task="a")
    assert not torch.equal(network("a", xs)[0], network("a", xs)[0])


@pytest.mark.parametrize("training", [True, False])
def test_what_is_new_is_in_the_mode_of_the_network(training):
    case = case_of()
    network = case.network.train(training)
    network.freeze("side")
    network.attach(ModuleSpec("new", 2, 2))
    network.clone("side", "twin")
    network.clone("input_a", "other")
    network.add_task("c", network.adapter("a").task, input_modules=["input_a"])
    parts = {*network.modules()} - {*network.body.cells["side"].modules()}
    assert {part.training for part in parts} == {training}
    assert modes(network, "side") == {False}
