"""Memories: what they hold, what of it is seen again, and what that does to a step."""

from collections import Counter
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import scipy.optimize
import torch
from hypothesis import given
from hypothesis import strategies as st
from properties import examples, seeds
from stream_fixtures import (
    MOMENTUM,
    THREE,
    TWO,
    assert_same_weights,
    batches,
    cross_entropy,
    follow_optimizer,
    go,
    made,
    plain,
)
from toy_tasks import GROWING, STREAM, toy

from thalnet_mtl.config.schema import TaskConfig
from thalnet_mtl.errors import UserError
from thalnet_mtl.registry import register
from thalnet_mtl.strategies import gem
from thalnet_mtl.strategies.base import trainable_parameters
from thalnet_mtl.strategies.gem import GEM
from thalnet_mtl.tasks.rows import RowsTask
from thalnet_mtl.tasks.text import TextTask
from thalnet_mtl.training import growth
from thalnet_mtl.training.context import RunContext
from thalnet_mtl.training.setup import set_up
from thalnet_mtl.training.step import TrainStep

SEEDS = 400


def numbered(name: str, count: int, classes: int = 2) -> None:
    """A task whose sequences hold their own number; class 0 is half of them, 1 a fourth, …"""

    def make(config: TaskConfig) -> RowsTask:
        xs = torch.arange(float(count)).reshape(-1, 1, 1).expand(-1, 2, 3)
        ys = torch.tensor(
            [min((k & -k).bit_length() - 1, classes - 1) for k in range(1, count + 1)]
        )
        return RowsTask(
            name, (2, 3), classes, lambda: dict.fromkeys(SPLITS, (xs, ys)), scale=float(count)
        )

    register("task", name)(make)


SPLITS = ("train", "validation", "test")
numbered("toy_40", 40)
numbered("toy_20", 20)
numbered("toy_19", 19)
numbered("toy_rare", 320, classes=4)


@register("task", "toy_places")
def toy_places(config: TaskConfig) -> TextTask:
    """A text whose tokens are their own places: 20 chunks of 7."""
    text = torch.arange(141)
    return TextTask("toy_places", lambda: dict.fromkeys(SPLITS, text), vocabulary=141)


def memory_run(tasks, experiences, **knobs) -> RunContext:
    stream = [{"tasks": names, "steps": 2} for names in experiences]
    sections = {"tasks": {name: {} for name in tasks}, "stream": stream}
    return set_up(toy(**sections, strategy=knobs, train={"strategy": "replay"}), fetch=print)


def fill(run: RunContext, seed: int = 0) -> dict[str, list[int]]:
    """The numbers of the sequences that are kept after all experiences, without training."""
    run.config = replace(run.config, train=replace(run.config.train, seed=seed))
    run.state.strategy.stored = {}
    for experience in run.stream:
        run.state.step = experience.stop
        run.state.strategy.after_experience(experience)
    numbers = {}
    for task, (xs, ys, keys) in run.state.strategy.stored.items():
        assert len(xs) == len(ys) == len(keys)
        first = xs.flatten(1)[:, 0] * (run.tasks[task].scale if xs.ndim == 3 else 1 / 7)
        numbers[task] = first.round().long().tolist()
    return numbers


# What is kept


@pytest.mark.parametrize("memory", [1, 7, 16, 500])
@pytest.mark.parametrize(
    "experiences",
    [
        [["toy_40"], ["toy_20"], ["toy_places"]],
        [["toy_40", "toy_20", "toy_places"], ["toy_19"]],
        [["toy_40", "toy_rare"], ["toy_20"], ["toy_40"]],
        [["toy_20", "toy_places"]],  # equally many of both
    ],
)
def test_a_memory_holds_as_many_sequences_as_it_may_and_each_once(memory, experiences):
    tasks = list(dict.fromkeys(name for names in experiences for name in names))
    run = memory_run(tasks, experiences, memory=memory)
    sizes = {"toy_40": 40, "toy_20": 20, "toy_19": 19, "toy_rare": 320, "toy_places": 20}
    kept = fill(run)
    assert sum(map(len, kept.values())) == min(memory, sum(sizes[name] for name in tasks))
    for numbers in kept.values():
        assert len(set(numbers)) == len(numbers)


