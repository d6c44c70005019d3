"""Switching linear dynamics follow their equations, and every rule contributes to the targets."""

import numpy as np
import pytest
import torch

from thalnet_mtl import UserError
from thalnet_mtl.registry import lookup
from thalnet_mtl.tasks.switching import FORCES, OUTPUTS


def task(**options):
    return lookup("task", "switching_dynamics")(**options).load("cpu")


def test_targets_follow_linear_systems_that_move_one_at_a_time():
    """Least squares on the history of each rule alone explains the targets to rounding."""
    rules, state, steps = 2, 2, 5
    data = task(rules=rules, state=state, steps=steps).split("train")
    xs, ys = data.xs.double(), data.ys.double()
    active = xs[..., FORCES:].argmax(-1)
    # y_T is linear in the inputs of the steps, once it is known which rule was on at which step.
    for pattern in ([0, 0, 0, 0, 0], [0, 1, 1, 0, 1], [1, 0, 0, 0, 1]):
        same = (active == torch.tensor(pattern)).all(1)
        inputs = xs[same][..., :FORCES].flatten(1)
        solution = torch.linalg.lstsq(inputs, ys[same][:, -1]).solution
        residual = ys[same][:, -1] - inputs @ solution
        assert same.sum() > 100 and residual.abs().max() < 1e-4
        # The oldest step of a rule has decayed once for every later step at which it was on.
        weights = solution.view(steps, FORCES, OUTPUTS).flatten(1).norm(dim=1)
        for rule in set(pattern):
            on = [t for t in range(steps) if pattern[t] == rule]
            assert weights[on].min() > 1e-3


def test_a_rule_that_is_off_keeps_its_state():
    """After a step of one rule the target changes by what that rule did alone."""
    data = task(rules=2, state=1, steps=2).split("train")
    xs, ys = data.xs.double(), data.ys.double()
    off = (xs[:, 0, FORCES] == 1) & (xs[:, 1, FORCES + 1] == 1)
    change = ys[off][:, 1] - ys[off][:, 0]
    second = torch.linalg.lstsq(xs[off][:, 1, :FORCES], change)
    assert (change - xs[off][:, 1, :FORCES] @ second.solution).abs().max() < 1e-4


def test_splits_are_fixed_by_the_seed_and_differ_from_each_other():
    first, again, other = task(steps=3), task(steps=3), task(steps=3, seed=1)
    assert torch.equal(first.split("train").xs, again.split("train").xs)
    assert not torch.equal(first.split("train").ys, other.split("train").ys)
    rows = [{row.numpy().tobytes() for row in first.split(s).xs} for s in ("train", "test")]
    assert not rows[0] & rows[1]


def test_targets_have_mean_0_and_deviation_1():
    ys = task(rules=3).split("train").ys
    assert abs(float(ys.mean())) < 0.05
    np.testing.assert_allclose(float(ys.std(correction=0)), 1, rtol=1e-5)


@pytest.mark.parametrize("options", [{"rules": 0}, {"state": 65}, {"steps": -1}, {"seed": -1}])
def test_sizes_out_of_range_are_refused(options):
    (name,) = options
    with pytest.raises(UserError, match=f"{name} is {options[name]}; expected"):
        task(**options)
