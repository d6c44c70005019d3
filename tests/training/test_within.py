"""Growth within a task: right where the answer is known, and without a trace of what lost."""

import pytest
import torch
from random_networks import assert_same
from switching_runs import GRU, snapshot, switching, trained

from thalnet_mtl import load_config
from thalnet_mtl.models.size import count_parameters
from thalnet_mtl.training.sampling import next_batches
from thalnet_mtl.training.search import race
from thalnet_mtl.training.search.edges import BATCHES, closed_edges, edge_evidence
from thalnet_mtl.training.search.race import Race
from thalnet_mtl.training.search.within import grow_within
from thalnet_mtl.training.setup import set_up
from thalnet_mtl.training.step import StepInputs


@pytest.fixture(scope="module")
def settled():
    """Return a run with one module and one rule that hardly learns any more."""
    return trained(switching(rules=1), 600)


def test_a_module_joins_where_rules_are_left_over():
    run = trained(switching(rules=2), 300)
    before, size = snapshot(run), count_parameters(run.network)
    rng = torch.get_rng_state()
    winner, decision = grow_within(run, "switching_dynamics", price=0.01, allowance=140)
    assert decision.about == "growth" and decision.step == 300
    chosen, keep = decision.chosen, decision.candidates[0]
    assert chosen.candidate == "module switching_dynamics_m2" and chosen.p_value <= 0.01
    assert chosen.score < keep.score and "lowers the loss" in decision.reason
    # The run is as it was; the winner has its own steps and parameters, and nothing else.
    assert_same(snapshot(run), before)
    assert torch.equal(torch.get_rng_state(), rng) and count_parameters(run.network) == size
    assert count_parameters(winner.state.network) == size + chosen.parameters
    held = {id(p) for group in winner.state.optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in winner.state.network.parameters()}
    assert set(winner.state.network.body.graph) == {"m1", "switching_dynamics_m2"}
    assert winner.state.step == 300 + chosen.steps == 300 + keep.steps
    assert decision.extra_steps <= 140


def test_nothing_joins_where_one_module_is_enough(settled):
    winner, decision = grow_within(settled, "switching_dynamics", price=0.01, allowance=60)
    assert decision.chosen.candidate == "keep" and not winner.changes
    assert "does not lower the loss" in decision.reason
    assert set(winner.state.network.body.graph) == {"m1"}
    assert count_parameters(winner.state.network) == count_parameters(settled.network)


def test_nothing_joins_where_the_targets_are_noise():
    run = switching(rules=2)
    for split in ("train", "validation"):  # as likely, and of another sequence
        ys = run.tasks["switching_dynamics"].split(split).ys
        ys.copy_(ys.roll(1, dims=0))
    winner, decision = grow_within(
        trained(run, 100), "switching_dynamics", price=0.005, allowance=60
    )
    assert decision.chosen.candidate == "keep" and not winner.changes
    assert decision.candidates[0].score > 0.95


def test_what_only_outruns_a_jump_of_the_loss_does_not_join(settled, monkeypatch):
    """The network as it is gets worse in its race, as it may at a constant rate."""
    advance = Race.advance

    def jump(within, entrant, steps):
        advance(within, entrant, steps)
        if entrant.candidate == "keep":
            entrant.losses = entrant.losses + 0.5

    monkeypatch.setattr(Race, "advance", jump)
    _, decision = grow_within(settled, "switching_dynamics", price=0.01, allowance=60)
    keep, module = decision.candidates
    assert keep.score - module.score > 0.4 and keep.chosen and module.p_value > 0.01


def test_the_learning_rate_falls_to_zero_in_the_race(settled, monkeypatch):
    rates = []

    def inputs(batches, rate):
        rates.append(rate)
        return StepInputs(batches, rate)

    monkeypatch.setattr(race, "StepInputs", inputs)
    _, decision = grow_within(settled, "switching_dynamics", price=0.01, allowance=60)
    steps = decision.candidates[0].steps
    expected = [settled.learning_rate() * (1 - k / steps) for k in range(steps)]
    assert steps > 20 and rates == pytest.approx(2 * expected)


def test_a_race_is_repeated_to_the_same_bits():
    run = trained(switching(rules=2, modules=2), 40)
    first, second = (
        grow_within(run, "switching_dynamics", price=0.01, allowance=60) for _ in range(2)
    )
    assert first[1] == second[1]
    assert_same(first[0].state.state_dict()["network"], second[0].state.state_dict()["network"])


def chain():
    """Return a run on digits in which the output module reads only itself and the input."""
    modules = {
        "low": {"input": True, "reads": ["low"]},
        "idle": {"reads": ["low"]},
        "high": {"output": True, "reads": ["low", "high", "idle"]},
    }
    sections = {
        "modules": modules,
        "model": {"features": 6, "reading": "linear"},
        "growth": {"modules": {"m": GRU}},
        "train": {"steps": 500, "batch": 32, "optimizer": "adam", "learning_rate": 0.01},
    }
    return set_up(load_config(task={"name": "digits_rows"}, **sections), fetch=print)


def test_gradients_of_closed_readings_are_those_of_opened_ones():
    run = trained(chain(), 20)
    edges = closed_edges(run.network, "digits_rows")
    assert set(edges) == {("low", "idle"), ("low", "high"), ("idle", "idle"), ("idle", "high")}
    before = snapshot(run)
    evidence = edge_evidence(run, "digits_rows")
    assert_same(snapshot(run), before)
    assert {(e.reader, e.source) for e in evidence} == set(edges)
    # By hand: one reading opened alone, the mean gradient over the same batches.
    (shown,) = [e for e in evidence if (e.reader, e.source) == ("idle", "high")]
    copied = run.copy()
    copied.network.route("idle", "high")
    weight = copied.network.body.cell("idle").reading.weight
    total = torch.zeros_like(weight)
    for _ in range(BATCHES):
        batch = next_batches(copied)["digits_rows"]
        outputs, _ = copied.network("digits_rows", batch.xs)
        loss = torch.nn.functional.cross_entropy(outputs, batch.ys)
        total += torch.autograd.grad(loss, weight)[0] / BATCHES
    places = copied.network.body.graph.opened_columns("idle")
    assert shown.norm == pytest.approx(float(total[:, places].norm()), rel=1e-4)


@pytest.mark.parametrize("reading", ["linear", "weight_norm", "fast_softmax", "fast_gaussian"])
def test_noise_speaks_for_no_reading(reading):
    """The targets are what the network answers, and noise: no weight has a mean gradient."""
    for factor in (1, 3):
        run = switching(model={"features": 3, "module": "gru", "reading": reading}, modules=3)
        split = run.tasks["switching_dynamics"].split("train")
        with torch.no_grad():
            answers, _ = run.network("switching_dynamics", split.xs)
        noise = torch.randn(answers.shape, generator=torch.Generator().manual_seed(0))
        split.ys.copy_(factor * answers + noise)
        evidence = edge_evidence(run, "switching_dynamics")
        assert len(evidence) == 6
        assert any(e.accepted for e in evidence) == (factor > 1), evidence