@pytest.mark.parametrize(
    "experiences",
    [
        [["toy_40"], ["toy_20"], ["toy_places"]],
        [["toy_places"], ["toy_19"]],
        [["toy_40", "toy_20"], ["toy_19"]],
        [["toy_40"], ["toy_20"], ["toy_40"]],
    ],
)
def test_a_reservoir_holds_every_sequence_of_all_tasks_equally_often(experiences):
    """Pearson's χ² of how often each is kept; the bound is passed by chance once in 10,000."""
    tasks = list(dict.fromkeys(name for names in experiences for name in names))
    run = memory_run(tasks, experiences, memory=12)
    counts: Counter = Counter()
    for seed in range(SEEDS):
        for task, numbers in fill(run, seed).items():
            counts.update((task, number) for number in numbers)
    sizes = {"toy_40": 40, "toy_20": 20, "toy_19": 19, "toy_places": 20}
    cells = [(task, number) for task in tasks for number in range(sizes[task])]
    assert counts.keys() <= set(cells)
    share = 12 / len(cells)
    squares = sum((counts[cell] - SEEDS * share) ** 2 for cell in cells)
    freedom = len(cells) - 1
    found = squares / (SEEDS * share * (1 - share)) * freedom / len(cells)
    assert abs(found - freedom) < 4 * (2 * freedom) ** 0.5
    for task in tasks:  # and no task more than its share, to four standard deviations
        total = sum(counts[task, number] for number in range(sizes[task]))
        part = sizes[task] / len(cells)
        spread = (SEEDS * 12 * part * (1 - part)) ** 0.5
        assert abs(total - SEEDS * 12 * part) < 4 * spread, task


def test_what_is_kept_of_one_task_says_nothing_of_another_learned_with_it():
    """The number kept of one of two equal tasks is hypergeometric, not half of the room."""
    run = memory_run(["toy_20", "toy_places"], [["toy_20", "toy_places"]], memory=12)
    counts = torch.tensor([len(fill(run, seed)["toy_20"]) for seed in range(SEEDS)]).double()
    variance = 12 * 0.25 * (40 - 12) / 39
    assert counts.mean().item() == pytest.approx(6, abs=4 * (variance / SEEDS) ** 0.5)
    assert counts.var().item() == pytest.approx(variance, rel=0.3)


def test_an_earlier_member_of_a_reservoir_never_comes_back():
    """A reservoir only loses what it had, but for tasks that are learned again."""
    run = memory_run(["toy_40", "toy_20", "toy_19"], [["toy_40"], ["toy_20"], ["toy_19"]], memory=9)
    before: set = set()
    for experience in run.stream:
        run.state.step = experience.stop
        run.state.strategy.after_experience(experience)
        now = {
            (task, x)
            for task, (xs, *_) in run.state.strategy.stored.items()
            for x in xs.flatten(1)[:, 0].tolist()
        }
        new = set(experience.tasks)
        assert {cell for cell in now if cell[0] not in new} <= before
        before = now


def test_a_memory_is_the_same_for_the_same_seed_only():
    run = memory_run(["toy_40", "toy_20"], [["toy_40"], ["toy_20"]], memory=12)
    assert fill(run, 5) == fill(run, 5) != fill(run, 6)


def test_the_answers_that_are_kept_are_those_of_their_sequences():
    run = memory_run(["toy_rare", "toy_places"], [["toy_rare"], ["toy_places"]], memory=50)
    numbers = fill(run)
    _, ys, _ = run.state.strategy.stored["toy_rare"]
    right = run.tasks["toy_rare"].split("train").ys[torch.tensor(numbers["toy_rare"])]
    assert torch.equal(ys, right)
    xs, ys, _ = run.state.strategy.stored["toy_places"]
    assert torch.equal(xs + 1, ys) and xs.shape[1] == 7


