"""The search decides what a new task gets: rightly where the answer is known, and repeatably."""

import json
from dataclasses import replace

import pytest
import torch
from random_networks import assert_same
from search_streams import FIRST, MODULES, SMALL, at_the_race, stream_of
from switching_runs import trained

from thalnet_mtl import Network, TaskSpec, ThalNet, load_run, train
from thalnet_mtl.cli import main
from thalnet_mtl.errors import Interrupted, UserError
from thalnet_mtl.models import cost
from thalnet_mtl.models.size import count_parameters
from thalnet_mtl.signals import StopRequested
from thalnet_mtl.tasks.batch import Batch
from thalnet_mtl.tasks.sequences import SequenceTask
from thalnet_mtl.topology.spec import ModuleSpec
from thalnet_mtl.training.checkpoint import load_checkpoint
from thalnet_mtl.training.search.candidates import Candidate, reusable
from thalnet_mtl.training.search.kinds import KINDS
from thalnet_mtl.training.search.prior import reordered
from thalnet_mtl.training.search.race import Entrant, Race, ranked
from thalnet_mtl.training.search.related import is_stranger
from thalnet_mtl.training.setup import set_up


def decision_of(folder):
    """Return the only decision of a run."""
    [decision] = json.loads((folder / "topology.json").read_text())["decisions"]
    return decision


def candidates_of(folder):
    """Return the candidates of the only decision of a run by name, and the chosen one."""
    decision = decision_of(folder)
    entries = decision["candidates"]
    (chosen,) = [entry["candidate"] for entry in entries if entry["chosen"]]
    return {entry["candidate"]: entry for entry in entries}, chosen


ANSWERS = {
    "the same task again": (SMALL, {"probe of t1", "finetune of t1"}),
    "other labels": (SMALL | {"label_order": 7}, {"probe of t1", "top of t1"}),
    "nothing to learn": (SMALL | {"random_labels": 1}, {"probe of t1", "bottom of t1"}),
}


@pytest.mark.parametrize("case", ANSWERS)
def test_the_right_parts_are_reused(case, tmp_path, capsys):
    task, right = ANSWERS[case]
    config = stream_of(FIRST, task)
    first = replace(config.stream[0], steps=1_024)  # what is reused must be worth it
    train(replace(config, stream=(first, config.stream[1])), tmp_path / "run")
    entries, chosen = candidates_of(tmp_path / "run")
    assert chosen in right, entries
    assert {name.split()[0] for name in entries} == set(KINDS)
    assert main(["inspect", str(tmp_path / "run")]) == 0
    assert f"{chosen} " in capsys.readouterr().out
    steps = sum(entry["steps"] for entry in entries.values()) - entries[chosen]["steps"]
    assert 256 + steps - decision_of(tmp_path / "run")["skipped"] <= 1.3 * 256


def test_a_path_that_knows_nothing_about_a_task_is_not_reused():
    run = trained(set_up(stream_of(FIRST, SMALL, steps=1_024), fetch=print), 1_024)
    run.network.freeze(task="t1").update_optimizer(run.state.optimizer)
    run.forget_trainable_tasks()
    pixels = torch.randperm(64, generator=torch.Generator().manual_seed(99))
    for split in ("train", "validation"):
        xs = run.tasks["t2"].split(split).xs
        xs.copy_(xs.flatten(1)[:, pixels].view_as(xs))
    record = run.state.rule.decide("t2").record
    assert [entry.candidate for entry in record.candidates] == ["alone"]
    assert f"a head on t1 leaves {record.prior['t1']:.3f} of the loss" in record.reason
    assert "so that there is nothing to reuse" in record.reason
    assert record.extra_steps == 0
    run.state.rule.orders = 0  # as rules may choose
    assert len(run.state.rule.decide("t2").record.candidates) == len(KINDS)


def test_a_path_is_a_stranger_unless_its_loss_is_below_all_of_the_null():
    null = [0.80, 0.84, 0.82]
    for loss, stranger in {0.9: True, 0.81: True, 0.80: True, 0.79: False, 0.1: False}.items():
        assert is_stranger(loss, null) == stranger, loss
    assert not is_stranger(1.0, [0.99, 1.01, 1.0])  # no better than guessing: who knows
    assert is_stranger(0.97, [0.86, 0.97, 0.9])  # the path says a little about any inputs


