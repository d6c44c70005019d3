"""Modules are attached, frozen and detached while a network trains, as configured."""

import json

import kill_and_resume
import pytest
import torch
from run_fixtures import interrupt_at, lines
from stream_fixtures import scripted
from toy_tasks import GROWTH, JOINT, toy

from thalnet_mtl import load_model
from thalnet_mtl.errors import UserError
from thalnet_mtl.registry import registered
from thalnet_mtl.runs.records import read_run
from thalnet_mtl.strategies.base import Strategy
from thalnet_mtl.topology.spec import ModuleSpec
from thalnet_mtl.training.checkpoint import resume_run
from thalnet_mtl.training.sampling import next_batches
from thalnet_mtl.training.setup import set_up
from thalnet_mtl.training.step import StepInputs, TrainStep
from thalnet_mtl.training.topology_changes import on_topology_change
from thalnet_mtl.training.trainer import train

UNEQUAL = JOINT["modules"] | {"trunk": {"features": 9}}


PAIR = {  # one after another, with nothing in common
    "tasks": {"toy_rows": {}, "toy_wide": {}},
    "stream": [{"tasks": [name], "steps": 20} for name in ("toy_rows", "toy_wide")],
    "modules": {
        f"m_{name}": {"input": True, "output": True, "tasks": [name]}
        for name in ("toy_rows", "toy_wide")
    },
}


def test_changes_are_made_where_they_are_due_and_are_told(tmp_path):
    result = train(toy(**JOINT, changes=GROWTH), tmp_path).to_json()
    history = json.loads((tmp_path / "topology.json").read_text())["history"]
    assert [(x["step"], x["verb"]) for x in history] == [(c["step"], c["verb"]) for c in GROWTH]
    assert history[0]["about"] == "late, read by trunk, text"
    sizes = [x["parameters"] for x in history]
    assert sizes[0] < sizes[1] < sizes[2] == sizes[3] == sizes[4] > sizes[5]
    best = [x for x in history if x["step"] < result["best_step"]]
    assert result["parameters"]["total"] == best[-1]["parameters"]
    network = load_model(tmp_path / "model")
    assert "twin" in network.active_modules("toy_rows") and "twin" not in network.active_modules(
        "toy_text"
    )


def test_a_frozen_module_stands_still_while_the_others_learn(tmp_path):
    changes = [{"step": 20, "verb": "freeze", "name": "trunk"}]
    train(toy(**JOINT, changes=changes, train={"weight_decay": 0.1}), tmp_path)
    last = torch.load(tmp_path / "checkpoint" / "last.pt", weights_only=True)
    assert not any(".trunk." in name for name in last["optimizer"]["state"])
    config = toy(**JOINT, changes=changes, train={"weight_decay": 0.1})
    run = set_up(config, fetch=print)
    resume_run(tmp_path / "checkpoint" / "last.pt", run)
    frozen = [n for n, p in run.network.named_parameters() if not p.requires_grad]
    assert frozen and all(name.startswith("body.cells.trunk.") for name in frozen)


def test_modules_may_be_frozen_from_the_start(tmp_path):
    modules = JOINT["modules"] | {"trunk": {"frozen": True}}
    config = toy(**JOINT | {"modules": modules})
    before = set_up(config, fetch=print).network.state_dict()
    result = train(config, tmp_path).to_json()
    after = load_model(tmp_path / "model").state_dict()
    assert result["parameters"]["frozen"] > 0
    for name in before:
        if name.startswith("body.cells."):
            assert torch.equal(before[name], after[name]) == (".trunk." in name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"verb": "attach", "name": "trunk"}, "attach trunk after step 9: there is a module"),
        ({"verb": "detach", "name": "rows"}, "task 'toy_rows' needs module 'rows'"),
        ({"verb": "detach", "name": "trnk"}, "unknown module 'trnk'.*Did you mean 'trunk'"),
        ({"verb": "route", "name": "rows", "source": "absent"}, "unknown module 'absent'"),
        ({"verb": "route", "name": "rows", "source": "trunk"}, "reads 'trunk' already"),
        ({"verb": "atach", "name": "x"}, "unknown value 'atach'.*Did you mean 'attach'"),
        ({"verb": "attach"}, "every change needs a step, a verb and a name"),
        ({"verb": "attach", "name": "x", "module": {"tasks": ["toy"]}}, "unknown task 'toy'"),
        ({"verb": "attach", "name": "x", "module": {"features": 400}}, "over model.budget 50,000"),
        ({"verb": "attach", "name": "x", "step": 60}, "there are only 60 steps"),
        ({"verb": "clone", "name": "x"}, "clone x: it needs a source"),
        ({"verb": "attach", "name": "x", "module": {"output": True}},
         "input and output modules cannot be attached"),
        ({"verb": "clone", "name": "x", "source": "trunk", "module": {"tasks": ["toy"]}},
         "unknown task 'toy'"),
        ({"verb": "detach", "name": "trunk", "read_by": ["text"]}, "it takes no read_by"),
        ({"verb": "attach", "name": "x", "open": False}, "it takes no open"),
        ({"verb": "clone", "name": "x", "source": "rows", "module": {"features": 2}},
         "a clone can differ"),
    ],
)  # fmt: skip
def test_a_change_that_cannot_be_made_is_refused_before_anything_is_written(
    tmp_path, change, message
):
    with pytest.raises(UserError, match=message) as error:
        train(toy(**JOINT, changes=[{"step": 9} | change]), tmp_path / "run")
    assert "\n" not in str(error.value) and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"tasks": JOINT["tasks"], "model": {"body": "gru"}}, "only a ThalNet has modules"),
        (
            JOINT | {"modules": UNEQUAL, "model": {"features": 0}},
            "width .* is ambiguous",
        ),
    ],
)
def test_attaching_needs_modules_and_a_width(tmp_path, sections, message):
    with pytest.raises(UserError, match=message):
        train(toy(**sections, changes=GROWTH[:1]), tmp_path)


