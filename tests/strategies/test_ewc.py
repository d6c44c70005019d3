"""Elastic weight consolidation against the formulas of its papers, in plain PyTorch."""

from copy import deepcopy

import pytest
import torch
from stream_fixtures import (
    THREE,
    TWO,
    assert_same_weights,
    batches,
    follow_optimizer,
    make_run,
    step_until,
    train_plainly,
)
from torch.nn import functional as F

from thalnet_mtl.strategies import ewc
from thalnet_mtl.strategies.ewc import fisher_information


def record_draws(monkeypatch):
    draws = []
    real = torch.multinomial

    def watching(odds, *args, **options):
        labels = real(odds, *args, **options)
        draws.append((odds.double(), labels.flatten()))
        return labels

    monkeypatch.setattr(torch, "multinomial", watching)
    return draws


def test_the_fisher_information_of_softmax_regression_is_its_closed_form(monkeypatch):
    run = make_run("ewc")
    monkeypatch.setattr(ewc, "SAMPLES", 2100)  # every sequence seven times
    draws = record_draws(monkeypatch)
    fisher = fisher_information(run, "a")
    xs = torch.cat([xs[:, -1] for xs, _ in batches(run, "a", 210)]).double()
    head = run.network.adapter("a").head
    odds = (xs @ head.weight.T + head.bias).softmax(-1).detach()
    torch.testing.assert_close(torch.cat([odds for odds, _ in draws]), odds, rtol=1e-5, atol=1e-6)
    error = F.one_hot(torch.cat([drawn for _, drawn in draws]), 3) - odds
    # Of the very answers that were drawn it is exact,
    exact = {
        "adapters.a.head.bias": error.square().mean(0),
        "adapters.a.head.weight": (error[:, :, None] * xs[:, None]).square().mean(0),
        "body.scale": ((error @ head.weight.detach()) * xs).square().mean(0),
    }
    assert fisher.keys() == exact.keys()
    for name, value in exact.items():
        torch.testing.assert_close(fisher[name], value, rtol=1e-4, atol=1e-7)
    # and on average over all answers p (1 - p) x², as in any book.
    closed = (odds * (1 - odds))[:, :, None] * xs.square()[:, None]
    sampled = (error[:, :, None] * xs[:, None]).square()
    sure = 4 * (sampled - closed).std(0) / 2100**0.5
    assert ((fisher["adapters.a.head.weight"] - closed.mean(0)).abs() < sure).all()
    assert (sure < 0.6 * closed.mean(0)).all()


def test_the_answers_of_a_fisher_information_are_the_networks_own(monkeypatch):
    run = make_run("ewc")
    with torch.no_grad():  # as good as never class 0, which a third of all sequences have
        run.network.adapter("a").head.bias[0] = -50
    assert fisher_information(run, "a")["adapters.a.head.bias"][0] < 1e-12


def test_the_fisher_information_of_a_text_is_that_of_whole_sequences(monkeypatch):
    sections = {"tasks": {"toy_text": {}}, "stream": [{"tasks": ["toy_text"], "steps": 5}]}
    run = make_run("ewc", sections)
    draws = record_draws(monkeypatch)
    fisher = fisher_information(run, "toy_text")["adapters.toy_text.head.weight"]
    squares = []
    xs = torch.cat([xs for xs, _ in batches(run, "toy_text", 20)])[:200]
    assert len(draws) == 200
    for tokens, (odds, drawn) in zip(xs, draws, strict=True):
        rows = F.one_hot(tokens, 5).double() * 5**0.5
        error = F.one_hot(drawn, 5) - odds
        squares.append((error.T @ rows).square())  # first the sum over time, then the square
    torch.testing.assert_close(fisher, torch.stack(squares).mean(0), rtol=1e-4, atol=1e-6)


