"""Experience replay: which stored sequences are learned again, and with which weight."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from stream_fixtures import (
    THREE,
    TWO,
    assert_same_weights,
    batches,
    cross_entropy,
    follow_optimizer,
    make_run,
    step_until,
    train_plainly,
)
from toy_tasks import STREAM


def set_stream(run, stream):
    """Give a run other experiences."""
    run._planned = run._stream = stream
    run._stops = [experience.stop for experience in stream]


def test_kept_sequences_of_mixed_shapes_weigh_the_same():
    """The mean over sequences, whatever their task; of a text over its steps first."""
    run = make_run("replay", STREAM, "gru", {"memory": 9})
    step_until(run, 41)
    assert set(run.state.strategy.stored) == {"toy_rows", "toy_wide"}
    run.config = replace(run.config, train=replace(run.config.train, batch=1000))
    losses = [
        cross_entropy(run.network, task, x[None], y[None])
        for task, ((xs, ys, *_), _) in run.state.strategy.stored.items()
        for x, y in zip(xs, ys, strict=True)
    ]
    assert len(losses) == 9
    expected = torch.stack(losses).mean().item()
    assert run.state.strategy.penalty({}).item() == pytest.approx(expected, rel=1e-6)
    run.state.step = 60
    run.state.strategy.after_experience(run.stream[-1])
    set_stream(run, [*run.stream, replace(run.stream[0], start=60, stop=80, number=4)])
    losses = [
        cross_entropy(run.network, task, x[None], y[None])
        for task, ((xs, ys, *_), _) in run.state.strategy.stored.items()
        for x, y in zip(xs, ys, strict=True)
        if task != "toy_rows"  # which is learned now, from all of its own
    ]
    assert {len(run.state.strategy.stored[task].keys) for task in ("toy_wide", "toy_text")} != {0}
    expected = torch.stack(losses).mean().item()
    assert run.state.strategy.penalty({}).item() == pytest.approx(expected, rel=1e-6)


def test_as_many_are_recalled_as_a_batch_has_and_all_equally_often():
    run = make_run("replay", TWO, knobs={"memory": 25})
    step_until(run, 12)
    xs = run.state.strategy.stored["a"].data.xs
    counts, total = torch.zeros(25), 300
    seen = []
    forward = run.network.forward
    run.network.forward = lambda task, xs, *rest: seen.append(xs) or forward(task, xs, *rest)
    for run.state.step in range(12, 12 + total):
        longer = [replace(part, stop=10**6) if part.number == 2 else part for part in run.stream]
        set_stream(run, longer)
        run.state.strategy.penalty({})
    assert {len(rows) for rows in seen} == {run.config.train.batch} == {10}
    for rows in seen:
        places = (rows[:, None] == xs).flatten(2).all(-1).nonzero()[:, 1]
        assert len(places.unique()) == 10
        counts[places] += 1
    assert ((counts - total * 0.4).abs() < 4 * (total * 0.24) ** 0.5).all()


def test_replay_adds_the_mean_loss_of_what_is_kept_to_that_of_a_plain_loop():
    run = make_run("replay", TWO, "gru", {"memory": 8})
    step_until(run, 12)
    network = deepcopy(run.network)
    optimizer = follow_optimizer(run, network)
    (xs, ys, *_), _ = run.state.strategy.stored["a"]

    def again(network, _):
        return cross_entropy(network, "a", xs, ys)

    step_until(run, 24)
    train_plainly(network, "b", batches(run, "b", 12), again, optimizer=optimizer)
    assert_same_weights(run, network)


def test_a_replayed_loss_has_the_weight_of_its_task():
    weighted = {"tasks": TWO["tasks"] | {"a": {"name": "toy_rows", "weight": 0.25}}}
    run, plain = make_run("replay", TWO | weighted), make_run("replay", TWO)
    for each in (run, plain):
        each.state.step = 12
        each.state.strategy.after_experience(each.stream[0])
    expected = 0.25 * plain.state.strategy.penalty({}).item()
    assert run.state.strategy.penalty({}).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("strategy", ["replay", "agem", "gem"])
def test_nothing_is_recalled_of_the_tasks_that_are_learned_now(strategy):
    sections = THREE | {"stream": [{"tasks": [t], "steps": 12} for t in ("a", "b", "a", "c")]}
    run = make_run(strategy, sections, knobs={"memory": 30})
    step_until(run, 25)  # in the second experience of a
    seen = []
    forward = run.network.forward
    run.network.forward = lambda task, *rest: seen.append(task) or forward(task, *rest)
    if strategy == "replay":
        run.state.strategy.penalty({})
    else:
        run.state.strategy.before_update()
    assert seen == ["b"]
