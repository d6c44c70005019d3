"""Runs that grow within tasks and are pruned: old tasks stay, stops resume, the cost is bounded."""

import json

import pytest
import torch
from random_networks import assert_same

from thalnet_mtl import load_config, train
from thalnet_mtl.cli import main
from thalnet_mtl.errors import Interrupted, UserError
from thalnet_mtl.models.network import Network
from thalnet_mtl.signals import StopRequested
from thalnet_mtl.training.checkpoint import load_checkpoint
from thalnet_mtl.training.growth.base import grow_if_due
from thalnet_mtl.training.sampling import next_batches
from thalnet_mtl.training.search import edges
from thalnet_mtl.training.search.budget import Budget
from thalnet_mtl.training.search.race import Race
from thalnet_mtl.training.setup import set_up
from thalnet_mtl.training.step import StepInputs, TrainStep

MODULES = {"low": {"input": True}, "high": {"output": True}}
# At this price no module joins, so that a reading is tried next.
WITHIN = {
    "when": "search",
    "every": 40,
    "prune": True,
    "cost": 2.2,
    "price": 0.4,
    "modules": MODULES,
}
STREAM = {
    "tasks": {
        "t1": {"name": "digits_rows"},
        "t2": {"name": "variant", "of": "digits_rows", "label_order": 7},
    },
    "stream": [{"tasks": ["t1"]}, {"tasks": ["t2"]}],
    "modules": {"low": {"input": True, "reads": ["low"]}, "high": {"output": True}},
    "model": {"features": 6},
    "growth": WITHIN,
    "train": {"steps": 130, "batch": 32, "optimizer": "adamw", "learning_rate": 0.01, "clip": 1},
    "evaluate": {"every": 65, "log_every": 65, "batches": 1},
}
CALLS = {"losses": 26, "gradients": 16}  # in the whole run


def configured(**sections):
    """Return the configuration of the stream with other options."""
    merged = {name: {**STREAM.get(name, {}), **options} for name, options in sections.items()}
    return load_config(**STREAM | merged)


def decisions_of(folder):
    return json.loads((folder / "topology.json").read_text())["decisions"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return the folder of a run that nothing has stopped."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(configured(), folder)
    return folder


def test_every_decision_is_recorded_and_its_cost_is_bounded(whole, capsys):
    decisions = decisions_of(whole)
    steps = [(d["about"], d["step"]) for d in decisions if d["about"] != "pruning"]
    first, second = ([("growth", start + step) for step in (40, 80)] for start in (0, 130))
    assert steps == [*first, ("task", 130), *second]
    assert [d["step"] for d in decisions if d["about"] == "pruning"] == [126]  # t2 has a head only
    for decision in decisions:
        (chosen,) = [c for c in decision["candidates"] if c["chosen"]]
        assert decision["reason"] and (chosen["steps"] > 0 or decision["about"] != "growth")
        tested = [c for c in decision["candidates"] if c["p_value"] is not None]
        assert len(tested) == (len(decision["candidates"]) - 1) * (decision["about"] != "task")
    extra = sum(
        decision["gradients"] + sum(c["steps"] for c in decision["candidates"] if not c["chosen"])
        for decision in decisions
    )
    assert 0 < extra <= 1.2 * 260
    assert main(["inspect", str(whole)]) == 0
    assert "keep" in capsys.readouterr().out
    metrics = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    validated = {entry["step"] for entry in metrics if entry["split"] == "validation"}
    winners = [d["step"] + c["steps"] for d in decisions for c in d["candidates"] if c["chosen"]]
    assert {130, 260, winners[0]} <= validated  # a race has passed the validation at step 65


@pytest.mark.parametrize(("kind", "number"), [("gradients", 7), ("losses", 7), ("losses", -1)])
def test_a_stop_in_a_decision_resumes_to_the_same_bits(kind, number, whole, tmp_path, monkeypatch):
    owner, name = (Race, "losses") if kind == "losses" else (edges, "loss_gradients")
    original, calls = getattr(owner, name), []

    def stop(*arguments):
        calls.append(name)
        if len(calls) == 1 + number % CALLS[kind]:
            torch.rand(3)  # in the middle: what has changed so far must not stay
            raise StopRequested
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, stop)
        with pytest.raises(Interrupted):
            train(configured(), tmp_path / "run")
    train(configured(), tmp_path / "run")
    for part in ("network", "optimizer", "rng", "batches_seen", "growth"):
        stopped, expected = (
            load_checkpoint(folder / "checkpoint" / "last.pt")[part]
            for folder in (tmp_path / "run", whole)
        )
        assert_same(stopped, expected)
    assert decisions_of(tmp_path / "run") == decisions_of(whole)