def test_the_fisher_information_of_tasks_learned_together_is_their_sum():
    run = make_run("ewc", {"tasks": TWO["tasks"], "stream": [{"tasks": ["a", "b"], "steps": 3}]})
    parts = [fisher_information(run, task)["body.scale"] for task in "ab"]
    run.state.strategy.after_experience(run.experience)
    [(_, weight)] = run.state.strategy.anchors
    assert torch.equal(weight["body.scale"], parts[0] + parts[1])


def record_penalties(monkeypatch, run):
    """The weights after each experience with its Fisher information, as EWC is published."""
    recorded, real = [], fisher_information

    def watching(context, task):
        weights = {n: p.detach().clone() for n, p in context.network.named_parameters()}
        recorded.append((weights, real(context, task)))
        return {name: value.clone() for name, value in recorded[-1][1].items()}

    monkeypatch.setattr(ewc, "fisher_information", watching)
    return recorded


@pytest.mark.parametrize("body", ["toy_scale", "gru"])
def test_ewc_trains_as_a_plain_loop_with_a_penalty_for_every_experience(monkeypatch, body):
    run = make_run("ewc", THREE, body)
    recorded = record_penalties(monkeypatch, run)
    step_until(run, 24)
    network = deepcopy(run.network)
    optimizer = follow_optimizer(run, network)
    assert len(recorded) == 2

    def penalty(network, xs):
        now = dict(network.named_parameters())
        return (
            3
            / 2
            * sum(
                (weight[n] * (now[n] - anchor[n]) ** 2).sum()
                for anchor, weight in recorded[:2]
                for n in weight
            )
        )

    # What no task of the step uses has no gradient and does not move.
    network.adapters["a"].requires_grad_(False)
    network.adapters["b"].requires_grad_(False)
    step_until(run, 36)
    train_plainly(network, "c", batches(run, "c", 12), penalty, optimizer=optimizer)
    assert_same_weights(run, network)


def test_what_ewc_keeps_does_not_grow_with_the_experiences():
    names = [f"t{number}" for number in range(6)]
    sections = {
        "tasks": {name: {"name": "toy_rows", "head": "shared"} for name in names},
        "stream": [{"tasks": [name], "steps": 2} for name in names],
    }
    run = make_run("ewc", sections)
    step_until(run, 2)
    stored = run.state.strategy.stored_bytes()
    step_until(run, 12)
    assert run.state.strategy.stored_bytes() == stored > 0


def test_online_ewc_has_one_anchor_and_forgets_by_its_decay(monkeypatch):
    run = make_run("online_ewc", THREE, knobs={"decay": 0.7})
    fishers = []
    real = fisher_information

    def watching(run, task):
        fishers.append({n: v.clone() for n, v in real(run, task).items()})
        return real(run, task)

    monkeypatch.setattr(ewc, "fisher_information", watching)
    step_until(run, 36)
    [(anchor, weight)] = run.state.strategy.anchors
    for name, p in run.network.named_parameters():
        assert torch.equal(anchor[name], p.detach())
        terms = [f.get(name, torch.zeros(())) for f in fishers]
        expected = 0.7 * (0.7 * terms[0] + terms[1]) + terms[2]
        torch.testing.assert_close(weight[name], expected.expand_as(p), rtol=1e-12, atol=0)


@pytest.mark.parametrize("strategy", ["ewc", "online_ewc"])
def test_the_importance_of_a_task_has_the_weight_of_its_loss(strategy):
    tasks = {"a": {"name": "toy_rows", "weight": 0.25}, "b": {"name": "toy_rows", "weight": 0.0}}
    stream = [{"tasks": ["a", "b"], "steps": 3}, {"tasks": ["b"], "steps": 3}]
    run = make_run(strategy, {"tasks": tasks, "stream": stream})
    alone = fisher_information(run, "a")["body.scale"]
    run.state.strategy.after_experience(run.experience)
    [(_, weight)] = run.state.strategy.anchors
    torch.testing.assert_close(weight["body.scale"], 0.25 * alone)
    assert alone.sum() > 0