def test_a_name_that_is_a_task_and_a_module_is_not_guessed(tmp_path):
    modules = {"toy_rows": {"input": True, "output": True}, "trunk": {}}
    changes = [{"step": 9, "verb": "freeze", "name": "toy_rows"}]
    with pytest.raises(UserError, match="'toy_rows' is a task and a module"):
        train(toy(tasks=JOINT["tasks"], modules=modules, changes=changes), tmp_path)


@pytest.mark.parametrize("options", [{}, {"draw": 1.0}, {"combine": "upgrad"}])
def test_a_frozen_task_is_not_trained_and_stays_to_the_bit(tmp_path, options):
    freeze = [{"step": 10, "verb": "freeze", "name": "toy_rows"}]
    config = toy(**JOINT, changes=freeze, train=options, evaluate={"every": 10})
    train(config, tmp_path)
    later = {
        x["value"]
        for x in lines(tmp_path)
        if (x["task"], x["split"]) == ("toy_rows", "validation") and x["metric"] == "loss"
    }
    assert len(later) == 1  # six looks, all of them at the weights of step 10
    saved = torch.load(tmp_path / "checkpoint" / "last.pt", weights_only=True)
    assert saved["batches_seen"]["toy_rows"] <= 10 and sum(saved["batches_seen"].values()) >= 60


