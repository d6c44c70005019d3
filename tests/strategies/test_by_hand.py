"""A loop that a user writes trains like ``train``, to the bit, with every strategy."""

import kill_and_resume
import pytest
import torch
from stream_fixtures import STRATEGIES
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset
from toy_tasks import knobs_of, toy

from thalnet_mtl import ModuleSpec, Network, StrategyLoop, TaskSpec, ThalNet, UserError, train
from thalnet_mtl.registry import lookup
from thalnet_mtl.strategies import ewc
from thalnet_mtl.strategies.base import Strategy
from thalnet_mtl.tasks.sequences import SequenceTask
from thalnet_mtl.training.checkpoint import load_checkpoint
from thalnet_mtl.training.setup import make_network, make_tasks

TASKS = {"a": "toy_rows", "b": "toy_turned", "c": "toy_rows"}
ORDER = "abca"
STEPS, BATCH = 5, 10


@pytest.fixture(autouse=True)
def few_samples(monkeypatch):
    monkeypatch.setattr(ewc, "SAMPLES", 30)  # for the Fisher information


def config_of(strategy):
    return toy(
        tasks={name: {"name": kind} for name, kind in TASKS.items()},
        stream=[{"tasks": [name], "steps": STEPS} for name in ORDER],
        train={"strategy": strategy, "optimizer": "rmsprop"},
        strategy=knobs_of(strategy, memory=40, strength=5.0),
        evaluate={"every": STEPS, "batches": 1},
    )


class Loop:
    """A training loop as a user would write it, with data loaders of their own."""

    def __init__(self, strategy):
        self.config = config = config_of(strategy)
        tasks = {name: task.load("cpu") for name, task in make_tasks(config).items()}
        torch.manual_seed(config.train.seed)
        self.network = make_network(config, tasks)
        self.optimizer = torch.optim.RMSprop(self.network.parameters(), lr=0.01)
        self.data, self.loaders = {}, {}
        for name, task in tasks.items():
            data = task.sequences("train", 1)
            self.data[name] = TensorDataset(data.xs / 255, data.ys)
            rows = [  # the order in which ``train`` reads them
                self.row_numbers(self.data[name], task.training_batch(step, BATCH, 1, 0))
                for step in range(2 * STEPS)
            ]
            self.loaders[name] = iter(DataLoader(self.data[name], batch_sampler=rows))
        self.loop = StrategyLoop(
            strategy, self.network, self.data, batch=BATCH, **config.strategy.options
        )

    @staticmethod
    def row_numbers(data, batch):
        xs = data.tensors[0].flatten(1)
        return [int((xs == row).all(1).nonzero()[0]) for row in batch.xs.flatten(1)]

    def step(self, name):
        xs, ys = next(self.loaders[name])
        self.optimizer.zero_grad()
        loss = cross_entropy(self.network(name, xs)[0], ys.long())
        self.loop.backward(loss, {name: (xs, ys.long())})
        self.optimizer.step()
        self.loop.after_step()

    def train(self, order=ORDER):
        for name in order:
            self.loop.begin(name)
            for _ in range(STEPS):
                self.step(name)
            self.loop.end()


def assert_equal(ours, theirs):
    ours, theirs = kill_and_resume.flatten(ours), kill_and_resume.flatten(theirs)
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        same = torch.equal(ours[name], value) if isinstance(value, torch.Tensor) else True
        assert same, name


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_loop_by_hand_is_the_same_as_a_run(tmp_path, strategy):
    mine = Loop(strategy)
    mine.train()
    train(mine.config, tmp_path)
    saved = load_checkpoint(tmp_path / "checkpoint" / "last.pt")
    assert_equal(mine.network.state_dict(), saved["network"])
    assert_equal(mine.loop.strategy.state_dict(), saved["strategy"])
    assert type(mine.loop.strategy) is lookup("strategy", strategy)