@pytest.mark.parametrize("every_step", [False, True])
def test_inputs_have_the_same_order_in_all_sequences(every_step):
    task = SequenceTask("rows", {}, TaskSpec(5, 2, every_step=every_step, steps=4))
    xs = torch.arange(20.0).view(4, 5) + 100 * torch.arange(3.0)[:, None, None]
    first, again, other = (
        reordered(task, Batch(xs, torch.zeros(3), True), number).xs for number in (1, 1, 2)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(first - first[0], xs - xs[0]) and not torch.equal(first, xs)
    assert torch.equal(first.flatten(1).sort(1).values, xs.flatten(1))
    rows = torch.equal(first.sort(-1).values, xs)  # each step keeps its numbers
    assert rows == every_step


def test_tokens_stand_for_others_in_another_order():
    text = SequenceTask("text", {}, TaskSpec(5, 5, tokens=True))
    tokens = torch.tensor([[0, 1, 2, 3, 4, 0]])
    (renamed,) = reordered(text, Batch(tokens, tokens, True), 1).xs.tolist()
    assert sorted(renamed[:5]) == [0, 1, 2, 3, 4] != renamed[:5] and renamed[0] == renamed[5]


def test_a_path_reads_rows_of_another_width_through_an_encoder(tmp_path):
    train(stream_of(FIRST, SMALL | {"inputs_averaged": 2}), tmp_path / "run")
    entries, chosen = candidates_of(tmp_path / "run")
    assert set(entries) == {"bottom of t1", "alone", "all"} and chosen == "bottom of t1"


def test_only_paths_that_can_read_the_inputs_are_reused():
    rows = TaskSpec(8, 10, steps=8)
    network = Network(ThalNet(modules=[ModuleSpec("m", 4, 2, inputs=8, output=True)]))
    network.add_task("rows", rows)
    network.add_task("narrow", replace(rows, inputs=4))
    network.add_task("tokens", TaskSpec(8, 8, tokens=True))
    assert reusable(network, replace(rows, inputs=16)) == ["rows", "narrow"]
    assert reusable(network, TaskSpec(8, 2, tokens=True)) == ["tokens"]
    assert reusable(network, TaskSpec(9, 2, tokens=True)) == []


@pytest.mark.parametrize(
    ("kind", "width"), [("probe", 8), ("bottom", 8), ("finetune", 8), ("bottom", 4)]
)
def test_a_reused_path_begins_with_the_features_that_its_head_was_fitted_to(kind, width, tmp_path):
    run = at_the_race(FIRST, SMALL, SMALL | {"inputs_averaged": 8 // width})
    # The second task has a learned encoder, which a reused path must not lose.
    second = run.network.add_task("t2", run.tasks["t2"].spec, encode=True)
    second.update_optimizer(run.state.optimizer)
    (encoder,) = run.network.adapter("t2").encoders.values()
    torch.nn.init.normal_(encoder.weight, std=0.3)
    race = Race(run, "t3", price=0.0)
    entrant = race.enter(Candidate(kind, "t2"))
    xs = next(run.tasks["t3"].iterate("test", 99, 1)).xs
    features, _ = entrant.state.network.features("t3", xs)
    wide = torch.nn.functional.interpolate(xs, 8, mode="linear")
    assert torch.allclose(features, run.network.features("t2", wide)[0], atol=1e-6)
    assert torch.equal(entrant.state.network.adapter("t3").head.weight, race.fits["t2"].head.weight)


def test_a_race_leaves_the_run_and_the_earlier_task_alone(tmp_path):
    run = at_the_race(FIRST, SMALL)
    state, rng = run.state, torch.get_rng_state()
    weights = {name: value.clone() for name, value in run.network.state_dict().items()}
    xs = next(run.tasks["t1"].iterate("test", 99, 1)).xs
    before = run.network("t1", xs)[0]
    winner, _, record, _ = run.state.rule.decide("t2")
    assert run.state is state and run.step == 32
    assert torch.equal(torch.get_rng_state(), rng)
    assert all(torch.equal(value, weights[n]) for n, value in run.network.state_dict().items())
    assert torch.equal(winner.state.network("t1", xs)[0], before)
    # The winner has what its candidate adds, and nothing of the others.
    size = count_parameters(run.network) + winner.parameters
    assert count_parameters(winner.state.network) == size
    held = {id(p) for group in winner.state.optimizer.param_groups for p in group["params"]}
    trained = {id(p) for p in winner.state.network.parameters() if p.requires_grad}
    assert held == trained
    assert winner.state.step == 32 + winner.steps + winner.skipped == 32 + 4
    assert sorted(entry.steps for entry in record.candidates) == [0, 1, 1, 4, 4, 4]


def test_a_copy_of_a_run_counts_no_multiply_adds_again_until_they_change(tmp_path, monkeypatch):
    run, counted = at_the_race(FIRST, SMALL), []
    count = cost.count_macs
    monkeypatch.setattr(cost, "count_macs", lambda *inputs: counted.append(1) or count(*inputs))
    small = run.multiply_adds("t1")
    with run.having(run.copy_state(run)):
        assert run.multiply_adds("t1") == small and len(counted) == 1
        run.network.unfreeze(task="t1")
        run.network.attach(ModuleSpec("more", features=3, context=3), read_by=["high"])
        assert run.multiply_adds("t1") > small and len(counted) == 2


def test_candidates_train_on_the_same_batches_from_the_same_random_state(tmp_path):
    run = at_the_race(FIRST, SMALL)
    race = Race(run, "t2", price=0.0)
    first, second = (race.enter(Candidate("alone")) for _ in range(2))
    other = race.enter(Candidate("all"))
    for entrant in (first, other, second):
        race.advance(entrant, 5)
    assert torch.equal(first.losses, second.losses)
    weights = first.state.network.state_dict()
    again = second.state.network.state_dict()
    assert all(torch.equal(value, again[name]) for name, value in weights.items())
    assert not torch.equal(first.losses, other.losses)


@pytest.mark.parametrize("number", range(5))
def test_a_race_that_is_stopped_is_run_again_to_the_same_bits(number, tmp_path, monkeypatch):
    config = stream_of(FIRST, SMALL, steps=32)
    train(config, tmp_path / "whole")
    advance, calls = Race.advance, []

    def stop(self, entrant, steps, train=True):
        calls.append(steps)
        if len(calls) == 1 + 2 * number:
            raise StopRequested
        advance(self, entrant, steps, train)

    with monkeypatch.context() as patch:
        patch.setattr(Race, "advance", stop)
        if number < 4:  # a race has eight
            with pytest.raises(Interrupted):
                train(config, tmp_path / "stopped")
    train(config, tmp_path / "stopped")
    for key in ("network", "optimizer", "rng"):
        whole, stopped = (
            load_checkpoint(tmp_path / name / "checkpoint" / "last.pt")[key]
            for name in ("whole", "stopped")
        )
        assert_same(stopped, whole)
    assert candidates_of(tmp_path / "whole") == candidates_of(tmp_path / "stopped")


def entrant(name, parameters, losses):
    losses = torch.tensor(losses, dtype=torch.float64)
    return Entrant(name, None, None, [], parameters, losses=losses)


def test_a_tie_goes_to_fewer_parameters():
    large, small = entrant("large", 9, [0.1, 0.3, 0.2]), entrant("small", 1, [0.3, 0.1, 0.21])
    assert [e.candidate for e in ranked([large, small])] == ["small", "large"]
    better = entrant("better", 9, [0.1, 0.1, 0.1])
    assert [e.candidate for e in ranked([small, better])] == ["better", "small"]
    small.price, better.price = 0.0, 0.5
    assert [e.candidate for e in ranked([small, better])] == ["small", "better"]
    failed = entrant("failed", 0, [float("nan"), 0.1, 0.1])
    assert [e.candidate for e in ranked([failed, large])] == ["large", "failed"]


def test_one_that_reuses_nothing_and_the_probe_stay_in_the_race():
    names = ["probe of t1", "bottom of t1", "finetune of t1", "top of t1", "all", "alone"]
    entrants = []
    for rank, name in enumerate(names):
        kind, _, source = name.partition(" of ")
        entrants.append(entrant(Candidate(kind, source), 1, [float(rank)] * 3))
    rule = set_up(stream_of(FIRST, SMALL, steps=32), fetch=print).state.rule
    went_on = [str(each.candidate) for each in rule.best(entrants[::-1], 3)]
    assert went_on == ["bottom of t1", "finetune of t1", "all", "probe of t1"]
    assert [str(each.candidate) for each in rule.best(entrants, 1)] == ["probe of t1"]


@pytest.mark.parametrize("images", [3, 14])
def test_few_validation_sequences_are_compared_one_by_one(images):
    task = SMALL | {"validation_per_class": images}
    run = at_the_race(FIRST, task)
    with run.having(Race(run, "t2").enter(Candidate("alone")).state):
        assert len(Race(run, "t2").losses()) == {3: 30, 14: 20}[images]


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"growth": {"policy": "shared"}}, "growth.when 'search' freezes older tasks"),
        ({"growth": {"modules": {"low": {"output": False}, "high": {"output": False}}}}, "output"),
        ({"growth": {"modules": {**MODULES, "side": {"reads": ["low"]}}}}, "leave out tasks and"),
        ({"model": {"budget": 3_000}}, r"experience \d makes .* over model.budget 3,000"),
    ],
)
def test_what_cannot_be_searched_is_refused(sections, message):
    with pytest.raises(UserError, match=message):
        set_up(stream_of(FIRST, SMALL, SMALL, **sections), fetch=print)


def test_two_new_tasks_at_once_are_refused():
    config = stream_of(FIRST, SMALL, SMALL)
    last = replace(config.stream[1], tasks=("t2", "t3"))
    joint = replace(config, stream=(config.stream[0], last))
    with pytest.raises(UserError, match="'t2' and 't3' are both new"):
        set_up(joint, fetch=print)


def test_a_searched_network_is_saved_with_its_encoders(tmp_path):
    train(stream_of(FIRST, SMALL | {"label_order": 7}, steps=32), tmp_path / "run")
    network = load_run(tmp_path / "run").network
    assert set(network.adapters) == {"t1", "t2"}