@pytest.mark.parametrize(("step", "task"), [(9, "toy_rows"), (9, "toy_wide"), (25, "toy_wide")])
def test_a_run_in_which_nothing_learns_any_more_is_refused(tmp_path, step, task):
    """Alone, or in an experience of a stream, be it a later one."""
    changes = [{"step": step, "verb": "freeze", "name": task}]
    sections = {} if (step, task) == (9, "toy_rows") else PAIR
    with pytest.raises(UserError, match=f"{task} after step {step}: nothing that {task} use"):
        train(toy(**sections, changes=changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_task_may_be_frozen_when_it_has_had_its_turn(tmp_path):
    changes = [{"step": 20, "verb": "freeze", "name": "toy_rows"}]
    assert train(toy(**PAIR, changes=changes), tmp_path).steps == 40


def test_a_run_ends_when_what_did_not_stop_early_is_frozen(tmp_path, monkeypatch):
    scripted(monkeypatch, {"toy_rows": [0.5, 0.4], "toy_text": [3.0, 2.9, 2.8]})
    changes = [{"step": 45, "verb": "freeze", "name": "toy_text"}]
    modules = {k: {"input": True, "output": True, "tasks": [name]} for k, name in
               zip("ab", JOINT["tasks"], strict=True)}  # fmt: skip
    sections = {"tasks": JOINT["tasks"], "modules": modules, "changes": changes}
    assert train(toy(**sections, train={"patience": 1}), tmp_path).steps == 45


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_what_is_attached_and_unread_leaves_the_others_way_as_it_was(tmp_path, dropout):
    """Also where dropout draws from the generator that new weights are drawn from."""
    new = [
        {"step": step, "verb": "attach", "name": f"new{step}", "module": {"features": 5}}
        for step in (20, 30)
    ]
    weights = []
    for changes in ([], new):
        folder = tmp_path / str(len(changes))
        train(toy(changes=changes, train={"dropout": dropout}), folder)
        saved = torch.load(folder / "checkpoint" / "last.pt", weights_only=True)
        weights.append(saved["network"])
    without, grown = weights
    assert all(torch.equal(weight, grown[name]) for name, weight in without.items())
    first, second = (grown[f"body.cells.new{step}.reading.weight"] for step in (20, 30))
    assert len(grown) > len(without) and not torch.equal(first[:, :18], second[:, :18])


def test_changes_are_rehearsed_in_the_order_of_their_steps(tmp_path):
    attach = {"step": 20, "verb": "attach", "name": "late", "read_by": ["trunk"]}
    detach = {"verb": "detach", "name": "late"}
    train(toy(**JOINT, changes=[detach | {"step": 40}, attach]), tmp_path / "run")
    history = json.loads((tmp_path / "run" / "topology.json").read_text())["history"]
    assert [x["verb"] for x in history] == ["attach", "detach"]
    with pytest.raises(UserError, match="detach late after step 10: unknown module 'late'"):
        train(toy(**JOINT, changes=[attach, detach | {"step": 10}]), tmp_path / "other")


def test_a_layer_can_be_inserted_once_its_slot_was_learned(tmp_path):
    modules = {"inp": {"input": True, "reads": ["inp"]}, "out": {"output": True, "reads": ["inp"]}}
    attach = {"step": 10, "verb": "attach", "name": "mid", "read_by": ["out"]}
    attach["module"] = {"reads": ["inp"]}
    close = {"verb": "route", "name": "out", "source": "inp", "open": False}
    train(toy(modules=modules, changes=[attach, close | {"step": 40}]), tmp_path / "run")
    with pytest.raises(UserError, match="would read nothing; train first"):
        train(toy(modules=modules, changes=[attach, close | {"step": 10}]), tmp_path / "other")


def test_reading_weights_keep_their_places_beside_a_module_that_no_task_runs(tmp_path):
    changes = [
        {"step": 10, "verb": "attach", "name": "idle", "module": {"features": 4}},
        {"step": 15, "verb": "attach", "name": "late", "read_by": ["trunk"]},
    ]
    changes[1]["module"] = {"reads": ["trunk", "late"]}
    train(toy(**JOINT, changes=changes, evaluate={"every": 60}), tmp_path)
    [record, _] = read_run(tmp_path).records
    weights, slots = record.run.reading_weights, record.run.slot_widths
    assert list(slots) == ["rows", "text", "trunk", "late"] == list(weights)
    assert {weight.shape[1] for weight in weights.values()} == {sum(slots.values())}
    whole = load_model(tmp_path / "model").body.reading_weights()["trunk"]
    assert (weights["trunk"][:, -6:] == whole[:, -6:].numpy()).all()


def test_a_run_whose_network_is_frozen_for_a_while_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    changes = [
        {"step": 10, "verb": "freeze", "name": "toy_rows"},
        {"step": 11, "verb": "freeze", "name": "toy_text"},
    ]
    with pytest.raises(UserError, match=r"nothing that .* can be trained"):
        train(toy(**JOINT, changes=changes), tmp_path / "no")
    changes[1] = {"step": 30, "verb": "unfreeze", "name": "toy_rows"}
    config = toy(**JOINT, changes=changes, train={"combine": "uncertainty"})
    train(config, tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        interrupt_at(15, patch)
        train(config, tmp_path / "cut")
    train(config, tmp_path / "cut")
    assert kill_and_resume.differences(tmp_path / "whole", tmp_path / "cut") == []


class Grower(Strategy):
    """A strategy that changes the network on its own, and may let the run follow."""

    follows = True

    def after_experience(self, experience):
        change = self.context.network.attach(ModuleSpec("own", 3, 3), read_by=["output"])
        if self.follows:
            on_topology_change(self.context, change)


@pytest.mark.parametrize("follows", [True, False])
def test_a_strategy_that_changes_the_network_has_to_let_the_run_follow(monkeypatch, follows):
    monkeypatch.setattr(Grower, "follows", follows)
    with registered("strategy", {"grower": Grower}):
        stream = [{"tasks": ["toy_rows"], "steps": 5}, {"tasks": ["toy_turned"], "steps": 5}]
        tasks = {"toy_rows": {}, "toy_turned": {}}
        run = set_up(toy(tasks=tasks, stream=stream, train={"strategy": "grower"}), fetch=print)
    train_step = TrainStep(run)

    def step():
        train_step(StepInputs(next_batches(run), 0.01))
        run.state.step += 1

    for _ in range(5):
        step()
    run.state.strategy.after_experience(run.stream[0])
    if not follows:
        with pytest.raises(UserError, match="has not been told that the network has changed"):
            step()
        return
    weights = {name: p.detach().clone() for name, p in run.network.named_parameters()}
    for _ in range(2):
        step()
    for name, parameter in run.network.named_parameters():
        if "cells.own" in name or "cells.output" in name:
            assert not torch.equal(parameter, weights[name]), name


def test_a_task_that_is_removed_and_added_starts_without_its_old_state():
    run = set_up(toy(**JOINT), fetch=print)
    train_step = TrainStep(run)
    for _ in range(2):
        train_step(StepInputs(next_batches(run), 0.01))
        run.state.step += 1
    assert "toy_text" in run.state.carried_states
    on_topology_change(run, run.network.remove_task("toy_text"))
    assert "toy_text" not in run.state.carried_states
    on_topology_change(run, run.network.attach(ModuleSpec("new", 3, 3), read_by=["text"]))
    on_topology_change(run, run.network.add_task("toy_text", run.tasks["toy_text"].spec))
    train_step(StepInputs(next_batches(run), 0.01))
    assert "toy_text" in run.state.carried_states