@pytest.mark.parametrize("strategy", ["si", "lwf", "gem"])
def test_a_loop_goes_on_from_its_state(strategy):
    whole, first, then = Loop(strategy), Loop(strategy), Loop(strategy)
    whole.train()
    for each in (first, then):  # both have read the same batches
        each.train("ab")
        each.loop.begin("c")
        for _ in range(3):
            each.step("c")
    fresh = StrategyLoop(
        strategy, then.network, then.data, batch=BATCH, **then.config.strategy.options
    )
    fresh.load_state_dict(first.loop.state_dict())
    then.loop = fresh
    for _ in range(STEPS - 3):
        then.step("c")
    then.loop.end()
    then.train("a")
    assert_equal(then.network.state_dict(), whole.network.state_dict())


def small(**options):
    network = Network(ThalNet(inputs=3, modules=2, features=4))
    network.add_task("a", TaskSpec(inputs=3, outputs=2))
    return network, {"a": TensorDataset(torch.rand(30, 5, 3), torch.arange(30) % 2)}


def test_a_strategy_follows_changes_and_tasks_that_come_later():
    network, data = small()
    data |= {"b": (torch.rand(30, 4, 6), torch.arange(30) % 3)}  # of another shape, without a head
    loop = StrategyLoop("ewc", network, data, batch=10, strength=3.0)
    xs, ys = data["a"].tensors
    loop.begin("a")
    loop.backward(cross_entropy(network("a", xs)[0], ys), {"a": (xs, ys)})
    loop.after_step()
    loop.end()
    anchors, _ = loop.strategy.anchors[0]
    loop.after_topology_change(network.attach(ModuleSpec("new", features=3, context=3)))
    loop.after_topology_change(network.add_task("b", TaskSpec(inputs=6, outputs=3)))
    assert loop.tasks["b"].spec.outputs == 3 and loop.trainable_tasks == {"a", "b"}
    assert all(anchors[n].shape == p.shape for n, p in network.named_parameters() if n in anchors)
    loop.begin("b")
    assert loop.strategy.penalty({}).detach() == 0.0


def test_a_class_and_a_task_with_its_own_loss_can_be_given():
    network, _ = small()
    network.add_task("n", TaskSpec(inputs=3, outputs=1))
    xs = torch.rand(30, 5, 3)
    pairs = dict.fromkeys(("train", "validation", "test"), (xs, xs.mean((1, 2))[:, None]))
    loop = StrategyLoop(
        ewc.EWC, network, {"n": SequenceTask("n", pairs, target="numbers")}, batch=9
    )
    loop.begin("n")
    loop.end()
    assert loop.strategy.anchors and isinstance(loop.strategy, Strategy)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda n, d: StrategyLoop("ewk", n, d), "unknown strategy 'ewk'.*'ewc'"),
        (lambda n, d: StrategyLoop("ewc", n, d, strenght=3), "Did you mean 'strength'"),
        (lambda n, d: StrategyLoop("ewc", n, d), "batch 50 is larger than the 30"),
        (lambda n, d: StrategyLoop("ewc", n, d, strength=-1.0), "strength: must be at least 0"),
        (lambda n, d: StrategyLoop("avalanche:ewc", n, d), "takes the steps itself"),
        (lambda n, d: StrategyLoop("ewc", n, {"a": 3}), "task 'a': expected a pair"),
        (lambda n, d: StrategyLoop("si", n, d).begin("b"), "unknown task 'b'"),
        (lambda n, d: StrategyLoop("si", n, d).begin(), "name the tasks"),
        (lambda n, d: StrategyLoop("si", n, d | {"b": d["a"]}).begin("b"), "task 'b'"),
        (lambda n, d: StrategyLoop("si", n, d).backward(torch.zeros(()), {}), "call begin"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(call, message):
    with pytest.raises(UserError, match=message) as error:
        call(*small())
    assert "\n" not in str(error.value)
