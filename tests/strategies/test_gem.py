"""GEM and A-GEM: which gradients are projected, and to which."""

from copy import deepcopy

import numpy as np
import pytest
import scipy.optimize
import torch
from hypothesis import given
from hypothesis import strategies as st
from properties import examples, seeds
from stream_fixtures import (
    MOMENTUM,
    TWO,
    assert_same_weights,
    batches,
    cross_entropy,
    follow_optimizer,
    make_run,
    step_until,
)
from toy_tasks import GROWING, STREAM

from thalnet_mtl.strategies import gem
from thalnet_mtl.strategies.base import trainable_parameters
from thalnet_mtl.strategies.gem import GEM
from thalnet_mtl.training.context import RunContext
from thalnet_mtl.training.growth.base import grow_if_due
from thalnet_mtl.training.step import TrainStep


def memory_gradient(run: RunContext, *tasks: str) -> dict[str, torch.Tensor]:
    """Return the gradient of the mean loss of what is stored of older tasks, by a plain loop."""
    older = {
        t: parts for t, parts in run.state.strategy.stored.items() if t not in run.experience.tasks
    }
    older = {t: parts for t, parts in older.items() if not tasks or t in tasks}
    losses = [
        cross_entropy(run.network, task, x[None], y[None])
        for task, ((xs, ys, *_), _) in older.items()
        for x, y in zip(xs, ys, strict=True)
    ]
    named = trainable_parameters(run.network)
    gradients = torch.autograd.grad(
        torch.stack(losses).mean(), list(named.values()), materialize_grads=True
    )
    return dict(zip(named, gradients, strict=True))


def dot(first, second) -> float:
    return sum((first[name] * second[name]).sum().item() for name in second)


def third_experience(strategy: str, growing: str) -> RunContext:
    """A run before the first step of its third task, with what it grew for it."""
    run = make_run(strategy, STREAM | {"growth": GROWING[growing]}, "thalnet", {"memory": 10})
    step_until(run, 40)
    grow_if_due(run)
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
    projected = {name: p.grad.clone() for name, p in trainable_parameters(run.network).items()}
    if along >= 0:
        assert all(torch.equal(projected[name], before[name]) for name in before)
        return
    square = dot(reference, reference)
    assert dot(projected, reference) == pytest.approx(0, abs=1e-6 * square)
    for name in before:
        expected = before[name] - along / square * reference[name]
        torch.testing.assert_close(projected[name], expected, rtol=1e-5, atol=1e-7)


TURNED = TWO["tasks"] | {"b": {"name": "toy_turned"}}


@pytest.mark.parametrize("strategy", ["agem", "gem"])
def test_one_older_task_trains_as_a_plain_loop_that_projects(monkeypatch, strategy):
    """GEM without a margin is A-GEM then."""
    monkeypatch.setattr(gem, "MARGIN", 0.0)
    run = make_run(strategy, TWO | {"tasks": TURNED}, "gru", {"memory": 8})
    step_until(run, 12)
    network = deepcopy(run.network)
    buffers = follow_optimizer(run, network).state
    momentum = {
        n: buffers[p]["momentum_buffer"] for n, p in network.named_parameters() if p in buffers
    }
    (xs, ys, *_), _ = run.state.strategy.stored["a"]
    step_until(run, 24)
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


def gem_by_hand(gradient, references, margin: float) -> np.ndarray:
    """Return the gradient that GEM makes of a gradient, by its own solver."""
    along, products = references @ gradient, references @ references.T
    if (along >= 0).all():
        return gradient
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gem, "MARGIN", float(margin))
        v = GEM.coefficients(None, torch.from_numpy(along), torch.from_numpy(products))
    return gradient + v.numpy() @ references


def nearest(gradient, references, margin: float) -> np.ndarray:
    """The same by non-negative least squares: v - margin are the factors that are sought."""
    shifted = gradient + margin * references.sum(0)
    return shifted + scipy.optimize.nnls(references.T, -shifted)[0] @ references


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
    projected = gem_by_hand(np.array(gradient, float), np.array(references, float), margin)
    np.testing.assert_allclose(projected, expected, atol=1e-8)


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
    projected = gem_by_hand(gradient, references, margin)
    lengths = np.linalg.norm(references, axis=1)
    largest = np.linalg.norm(gradient) + margin * lengths.sum()
    assert (references @ projected / lengths).min() > -1e-6 * largest
    if (references @ gradient >= 0).all():
        assert projected is gradient
    else:
        np.testing.assert_allclose(
            projected, nearest(gradient, references, margin), rtol=0, atol=1e-3 * largest
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
    projected = {name: p.grad.clone() for name, p in trainable_parameters(run.network).items()}
    if not any(violated):
        assert all(torch.equal(projected[name], before[name]) for name in before)
        return
    rows = np.stack([flat(each) for each in references])
    expected = nearest(flat(before), rows, margin)
    np.testing.assert_allclose(flat(projected), expected, rtol=0, atol=1e-5 * abs(rows).max())
    for each in references:
        assert dot(projected, each) >= -1e-5 * dot(each, each)


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
