"""Learning without forgetting against the formula of its paper, in plain PyTorch."""

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
from toy_tasks import GROWING, STREAM

from thalnet_mtl.strategies.ewc import fisher_information
from thalnet_mtl.training.topology_changes import on_topology_change


def test_learning_without_forgetting_is_hintons_distance_at_temperature_two():
    run = make_run("lwf", body="gru")
    step_until(run, 12)
    teacher = deepcopy(run.network)
    network = deepcopy(run.network)
    optimizer = follow_optimizer(run, network)

    def distance(network, xs):
        p = (teacher("a", xs)[0] / 2).softmax(-1).detach()
        q = (network("a", xs)[0] / 2).softmax(-1)
        return 3.0 * 4 * (p * (p.log() - q.log())).sum(-1).mean()

    step_until(run, 24)
    train_plainly(network, "b", batches(run, "b", 12), distance, optimizer=optimizer)
    assert_same_weights(run, network)
    head = run.network.adapter("a").head.weight
    assert not torch.equal(head, teacher.adapter("a").head.weight)  # old heads learn to stay right


def test_the_old_answers_are_those_from_before_the_experience():
    run = make_run("lwf", THREE, body="gru")
    step_until(run, 24)
    teacher = run.state.strategy.teacher
    before = {name: weight.clone() for name, weight in teacher.state_dict().items()}
    assert all(torch.equal(before[n], w) for n, w in run.network.state_dict().items())
    step_until(run, 30)
    assert all(torch.equal(before[n], w) for n, w in teacher.state_dict().items())
    assert not torch.equal(before["adapters.c.head.weight"], run.network.adapters["c"].head.weight)


def test_what_a_network_knew_is_asked_without_dropout():
    run = make_run("lwf", body="gru", dropout=0.5)
    step_until(run, 12)
    before = fisher_information(run, "a"), run.network.dropout
    (xs, _), teacher = batches(run, "b", 12)[0], run.state.strategy.teacher
    assert torch.equal(teacher("a", xs)[0], teacher("a", xs)[0])
    resumed = run.state.strategy.state_dict()
    run.state.strategy.load_state_dict(resumed)
    read = run.state.strategy.teacher.double()
    torch.testing.assert_close(read("a", xs)[0], teacher("a", xs)[0], rtol=1e-5, atol=1e-6)
    again = fisher_information(run, "a")
    assert all(torch.equal(before[0][name], again[name]) for name in again) and before[1] == 0.5


def test_old_answers_of_a_text_are_compared_at_every_step():
    text = {"a": {"name": "toy_text"}, "b": {"name": "toy_text"}}
    run = make_run("lwf", TWO | {"tasks": text}, body="gru")
    step_until(run, 15)
    batch = run.tasks["b"].training_batch(7, 10, 7, 0)
    p = (run.state.strategy.teacher("a", batch.xs)[0] / 2).softmax(-1)
    q = (run.network("a", batch.xs)[0] / 2).softmax(-1)
    expected = 3.0 * 4 * (p * (p / q).log()).sum(-1).mean()
    penalty = run.state.strategy.penalty({"b": batch})
    assert penalty.item() == pytest.approx(expected.item(), rel=1e-4) and penalty.item() > 0


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_old_tasks_that_cannot_take_the_new_inputs_are_left_alone(optimizer):
    run = make_run("lwf", STREAM, "gru", optimizer=optimizer, weight_decay=0.1)
    step_until(run, 20)
    before = {n: p.detach().clone() for n, p in run.network.adapters["toy_rows"].named_parameters()}
    step_until(run, 60)
    for name, parameter in run.network.adapters["toy_rows"].named_parameters():
        assert torch.equal(parameter, before[name]), name


def test_old_answers_of_a_frozen_task_are_not_asked_for():
    run = make_run("lwf", TWO | {"growth": GROWING["frozen"]}, "thalnet")
    step_until(run, 13)
    assert not run.network.adapter("a").head.weight.requires_grad
    assert run.state.strategy.penalty({"b": run.tasks["b"].training_batch(0, 10, 7, 0)}) is None


RETURNS = TWO | {"stream": [*TWO["stream"], TWO["stream"][0]]}


def test_a_task_that_returns_is_not_held_to_its_own_old_answers():
    """Its second experience is that of a plain loop which only distills the other task."""
    run = make_run("lwf", RETURNS, body="gru")
    step_until(run, 24)
    teacher, network = deepcopy(run.network), deepcopy(run.network)
    optimizer = follow_optimizer(run, network)

    def distance(network, xs):
        p = (teacher("b", xs)[0] / 2).softmax(-1).detach()
        q = (network("b", xs)[0] / 2).softmax(-1)
        return 3.0 * 4 * (p * (p.log() - q.log())).sum(-1).mean()

    seen = run.state.batches_seen["a"]
    data = batches(run, "a", seen + 12)[seen:]
    step_until(run, 36)
    train_plainly(network, "a", data, distance, optimizer=optimizer)
    assert_same_weights(run, network)


def test_a_head_that_others_share_goes_on_being_distilled_for_them():
    tasks = {name: {"name": "toy_rows", "head": "h"} for name in "ab"}
    run = make_run("lwf", RETURNS | {"tasks": tasks}, body="gru")
    step_until(run, 30)
    assert run.state.strategy.penalty({"a": run.tasks["a"].training_batch(0, 10, 7, 0)}) > 0


def test_the_weight_of_a_task_counts_in_its_distillation():
    found = []
    for weight in (1.0, 0.25, 0.0):
        tasks = {"a": {"name": "toy_rows", "weight": weight}, "b": {"name": "toy_rows"}}
        run = make_run("lwf", THREE | {"tasks": tasks | {"c": {"name": "toy_rows"}}}, body="gru")
        other = make_run("lwf", THREE, body="gru")
        step_until(other, 13)
        run.state.strategy.load_state_dict(other.state.strategy.state_dict())
        run.state.step = 13
        found.append(run.state.strategy.penalty({"b": run.tasks["b"].training_batch(0, 10, 7, 0)}))
    assert found[0] > 0 and found[2] == 0
    assert found[1].item() == pytest.approx(0.25 * found[0].item(), rel=1e-6)


def test_a_head_that_is_removed_and_added_is_not_taught_what_the_old_one_knew():
    run = make_run("lwf", THREE, body="gru")
    step_until(run, 24)
    for change in (
        run.network.remove_task("a"),
        run.network.add_task("a", run.tasks["a"].spec),
    ):
        on_topology_change(run, change)
    assert run.state.strategy.old_tasks == ["b"]
    before = run.network.adapter("a").head.weight.clone()
    step_until(run, 36)
    assert torch.equal(run.network.adapter("a").head.weight, before)
