"""Losses of several tasks: weighted, by uncertainty, and by TorchJD's aggregators."""

import math

import pytest
import torch
from properties import assert_close
from torch import nn
from torchjd.autojac import backward as jacobian_descent

from thalnet_mtl.errors import UserError
from thalnet_mtl.registry import entries
from thalnet_mtl.training import weighting
from thalnet_mtl.training.divergence import Diverged
from thalnet_mtl.training.weighting import AGGREGATORS

TASKS = ("a", "b", "c")
WEIGHTS = {"a": 1.0, "b": 0.5, "c": 2.0}
KINDS = {"a": "class", "b": "numbers", "c": "labels"}
STATEFUL = ["nash_mtl"]


def make_weighting(name, weights):
    return weighting.make_weighting(name, weights, KINDS)


class Tasks(nn.Module):
    """A trunk that all tasks share, a bridge for two of them, and a head for each."""

    def __init__(self):
        super().__init__()
        self.trunk, self.bridge = nn.Linear(3, 4), nn.Linear(4, 4)
        self.heads = nn.ModuleDict({task: nn.Linear(4, 1) for task in TASKS})

    def losses(self, step=0):
        losses = {}
        for k, task in enumerate(TASKS):
            generator = torch.Generator().manual_seed(10 * step + k)
            xs = torch.randn(7, 3, generator=generator, dtype=torch.float64)
            ys = torch.tanh(self.trunk(xs))
            if task != "c":
                ys = torch.tanh(self.bridge(ys))
            losses[task] = (self.heads[task](ys) - (-1) ** k).square().mean()
        return losses

    def used(self, task):
        parts = ("trunk.", f"heads.{task}.", *(("bridge.",) if task != "c" else ()))
        return {name: p for name, p in self.named_parameters() if name.startswith(parts)}

    def gradients(self):
        found = {name: p.grad.clone() for name, p in self.named_parameters()}
        self.zero_grad()
        return found


@pytest.fixture
def tasks():
    torch.manual_seed(0)
    return Tasks().double()


def test_fixed_weights_are_the_gradient_of_the_weighted_sum(tasks):
    make_weighting("fixed", WEIGHTS).backward(tasks.losses(), tasks.used)
    found = tasks.gradients()
    losses = tasks.losses()
    (losses["a"] + 0.5 * losses["b"] + 2 * losses["c"]).backward()
    for name, gradient in tasks.gradients().items():
        assert_close(found[name], gradient)


def test_uncertainty_weights_by_learned_variances(tasks):
    made = make_weighting("uncertainty", WEIGHTS).double()
    with torch.no_grad():
        for k, s in enumerate(made.log_variance.values()):
            s.fill_(0.3 * k - 0.2)
    losses = {task: loss.item() for task, loss in tasks.losses().items()}
    made.backward(tasks.losses(), tasks.used)
    found = tasks.gradients()
    for k, task in enumerate(TASKS):
        s = torch.tensor(0.3 * k - 0.2, dtype=torch.float64)
        factor = 0.5 if KINDS[task] == "numbers" else 1.0
        expected = WEIGHTS[task] * (0.5 - factor * (-s).exp() * losses[task])
        assert_close(made.log_variance[task].grad, expected)
    fixed = {t: WEIGHTS[t] * (-made.log_variance[t]).exp().item() for t in TASKS}
    fixed["b"] /= 2
    make_weighting("fixed", fixed).backward(tasks.losses(), tasks.used)
    for name, gradient in tasks.gradients().items():
        assert_close(found[name], gradient)


@pytest.mark.parametrize(("task", "variance"), [("a", 2 * 0.7), ("b", 0.7), ("c", 2 * 0.7)])
def test_uncertainty_settles_at_the_mean_squared_error_of_numbers_and_twice_other_losses(
    task, variance
):
    made = make_weighting("uncertainty", {task: 1.0})
    optimizer = torch.optim.SGD(made.parameters(), lr=0.5)
    for _ in range(300):
        optimizer.zero_grad()
        made.backward({task: torch.tensor(0.7)}, lambda task: {})
        optimizer.step()
    assert made.log_variance[task].exp().item() == pytest.approx(variance, rel=1e-4)


