"""The search decides what a new task gets: rightly where the answer is known, and repeatably."""

import json
from dataclasses import replace

import pytest
import torch
from random_networks import assert_same
from search_streams import FIRST, MODULES, SMALL, at_the_race, stream_of

from thalnet_mtl import load_run, train
from thalnet_mtl.cli import main
from thalnet_mtl.errors import UserError
from thalnet_mtl.models.size import count_parameters
from thalnet_mtl.signals import StopRequested
from thalnet_mtl.topology.spec import ModuleSpec
from thalnet_mtl.training import context
from thalnet_mtl.training.checkpoint import load_checkpoint
from thalnet_mtl.training.search.candidates import KINDS, Candidate
from thalnet_mtl.training.search.race import Entrant, Race, ranked
from thalnet_mtl.training.setup import set_up
from thalnet_mtl.training.trainer import Interrupted


def candidates_of(folder):
    """Return the candidates of the only decision of a run by name, and the chosen one."""
    [decision] = json.loads((folder / "topology.json").read_text())["decisions"]
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
    train(stream_of(FIRST, task), tmp_path / "run")
    entries, chosen = candidates_of(tmp_path / "run")
    assert chosen in right, entries
    assert {name.split()[0] for name in entries} == set(KINDS)
    assert main(["inspect", str(tmp_path / "run")]) == 0
    assert f"{chosen} " in capsys.readouterr().out
    steps = sum(entry["steps"] for entry in entries.values())
    assert 256 + steps - entries[chosen]["steps"] <= 1.3 * 256


def test_a_task_of_another_shape_gets_modules_of_its_own(tmp_path):
    train(stream_of(FIRST, SMALL | {"steps_joined": 2}, steps=64), tmp_path / "run")
    assert set(candidates_of(tmp_path / "run")[0]) == {"alone", "all"}


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
    assert winner.state.step == 32 + winner.steps == 32 + 4
    assert sorted(entry.steps for entry in record.candidates) == [1, 1, 1, 1, 4, 4]


def test_a_copy_of_a_run_counts_no_multiply_adds_again_until_they_change(tmp_path, monkeypatch):
    run, counted = at_the_race(tmp_path, FIRST, SMALL), []
    count = context.count_macs
    monkeypatch.setattr(context, "count_macs", lambda *inputs: counted.append(1) or count(*inputs))
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

    def stop(self, entrant, steps):
        calls.append(steps)
        if len(calls) == 1 + 2 * number:
            raise StopRequested
        advance(self, entrant, steps)

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
