"""A search for a loop of one's own decides as a run does, and is applied by hand."""

import pytest
import torch
from random_networks import assert_same
from search_streams import FIRST, MODULES, SMALL, at_the_race
from sklearn.datasets import load_digits
from torch.nn.functional import cross_entropy
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, TensorDataset
from toy_tasks import toy_kinds, toy_text

from thalnet_mtl import (
    ModuleSpec,
    Network,
    Search,
    SequenceTask,
    TaskSpec,
    ThalNet,
    UserError,
    registry,
    search,
)
from thalnet_mtl.models.stacked_gru import StackedGRU
from thalnet_mtl.registry import entries

XS, YS = map(torch.tensor, load_digits(return_X_y=True))
XS = XS.view(-1, 8, 8).float() / 16
DATA = (XS[:200], YS[:200]), (XS[1200:1400], YS[1200:1400])
TRAIN = {"batch": 20, "optimizer": "adam", "learning_rate": 0.01}


def fit(network, optimizer, task, xs, ys, steps):
    for k in range(steps):
        batch = torch.arange(32 * k, 32 * (k + 1)) % len(xs)
        optimizer.zero_grad()
        cross_entropy(network(task, xs[batch])[0], ys[batch]).backward()
        optimizer.step()


@pytest.fixture(scope="module")
def learned():
    """A network that has learned the digits."""
    torch.manual_seed(0)
    network = Network(ThalNet(inputs=8, modules=3, features=12))
    network.add_task("digits", TaskSpec(inputs=8, outputs=10))
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    fit(network, optimizer, "digits", XS[:1200], YS[:1200], 150)
    return network.state_dict(), network.describe()


@pytest.fixture
def network(learned):
    network = Network.from_description(learned[1])
    network.load_state_dict(learned[0])
    return network


def test_a_search_changes_nothing_and_is_the_same_for_the_same_seed(network):
    before, rng = network.state_dict(), torch.get_rng_state()
    weights = {name: value.clone() for name, value in before.items()}
    first = search(network, "again", DATA, budget=32, train=TRAIN)
    assert torch.equal(torch.get_rng_state(), rng)
    assert_same(dict(network.state_dict()), weights)
    assert list(network.adapters) == ["digits"] and network.training
    assert all(p.requires_grad and p.grad is None for p in network.parameters())
    torch.rand(7)
    again = search(network.eval(), "again", DATA, budget=32, train=TRAIN)
    assert again.record == first.record
    other = search(network, "again", DATA, budget=32, train=TRAIN | {"seed": 1})
    assert other.record != first.record
    kinds = {entry.candidate.split()[0] for entry in first.candidates}
    assert kinds == {"probe", "bottom", "top", "finetune", "alone", "all"}
    assert sorted(entry.steps for entry in first.candidates) == [0, 1, 1, 4, 4, 4]
    assert (
        first.cost == (32 + first.record.extra_steps) / 32
        and first.chosen.candidate in first.reason
    )


def test_what_is_there_is_reused_and_stays_as_it_is_to_the_bit(network):
    decision = search(network, "again", DATA, budget=256, train=TRAIN)
    assert decision.chosen.candidate in ("probe of digits", "finetune of digits"), str(decision)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.01, weight_decay=0.1)
    average = AveragedModel(network)
    network.bind(optimizer, average)
    before = network("digits", XS)[0]
    verbs = [change.verb for change in decision.apply(network)]
    assert verbs[0] == "freeze" and verbs[-1] == "add_task"
    # It goes on from where the winner of the race stands.
    winner = decision._outcome.winner.state.network
    assert torch.equal(network("again", XS)[0], winner("again", XS)[0])
    assert_same(dict(average.module.state_dict()), dict(network.state_dict()))
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in network.parameters() if p.requires_grad}
    fit(network, optimizer, "again", *DATA[0], steps=20)
    assert torch.equal(network("digits", XS)[0], before)
    correct = network("again", XS[1200:])[0].argmax(-1) == YS[1200:]
    assert correct.float().mean() > 0.6


@pytest.mark.parametrize("kind", ["probe", "bottom", "top", "finetune", "alone", "all"])
def test_each_candidate_is_applied_as_it_raced(network, kind, monkeypatch):
    class Only(Search):
        """The search for one kind of candidate."""

        def rank(self, entrants):
            return sorted(entrants, key=lambda entrant: entrant.candidate.kind != kind)

    entries("growth")
    monkeypatch.setitem(registry._entries["growth"], "only", Only)
    decision = search(network, "again", DATA, budget=1, train=TRAIN, growth={"when": "only"})
    assert decision.chosen.candidate.split()[0] == kind
    before = network("digits", XS)[0]
    rng = torch.get_rng_state()
    decision.apply(network, trained=False)
    assert torch.equal(torch.get_rng_state(), rng)
    untrained = decision._outcome.untrained.state.network
    assert_same(dict(network.state_dict()), dict(untrained.state_dict()))
    assert network.describe() == untrained.describe()
    assert torch.equal(network("digits", XS)[0], before)
    with pytest.raises(UserError, match="does not have the modules and tasks"):
        decision.apply(network)