def test_the_uncertainty_of_numbers_is_the_likelihood_of_a_normal_distribution():
    made = make_weighting("uncertainty", {"b": 1.0}).double()
    errors = torch.tensor([0.3, -1.2, 2.0], dtype=torch.float64)
    totals, likelihoods = [], []
    for s in (-0.5, 0.0, 1.3):
        made.log_variance["b"].data.fill_(s)
        totals.append(sum(made.terms({"b": errors.square().mean()})).item())
        normal = torch.distributions.Normal(0, torch.tensor(s, dtype=torch.float64).exp().sqrt())
        likelihoods.append(-normal.log_prob(errors).mean().item())
    differences = [
        total - likelihood for total, likelihood in zip(totals, likelihoods, strict=True)
    ]
    assert differences == pytest.approx([-0.5 * math.log(2 * math.pi)] * 3, abs=1e-12)


def test_a_step_without_targets_leaves_an_uncertainty_as_it_is():
    made = make_weighting("uncertainty", {"a": 1.0, "b": 1.0})
    x = torch.ones((), requires_grad=True)
    made.backward({"a": x * 0, "b": x * 2}, lambda task: {})
    assert made.log_variance["a"].grad == 0 and made.log_variance["b"].grad == 0.5 - 1


@pytest.mark.parametrize("name", list(entries("weighting")))
@pytest.mark.parametrize("absent", ["a", "c", "ab", "abc"])
def test_tasks_without_targets_neither_stop_nor_spoil_the_others(tasks, name, absent):
    """Their gradients are exactly zero: the step is that of the other tasks."""
    torch.manual_seed(1)
    losses = {task: loss * (task not in absent) for task, loss in tasks.losses().items()}
    make_weighting(name, WEIGHTS).double().backward(losses, tasks.used)
    found = tasks.gradients()
    torch.manual_seed(1)
    left = {task: loss for task, loss in tasks.losses().items() if task not in absent}
    if left:
        make_weighting(name, WEIGHTS).double().backward(left, tasks.used)
    for key, parameter in tasks.named_parameters():
        expected = parameter.grad
        if expected is None or (key.startswith("bridge.") and absent == "a"):
            continue  # without task a the bridge belongs to b alone
        assert_close(found[key], expected)
    assert all(gradient.isfinite().all() for gradient in found.values())
    assert any(gradient.any() for gradient in found.values()) == (absent != "abc")


@pytest.mark.parametrize("name", sorted({*AGGREGATORS} - {*STATEFUL}))
def test_aggregators_do_what_torchjd_does_with_the_same_losses(tasks, name):
    torch.manual_seed(3)
    made = make_weighting(name, WEIGHTS)
    made.backward(tasks.losses(), tasks.used)
    found = tasks.gradients()
    shared = [*tasks.trunk.parameters(), *tasks.bridge.parameters()]
    losses = [WEIGHTS[task] * loss for task, loss in tasks.losses().items()]
    torch.manual_seed(3)
    jacobian_descent(losses, inputs=shared)
    for parameter in shared:
        assert parameter.jac.shape == (3, *parameter.shape)
    matrix = torch.cat([parameter.jac.flatten(1) for parameter in shared], dim=1)
    expected = made.aggregator_class(**made.options)(matrix).split([p.numel() for p in shared])
    names = [name for name in found if not name.startswith("heads.")]
    for key, gradient in zip(names, expected, strict=True):
        assert_close(found[key].flatten(), gradient)


@pytest.mark.parametrize("name", list(AGGREGATORS))
def test_parameters_of_one_task_get_its_plain_gradient(tasks, name):
    make_weighting(name, WEIGHTS).backward(tasks.losses(), tasks.used)
    found = tasks.gradients()
    for task, loss in tasks.losses().items():
        (WEIGHTS[task] * loss).backward()
        head = {key: p for key, p in tasks.used(task).items() if key.startswith("heads.")}
        for key, parameter in head.items():
            assert_close(found[key], parameter.grad)


def test_upgrad_never_conflicts_with_a_task(tasks):
    make_weighting("upgrad", WEIGHTS).backward(tasks.losses(), tasks.used)
    found = tasks.gradients()
    for task, loss in tasks.losses().items():
        own = {n: p for n, p in tasks.used(task).items() if not n.startswith("heads.")}
        gradients = torch.autograd.grad(loss, list(own.values()))
        product = sum((found[n] * g).sum() for n, g in zip(own, gradients, strict=True))
        assert product >= -1e-9