@pytest.mark.parametrize("memory", [8, 13, 40])
def test_per_class_keeps_as_many_of_each_class_of_each_task(memory):
    tasks = ["toy_rare", "toy_40", "toy_places"]
    run = memory_run(tasks, [[task] for task in tasks], memory=memory, choice="per_class")
    quota = memory // (4 + 2 + 1)  # a text is of one class
    for seed in range(5):
        numbers = fill(run, seed)
        assert sum(map(len, numbers.values())) == 7 * quota <= memory
        for task, classes in (("toy_rare", 4), ("toy_40", 2)):
            ys = run.state.strategy.stored[task][1].tolist()
            assert Counter(ys) == dict.fromkeys(range(classes), quota), task
        assert len(numbers["toy_places"]) == quota


def test_per_class_holds_every_sequence_of_a_class_equally_often():
    run = memory_run(["toy_40", "toy_20"], [["toy_40"], ["toy_20"]], memory=16, choice="per_class")
    counts: Counter = Counter()
    for seed in range(SEEDS // 2):
        counts.update(fill(run, seed)["toy_40"])
    ys = run.tasks["toy_40"].split("train").ys.tolist()
    for number in range(40):
        chance = 4 / ys.count(ys[number])
        spread = (SEEDS / 2 * chance * (1 - chance)) ** 0.5
        assert abs(counts[number] - SEEDS / 2 * chance) < 4 * spread


def test_a_memory_too_small_for_every_class_is_refused():
    with pytest.raises(UserError, match=r"strategy.memory 5 holds no .*must be at least 6"):
        memory_run(["toy_rare", "toy_40"], [["toy_rare"], ["toy_40"]], memory=5, choice="per_class")
    memory_run(["toy_rare", "toy_40"], [["toy_rare"], ["toy_40"]], memory=6, choice="per_class")


# What is seen again


def test_kept_sequences_of_mixed_shapes_weigh_the_same():
    """The mean over sequences, whatever their task; of a text over its steps first."""
    run = made("replay", STREAM, "gru", {"memory": 9})
    go(run, 41)
    assert set(run.state.strategy.stored) == {"toy_rows", "toy_wide"}
    run.config = replace(run.config, train=replace(run.config.train, batch=1000))
    losses = [
        cross_entropy(run.network, task, x[None], y[None])
        for task, (xs, ys, _) in run.state.strategy.stored.items()
        for x, y in zip(xs, ys, strict=True)
    ]
    assert len(losses) == 9
    expected = torch.stack(losses).mean().item()
    assert run.state.strategy.penalty({}).item() == pytest.approx(expected, rel=1e-6)
    run.state.step = 60
    run.state.strategy.after_experience(run.stream[-1])
    run.stream = [*run.stream, replace(run.stream[0], start=60, stop=80, number=4)]
    losses = [
        cross_entropy(run.network, task, x[None], y[None])
        for task, (xs, ys, _) in run.state.strategy.stored.items()
        for x, y in zip(xs, ys, strict=True)
        if task != "toy_rows"  # which is learned now, from all of its own
    ]
    assert {len(run.state.strategy.stored[task][2]) for task in ("toy_wide", "toy_text")} != {0}
    expected = torch.stack(losses).mean().item()
    assert run.state.strategy.penalty({}).item() == pytest.approx(expected, rel=1e-6)


def test_as_many_are_recalled_as_a_batch_has_and_all_equally_often():
    run = made("replay", TWO, knobs={"memory": 25})
    go(run, 12)
    xs = run.state.strategy.stored["a"][0]
    counts, total = torch.zeros(25), 300
    seen = []
    forward = run.network.forward
    run.network.forward = lambda task, xs, *rest: seen.append(xs) or forward(task, xs, *rest)
    for run.state.step in range(12, 12 + total):
        run.stream = [replace(one, stop=10**6) if one.number == 2 else one for one in run.stream]
        run.state.strategy.penalty({})
    assert {len(rows) for rows in seen} == {run.config.train.batch} == {10}
    for rows in seen:
        places = (rows[:, None] == xs).flatten(2).all(-1).nonzero()[:, 1]
        assert len(places.unique()) == 10
        counts[places] += 1
    assert ((counts - total * 0.4).abs() < 4 * (total * 0.24) ** 0.5).all()


def test_replay_adds_the_mean_loss_of_what_is_kept_to_that_of_a_plain_loop():
    run = made("replay", TWO, "gru", {"memory": 8})
    go(run, 12)
    network = deepcopy(run.network)
    optimizer = follow_optimizer(run, network)
    xs, ys, _ = run.state.strategy.stored["a"]

    def again(network, _):
        return cross_entropy(network, "a", xs, ys)

    go(run, 24)
    plain(network, "b", batches(run, "b", 12), again, optimizer=optimizer)
    assert_same_weights(run, network)


# Gradients that are projected


def memory_gradient(run: RunContext, *tasks: str) -> dict[str, torch.Tensor]:
    """Of the mean loss of all that is kept of some tasks or all older ones, by a plain loop."""
    older = {
        t: parts for t, parts in run.state.strategy.stored.items() if t not in run.experience.tasks
    }
    older = {t: parts for t, parts in older.items() if not tasks or t in tasks}
    losses = [
        cross_entropy(run.network, task, x[None], y[None])
        for task, (xs, ys, _) in older.items()
        for x, y in zip(xs, ys, strict=True)
    ]
    named = trainable_parameters(run.network)
    found = torch.autograd.grad(
        torch.stack(losses).mean(), list(named.values()), materialize_grads=True
    )
    return dict(zip(named, found, strict=True))


def dot(one, other) -> float:
    return sum((one[name] * other[name]).sum().item() for name in other)


def third_experience(strategy: str, growing: str) -> RunContext:
    """A run before the first step of its third task, with what it grew for it."""
    run = made(strategy, STREAM | {"growth": GROWING[growing]}, "thalnet", {"memory": 10})
    go(run, 40)
    growth.grow_if_due(run)
    return run


@pytest.mark.parametrize("growing", ["never", "shared"])
@pytest.mark.parametrize("seed", range(4))
def test_a_projected_gradient_does_not_raise_the_loss_of_what_is_kept(growing, seed):
    run = third_experience("agem", growing)
    reference = memory_gradient(run)
    TrainStep(run).flat_optimizer()
    generator = torch.Generator().manual_seed(seed)
    before = {}
    for name, p in trainable_parameters(run.network).items():
        noise = torch.randn(p.shape, generator=generator, dtype=torch.float64) * 0.01
        before[name] = noise - 0.3 * (1 - seed % 2 * 2) * reference[name]
        p.grad.copy_(before[name])
    along = dot(before, reference)
    assert (along < 0) == (seed % 2 == 0)
    run.state.strategy.before_update()
    found = {name: p.grad.clone() for name, p in trainable_parameters(run.network).items()}
    if along >= 0:
        assert all(torch.equal(found[name], before[name]) for name in before)
        return
    square = dot(reference, reference)
    assert dot(found, reference) == pytest.approx(0, abs=1e-6 * square)
    for name in before:
        expected = before[name] - along / square * reference[name]
        torch.testing.assert_close(found[name], expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("strategy", ["agem", "gem"])
def test_one_older_task_trains_as_a_plain_loop_that_projects(monkeypatch, strategy):
    """GEM without a margin is A-GEM then."""
    monkeypatch.setattr(gem, "MARGIN", 0.0)
    run = made(strategy, TWO | {"tasks": TURNED}, "gru", {"memory": 8})
    go(run, 12)
    network = deepcopy(run.network)
    buffers = follow_optimizer(run, network).state
    momentum = {
        n: buffers[p]["momentum_buffer"] for n, p in network.named_parameters() if p in buffers
    }
    xs, ys, _ = run.state.strategy.stored["a"]
    go(run, 24)
    projected = 0
    named = dict(network.named_parameters())
    options = {"materialize_grads": True}
    for bxs, bys in batches(run, "b", 12):
        loss = cross_entropy(network, "b", bxs, bys)
        g = torch.autograd.grad(loss, list(named.values()), **options)
        old = cross_entropy(network, "a", xs, ys)
        reference = torch.autograd.grad(old, list(named.values()), **options)
        along = sum((a * b).sum() for a, b in zip(g, reference, strict=True))
        if along < 0:
            projected += 1
            square = sum((b * b).sum() for b in reference)
            g = [a - along / square * b for a, b in zip(g, reference, strict=True)]
        with torch.no_grad():
            for (name, p), gradient in zip(named.items(), g, strict=True):
                before = momentum.get(name)
                step = gradient if before is None else MOMENTUM * before + gradient
                momentum[name] = step
                p -= 0.05 * step
    assert 0 < projected < 12
    assert_same_weights(run, network)


TURNED = TWO["tasks"] | {"b": {"name": "toy_turned"}}


def gem_by_hand(gradient, references, margin: float) -> np.ndarray:
    """The gradient that GEM makes of one, by its own solver."""
    along, products = references @ gradient, references @ references.T
    if (along >= 0).all():
        return gradient
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gem, "MARGIN", float(margin))
        v = GEM.coefficients(None, torch.from_numpy(along), torch.from_numpy(products))
    return gradient + v.numpy() @ references


def nearest(gradient, references, margin: float) -> np.ndarray:
    """The same by non-negative least squares: v - margin are the factors that are sought."""
    moved = gradient + margin * references.sum(0)
    return moved + scipy.optimize.nnls(references.T, -moved)[0] @ references


@pytest.mark.parametrize(
    ("gradient", "references", "margin", "expected"),
    [
        ((-1, 0.5), [(1, 0)], 0, (0, 0.5)),  # what goes against it is gone
        ((-1, 0.5), [(2, 0)], 0, (0, 0.5)),  # however steep the old loss is
        ((1, 0.5), [(1, 0)], 0.5, (1, 0.5)),  # nothing is violated
        ((-1, -1), [(1, 0), (0, 1)], 0, (0, 0)),  # nowhere to go
        ((-2, 1), [(1, 0), (1, 1)], 0, (0, 1)),  # the second is mended by the first
        ((-2, 1), [(1, 0), (1, 1)], 0.5, (0, 1.5)),  # half of it, then what is left
        ((-0.1, 0), [(1, 0)], 0.5, (0.4, 0)),  # the old loss shall fall
        ((-2, 1), [(1, 0), (1, 0)], 0, (0, 1)),  # the same task twice
    ],
)
def test_gem_projects_two_parameters_as_by_hand(gradient, references, margin, expected):
    found = gem_by_hand(np.array(gradient, float), np.array(references, float), margin)
    np.testing.assert_allclose(found, expected, atol=1e-8)


@given(
    seed=seeds,
    tasks=st.integers(1, 6),
    width=st.integers(1, 8),
    size=st.sampled_from([1e-6, 1.0, 1e6]),
    margin=st.sampled_from([0.0, 0.5]),
)
@examples(max_examples=200)
def test_gem_finds_the_nearest_gradient_that_raises_no_old_loss(seed, tasks, width, size, margin):
    """More tasks than parameters, tasks that are alike and gradients of any size among them."""
    random = np.random.default_rng(seed)
    gradient = random.normal(size=width) * size
    references = random.normal(size=(tasks, width)) * size * 10 ** random.uniform(-2, 2, (tasks, 1))
    references[-1] = references[0] * random.choice([1, 3])
    found = gem_by_hand(gradient, references, margin)
    lengths = np.linalg.norm(references, axis=1)
    largest = np.linalg.norm(gradient) + margin * lengths.sum()
    assert (references @ found / lengths).min() > -1e-6 * largest
    if (references @ gradient >= 0).all():
        assert found is gradient
    else:
        np.testing.assert_allclose(
            found, nearest(gradient, references, margin), rtol=0, atol=1e-3 * largest
        )


@pytest.mark.parametrize("growing", ["never", "shared"])
@pytest.mark.parametrize("margin", [0.0, 0.5])
@pytest.mark.parametrize("seed", range(4))
def test_gem_asks_every_older_task_of_a_network_with_tasks_of_all_shapes(
    monkeypatch, growing, margin, seed
):
    monkeypatch.setattr(gem, "MARGIN", margin)
    run = third_experience("gem", growing)
    older = ["toy_rows", "toy_wide"]
    assert list(run.state.strategy.stored) == older
    references = [memory_gradient(run, task) for task in older]
    TrainStep(run).flat_optimizer()
    generator = torch.Generator().manual_seed(seed)
    before = {}
    signs = (1 - seed % 2 * 2, 1 - seed // 2 * 2)
    for name, p in trainable_parameters(run.network).items():
        noise = torch.randn(p.shape, generator=generator, dtype=torch.float64) * 0.001
        before[name] = noise + sum(
            s * each[name] for s, each in zip(signs, references, strict=True)
        )
        p.grad.copy_(before[name])
    violated = [dot(before, each) < 0 for each in references]
    run.state.strategy.before_update()
    found = {name: p.grad.clone() for name, p in trainable_parameters(run.network).items()}
    if not any(violated):
        assert all(torch.equal(found[name], before[name]) for name in before)
        return
    rows = np.stack([flat(each) for each in references])
    expected = nearest(flat(before), rows, margin)
    np.testing.assert_allclose(flat(found), expected, rtol=0, atol=1e-5 * abs(rows).max())
    for each in references:
        assert dot(found, each) >= -1e-5 * dot(each, each)


def flat(named) -> np.ndarray:
    return torch.cat([tensor.detach().flatten() for tensor in named.values()]).numpy()


def test_gem_leaves_a_run_that_diverges_to_the_loop():
    numbers = torch.tensor([-1.0, float("nan")]).double()
    assert not GEM.coefficients(None, numbers, torch.eye(2).double()).any()


@pytest.mark.parametrize("strategy", ["agem", "gem"])
def test_an_old_loss_at_its_minimum_asks_for_nothing(monkeypatch, strategy):
    run = third_experience(strategy, "never")
    TrainStep(run).flat_optimizer()
    for p in trainable_parameters(run.network).values():
        p.grad.fill_(-1)
    monkeypatch.setattr(
        run.state.strategy,
        "replay_loss",
        lambda tasks: 0 * sum(p.sum() for p in trainable_parameters(run.network).values()),
    )
    run.state.strategy.before_update()
    assert all((p.grad == -1).all() for p in trainable_parameters(run.network).values())


@pytest.mark.parametrize("strategy", ["replay", "agem", "gem"])
def test_nothing_is_recalled_of_the_tasks_that_are_learned_now(strategy):
    sections = THREE | {"stream": [{"tasks": [t], "steps": 12} for t in ("a", "b", "a", "c")]}
    run = made(strategy, sections, knobs={"memory": 30})
    go(run, 25)  # in the second experience of a
    seen = []
    forward = run.network.forward
    run.network.forward = lambda task, *rest: seen.append(task) or forward(task, *rest)
    if strategy == "replay":
        run.state.strategy.penalty({})
    else:
        run.state.strategy.before_update()
    assert seen == ["b"]