def test_it_decides_as_a_run_does():
    run = at_the_race(FIRST, SMALL)
    expected = run.state.rule.decide("t2").record
    task = run.tasks["t2"]
    splits = {name: (split.xs.float(), split.ys) for name, split in task.splits.items()}
    again = SequenceTask("t2", splits, task.spec, scale=task.scale)
    train = TRAIN | {"batch": 32}
    found = search(run.network, again, budget=32, train=train, growth={"modules": MODULES})
    assert found.record.prior == expected.prior
    for one, two in zip(found.candidates, expected.candidates, strict=True):
        assert (one.candidate, one.parameters) == (two.candidate, two.parameters)
        if one.candidate == "probe of t1":  # nothing of it is drawn at random
            assert one == two


def test_a_loader_is_read_as_its_tensors(network):
    loaders = [DataLoader(TensorDataset(*part), batch_size=7) for part in DATA]
    found, expected = (search(network, "again", d, budget=1, train=TRAIN) for d in (loaders, DATA))
    assert found.record == expected.record


@pytest.mark.parametrize("kind", ["text", "labels", "numbers", "each"])
def test_a_task_may_be_a_short_text_or_have_any_target(kind):
    task = toy_text() if kind == "text" else toy_kinds(kind, lengths=True)
    network = Network(ThalNet(inputs=task.spec.input_width(), modules=3, features=6))
    network.add_task("old", task.spec)
    decision = search(network, task.named("new"), budget=4, train={"batch": 10, "chunk": 7})
    assert all(torch.isfinite(torch.tensor(entry.score)) for entry in decision.candidates)
    decision.apply(network)
    batch = task.load("cpu").training_batch(0, 10, 7, 0)
    assert network("new", batch.xs, None, batch.lengths)[0].shape[-1] == task.spec.outputs


def test_new_modules_are_like_the_last_one_or_as_told(network):
    network.attach(ModuleSpec("wide", features=20, context=5, module="gru", reading="linear"))
    decision = search(network, "again", DATA, budget=1, train=TRAIN, growth={"price": 1e9})
    assert decision.chosen.candidate == "probe of digits"
    graph = decision._run.state.rule
    growth = {"modules": {"eye": {"input": True, "output": True, "features": 7}}}
    told = search(network, "again", DATA, budget=1, train=TRAIN, growth=growth)
    names = [entry.candidate for entry in told.candidates]
    assert "alone" in names and "top of digits" not in names
    assert graph.run.config.model.features == 20 and graph.run.config.model.module == "gru"


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("digits", DATA), {}, "has a task 'digits' already"),
        (("again",), {}, "give the name of a task and its data"),
        ((SequenceTask("x", {k: DATA[0] for k in ("train", "validation", "test")}), DATA), {},
         "or a task that has data"),
        (("again", DATA), {"budget": 0}, "at least 1 step, got 0"),
        (("again", DATA), {"train": {"batch": 201}}, "batch 201 is larger than the 200"),
        (("again", DATA), {"train": {"batches": 2}}, "unknown field 'batches'.*Did you.*'batch'"),
        (("again", DATA), {"train": {"strategy": "ewc"}}, "train: unknown field 'strategy'"),
        (("again", DATA), {"growth": {"when": "per_task"}}, "'per_task' decides nothing"),
        (("again", DATA), {"growth": {"prize": 1}}, "unknown field 'prize'.*Did you mean 'price'"),
        (("again", DATA), {"growth": {"modules": {"a": {"input": True}}}}, "at least one output"),
        (("again", DATA[:1]), {}, "a pair, the training and the validation part"),
        (("again", DATA), {"spec": TaskSpec(8, 3)}, "class"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(network, arguments, options, message):
    with pytest.raises(UserError, match=message) as error:
        search(network, *arguments, **{"budget": 4} | options)
    assert "\n" not in str(error.value)


def test_a_body_without_modules_is_refused():
    network = Network(StackedGRU(8, 6, 1))
    with pytest.raises(UserError, match="only a ThalNet"):
        search(network, "again", DATA, budget=4)
