"""Strategies with hidden boundaries: what they keep after each step, by hand."""

import pytest
import torch
from toy_tasks import knobs_of, toy

from thalnet_mtl.strategies import ewc
from thalnet_mtl.strategies.ewc import fisher_information, training_sequences
from thalnet_mtl.tasks import task_stream
from thalnet_mtl.tasks.random_streams import step_generator
from thalnet_mtl.training.sampling import next_batches
from thalnet_mtl.training.setup import set_up
from thalnet_mtl.training.step import StepInputs, TrainStep

INTERVAL, SIZE, STEPS = 4, 8, 12
HALVES = [{"tasks": ["a"], "steps": STEPS // 2}] * 2


def run_of(strategy, stream=HALVES, boundaries="hidden", task=None, **knobs):
    knobs = knobs_of(strategy, memory=12, strength=3.0) | knobs
    options = {"optimizer": "sgd", "learning_rate": 0.05, "batch": SIZE, "steps": 0}
    return set_up(
        toy(
            tasks={"a": {"head": "h"} | (task or {"name": "toy_rows"})},
            stream=stream,
            strategy=knobs,
            train=options | {"strategy": strategy, "boundaries": boundaries},
        ),
        fetch=print,
    )


def weights(network):
    return {name: p.detach().clone() for name, p in network.named_parameters()}


def steps_of(run, until=STEPS):
    """Take steps, and yield the run after each."""
    train_step = TrainStep(run)
    while run.step < until:
        experience = run.experience
        train_step(StepInputs(next_batches(run), run.learning_rate()))
        yield run
        run.state.step += 1
        if run.announced and run.step == experience.stop:
            run.state.strategy.after_experience(experience)


def last(run):
    *_, _ = steps_of(run)
    return run


@pytest.mark.parametrize("missing", [0.0, 0.5])
def test_a_memory_has_the_sequences_with_the_smallest_keys_of_all_so_far(missing):
    task = {"name": "toy_kinds", "answer": "numbers", "missing": missing, "lengths": True}
    run = run_of("replay", task=task)
    offered = []
    for _ in steps_of(run):
        batch = run.task_stream.training_batch(run.step, SIZE, 1, run.seed)
        keys = torch.rand(
            SIZE, generator=step_generator("memory", run.seed, run.step), dtype=torch.float64
        )
        for k in range(SIZE):
            if not batch.ys[k].isnan().all():
                length = int(batch.lengths[k])
                offered.append((float(keys[k]), batch.xs[k, :length], batch.ys[k]))
        expected = sorted(offered, key=lambda entry: entry[0])[:12]
        data, kept = run.state.strategy.stored["h"]
        assert kept.tolist() == [key for key, *_ in expected]
        for k, (_, xs, ys) in enumerate(expected):
            assert torch.equal(data.xs[k, : data.lengths[k]], xs)
            assert torch.equal(data.ys[k].nan_to_num(), ys.nan_to_num())
    assert (len(offered) < STEPS * SIZE) == (missing > 0) and len(offered) > 12


@pytest.mark.parametrize("strategy", ["replay", "agem"])
def test_a_step_is_rehearsed_with_what_was_stored_before_it(strategy):
    run = run_of(strategy)
    assert run.state.strategy.older_tasks() == []
    last(run)
    assert run.state.strategy.older_tasks() == ["h"]
    naive = last(run_of("naive")).network.state_dict()
    different = [n for n, w in run.network.state_dict().items() if not torch.equal(w, naive[n])]
    assert different or strategy == "agem"  # of which no gradient may have been in conflict


def test_synaptic_intelligence_takes_every_interval_for_an_experience(monkeypatch):
    order = lambda task, seed: task._reader.epoch_order(seed, 0)  # noqa: E731
    monkeypatch.setattr(task_stream, "sequence_order", order)
    thirds = [{"tasks": ["a"], "steps": INTERVAL}] * 3
    told, untold = run_of("si", thirds, "announced"), run_of("si", interval=INTERVAL)
    last(told), last(untold)
    for name, weight in told.network.state_dict().items():
        assert torch.equal(weight, untold.network.state_dict()[name])
    (pair,), (again,) = told.state.strategy.anchors, untold.state.strategy.anchors
    assert all(torch.equal(pair[k][name], again[k][name]) for k in (0, 1) for name in pair[k])
    assert any(importance.any() for importance in pair[1].values())


def test_online_ewc_adds_the_information_of_the_last_sequences_of_an_interval(monkeypatch):
    monkeypatch.setattr(ewc, "SAMPLES", 10)
    run = run_of("online_ewc", interval=INTERVAL, decay=0.5)
    context, total = run.learner, {}
    for _ in steps_of(run):
        if run.step % INTERVAL == INTERVAL - 1:
            steps = [run.step - k for k in range(INTERVAL)]
            information = fisher_information(context, "h", steps)
            total = {n: 0.5 * total.get(n, 0.0) + value for n, value in information.items()}
            ((anchor, importance),) = run.state.strategy.anchors
            now = weights(run.network)
            assert all(torch.equal(anchor[name], now[name]) for name in anchor)
            for name, value in total.items():
                torch.testing.assert_close(importance[name], value)
    batches = [run.task_stream.training_batch(step, SIZE, 1, 0) for step in (7, 6)]
    expected = torch.cat([batches[0].xs, batches[1].xs[:2]])
    read = [batch.xs for batch in training_sequences(context, "h", [7, 6, 5, 4])]
    assert torch.equal(torch.cat(read), expected)
    assert len(list(training_sequences(context, "h", [3]))) == SIZE


def test_the_teacher_of_lwf_is_a_moving_average_of_the_weights():
    run, average = run_of("lwf", interval=INTERVAL), {}
    for _ in steps_of(run):
        for name, weight in weights(run.network).items():
            old = average.get(name, weight)
            average[name] = old + (weight - old) / INTERVAL
        for name, weight in run.state.strategy.teacher.named_parameters():
            torch.testing.assert_close(weight, average[name], rtol=1e-5, atol=1e-7)
    batches = next_batches_of(run)
    assert run.state.strategy.penalty(batches).item() > 0


def next_batches_of(run):
    run.state.step = 0
    return next_batches(run)