@pytest.mark.parametrize("name", list(entries("weighting")))
def test_one_task_alone_is_that_task(tasks, name):
    made = make_weighting(name, {"a": 1.0}).double()
    made.backward({"a": tasks.losses()["a"]}, tasks.used)
    found = {key: p.grad.clone() for key, p in tasks.used("a").items()}
    tasks.zero_grad()
    tasks.losses()["a"].backward()
    for key, parameter in tasks.used("a").items():
        assert_close(found[key], parameter.grad)


def test_frozen_parameters_get_no_gradient(tasks):
    tasks.trunk.requires_grad_(False)
    make_weighting("upgrad", WEIGHTS).backward(tasks.losses(), tasks.used)
    assert tasks.trunk.weight.grad is None and tasks.bridge.weight.grad is not None


@pytest.mark.parametrize("name", list(entries("weighting")))
def test_what_a_combination_carries_from_step_to_step_can_be_saved(tasks, name):
    def steps(made, start, stop):
        for step in range(start, stop):
            made.backward(tasks.losses(step), tasks.used)
            found.append(tasks.gradients())

    found: list = []
    torch.manual_seed(0)
    whole = make_weighting(name, WEIGHTS).double()
    steps(whole, 0, 2)
    saved, random = whole.state_dict(), torch.get_rng_state()
    steps(whole, 2, 4)
    again = make_weighting(name, WEIGHTS).double()
    again.load_state_dict(saved)
    torch.set_rng_state(random)
    steps(again, 2, 4)
    for one, other in zip(found[2:4], found[4:], strict=True):
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_nash_mtl_begins_anew_where_the_number_of_tasks_changes(tasks):
    made = make_weighting("nash_mtl", WEIGHTS)
    made.backward(tasks.losses(), tasks.used)
    two = {task: loss for task, loss in tasks.losses().items() if task != "c"}
    made.backward(two, tasks.used)
    assert made.get_extra_state()["rows"] == 2


def test_an_unknown_combination_names_the_closest():
    with pytest.raises(UserError, match=r"unknown weighting 'upgrade'.*Did you mean 'upgrad'"):
        make_weighting("upgrade", WEIGHTS)


def test_an_aggregator_without_torchjd_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"upgrad needs TorchJD: pip install 'thalnet-mtl\[mtl\]'"):
        make_weighting("upgrad", WEIGHTS)


def shared_gradient(name, rows, frozen=()):
    """Return the gradient of parameters that tasks share, with these gradients of their losses."""
    parameter = nn.Parameter(torch.zeros(len(rows[0])))
    combined = make_weighting(name, dict.fromkeys("abc"[: len(rows)], 1.0))
    losses = {k: parameter @ torch.tensor(row) for k, row in zip("abc", rows, strict=False)}
    losses |= {task: losses[task].detach() for task in frozen}
    combined.backward(losses, lambda task: {} if task in frozen else {"w": parameter})
    return parameter.grad


EVERY = [name for name in entries("weighting") if ":" not in name and not name.startswith("toy_")]


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize(
    "rows",
    [
        [[0.0, 0.0], [0.0, 0.0]],
        [[1.0, 2.0], [-1.0, -2.0]],
        [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]],
        [[1e-30, 2e-30], [-1e-30, 1e-30]],
        [[1e-42, 2e-42], [-1e-42, 1e-42]],
        [[1e25, 2e25], [-1e25, 1e25]],
        [[1e-15, 2e-15], [1e10, -1e10]],
    ],
)
def test_every_weighting_stands_gradients_of_any_size_and_direction(name, rows):
    assert shared_gradient(name, rows).isfinite().all()


@pytest.mark.parametrize("name", EVERY)
def test_a_task_without_gradient_takes_no_part(name):
    rows = [[1.0, 2.0], [3.0, -1.0]]
    torch.testing.assert_close(shared_gradient(name, rows, "b"), torch.tensor(rows[0]))
    assert shared_gradient(name, rows, "ab") is None


@pytest.mark.parametrize("name", AGGREGATORS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_gradient_that_is_not_finite_is_refused_with_its_task(name, value):
    with pytest.raises(Diverged, match="a gradient that is not finite of task 'b'"):
        shared_gradient(name, [[1.0, 2.0], [value, 1.0]])