def test_an_earlier_task_answers_the_same_to_the_bit_through_races_and_pruning():
    run = set_up(configured(growth={"price": 0.02}), fetch=print)
    train_step, xs, before = TrainStep(run), None, None
    while run.step < run.total_steps:
        grow_if_due(run)
        if run.step >= 130:
            if before is None:
                assert run.network.adapter("t1").spec.frozen
                xs = next(run.tasks["t1"].iterate("test", 99, 1)).xs
                before = run.network("t1", xs)[0]
            assert torch.equal(run.network("t1", xs)[0], before)
        train_step(StepInputs(next_batches(run), run.learning_rate()))
        run.state.step += 1
    assert torch.equal(run.network("t1", xs)[0], before)
    abouts = {d["about"] for d in run.state.growth.decisions}
    assert {"task", "growth"} <= abouts and "t1_low2" in run.network.body.graph
    held = {id(p) for group in run.state.optimizer.param_groups for p in group["params"]}
    trained = {id(p) for p in run.network.parameters() if p.requires_grad}
    assert held == trained | {id(p) for p in run.state.weighting.parameters()}
    described = Network.from_description(run.network.describe()).state_dict()
    assert {n: v.shape for n, v in described.items()} == {
        n: v.shape for n, v in run.network.state_dict().items()
    }


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"growth": {"cost": 1.3}}, r"growth.every 40: .* leaves 5 steps .* raise growth.cost to"),
        ({"growth": {"every": 0, "cost": 1.15}}, "growth.prune: growth.cost 1.15 leaves nothing"),
        ({"growth": {"every": -1}}, "growth.every"),
        ({"growth": {"harm": -0.1}}, "growth.harm"),
        ({"growth": {"cost": 0.5}}, "growth.cost"),
    ],
)
def test_options_that_do_not_fit_are_refused(sections, message):
    with pytest.raises(UserError, match=message):
        set_up(configured(**sections), fetch=print)


def test_the_cost_that_is_proposed_is_enough():
    with pytest.raises(UserError, match=r"growth.cost to (\S+),") as refused:
        set_up(configured(growth={"cost": 1.3}), fetch=print)
    proposed = float(str(refused.value).partition("growth.cost to ")[2].partition(",")[0])
    set_up(configured(growth={"cost": proposed}), fetch=print)
    with pytest.raises(UserError, match="leaves"):
        set_up(configured(growth={"cost": proposed - 0.02}), fetch=print)


def test_tasks_that_are_trained_together_are_refused():
    config = load_config(**STREAM | {"stream": [{"tasks": ["t1", "t2"]}]})
    with pytest.raises(UserError, match="t1 and t2 are trained together"):
        set_up(config, fetch=print)


def test_nothing_joins_over_the_budget_of_parameters(tmp_path):
    size = set_up(configured(), fetch=print).network
    count = sum(p.numel() for p in size.parameters())
    alone = {name: STREAM[name] for name in ("modules", "model", "train", "evaluate", "growth")}
    config = load_config(
        **alone | {"task": {"name": "digits_rows"}, "model": {"features": 6, "budget": count}}
    )
    with pytest.raises(UserError, match=r"over model\.budget"):
        set_up(config, fetch=print)


def test_a_race_begins_with_the_winner_in_time_to_go_on():
    (experience,) = set_up(
        load_config(task={"name": "digits_rows"}, train={"steps": 1000}), fetch=print
    ).stream
    budget = Budget(every=300, prune=True, cost=1.3, spent=0.0)
    steps = range(1000)
    assert [step for step in steps if budget.grows(experience, step)] == [300, 600]
    assert [step for step in steps if budget.prunes(experience, step)] == [979]
    assert budget.settling(experience) == 20 and budget.allowance == 84
    never = Budget(every=0, prune=False, cost=1.3, spent=0.25)
    assert not any(
        never.grows(experience, step) or never.prunes(experience, step) for step in steps
    )
