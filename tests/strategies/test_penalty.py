"""Quadratic penalties: their value, their gradient, and anchors in a network that changes."""

from copy import deepcopy

import pytest
import torch
from stream_fixtures import (
    THREE,
    TWO,
    make_run,
    step_until,
)
from toy_tasks import GROWING, STREAM

from thalnet_mtl.strategies import ewc
from thalnet_mtl.strategies.base import trainable_parameters
from thalnet_mtl.topology.spec import ModuleSpec
from thalnet_mtl.training.context import RunContext
from thalnet_mtl.training.growth.base import grow_if_due
from thalnet_mtl.training.topology_changes import on_topology_change


def random_anchors(run: RunContext, count: int, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    return [
        tuple(
            {n: torch.rand(p.shape, generator=generator).double()
             for n, p in trainable_parameters(run.network).items()}
            for _ in range(2)
        )
        for _ in range(count)
    ]  # fmt: skip


@pytest.mark.parametrize("strategy", ["ewc", "online_ewc", "si"])
def test_the_penalty_and_its_gradient_are_the_quadratic_of_every_anchor(strategy):
    run = make_run(strategy)
    run.state.strategy.anchors = random_anchors(run, 2)
    loss = run.state.strategy.penalty({})
    value, expected = 0.0, {}
    for anchor, weight in run.state.strategy.anchors:
        for name, p in run.network.named_parameters():
            far = p.detach() - anchor[name]
            value += 3 / 2 * (weight[name] * far**2).sum().item()
            expected[name] = expected.get(name, 0) + 3 * weight[name] * far
    assert loss.item() == pytest.approx(value, rel=1e-12)
    loss.backward()
    for name, p in run.network.named_parameters():
        torch.testing.assert_close(p.grad, expected[name], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("strategy", ["ewc", "online_ewc", "si"])
def test_anchors_follow_a_net_that_grows_and_new_weights_are_free(strategy):
    # The shared modules read what is attached: their readings get columns.
    run = make_run(strategy, STREAM | {"growth": GROWING["shared"]}, "thalnet")
    step_until(run, 20)
    small = deepcopy(run.state.strategy.anchors[0])
    name = next(n for n in small[1] if n.startswith("body.cells.output.reading"))
    grow_if_due(run)
    now = trainable_parameters(run.network)
    grown = {n for n in small[1] if now[n].shape != small[1][n].shape}
    assert name in grown
    anchor, weight = run.state.strategy.anchors[0]
    for n in grown:
        assert anchor[n].shape == weight[n].shape == now[n].shape
        width = small[1][n].shape[1]
        assert torch.equal(anchor[n][:, :width], small[0][n])
        assert torch.equal(weight[n][:, :width], small[1][n])
        assert not weight[n][:, width:].any()
    assert not any("toy_wide" in n for n in weight)
    penalty = run.state.strategy.penalty({})
    assert penalty.item() == pytest.approx(0, abs=1e-12)  # at the anchor still


REGULARIZERS = ["ewc", "online_ewc", "si"]
MODULAR = {"tasks": TWO["tasks"], "stream": TWO["stream"]}


def kept(strategy):
    """Return all that a strategy keeps about parameters, by name."""
    parts = [part for anchor in strategy.anchors for part in anchor]
    parts += [getattr(strategy, name, {}) for name in ("start", "path")]  # those of si
    return [part for part in parts if part]


def change(run, verb, *arguments, **options):
    on_topology_change(run, getattr(run.network, verb)(*arguments, **options))


@pytest.mark.parametrize("strategy", REGULARIZERS)
@pytest.mark.parametrize("frozen", [False, True])
# Between two experiences, and on the way; as wide as before, and not.
@pytest.mark.parametrize(("step", "features"), [(12, 3), (14, 4)])
def test_a_module_that_comes_back_under_its_name_is_a_new_one(
    monkeypatch, strategy, frozen, step, features
):
    monkeypatch.setattr(ewc, "SAMPLES", 10)
    run = make_run(strategy, MODULAR, "thalnet")
    change(run, "attach", ModuleSpec("extra", features=4, context=4), read_by=["output"])
    step_until(run, step)
    if frozen:
        change(run, "freeze", "extra")
    change(run, "detach", "extra")
    assert not [name for named in kept(run.state.strategy) for name in named if "extra" in name]
    change(run, "attach", ModuleSpec("extra", features, context=4), read_by=["output"])
    parameters = dict(run.network.named_parameters())
    for named in kept(run.state.strategy):  # that of the output module has lost, and got, columns
        assert not [name for name in named if "extra" in name]
        assert all(tensor.shape == parameters[name].shape for name, tensor in named.items())
        assert not named["body.cells.output.reading.weight"][:, -features:].any()
    step_until(run, 24)


@pytest.mark.parametrize("strategy", REGULARIZERS)
def test_a_head_that_is_removed_and_added_is_a_new_one(monkeypatch, strategy):
    monkeypatch.setattr(ewc, "SAMPLES", 10)
    run = make_run(strategy, MODULAR, "thalnet")
    step_until(run, 14)
    change(run, "freeze", task="a")
    change(run, "remove_task", "a")
    change(run, "add_task", "a", run.tasks["a"].spec)
    assert not [n for named in kept(run.state.strategy) for n in named if "adapters.a." in n]


@pytest.mark.parametrize("strategy", REGULARIZERS)
@pytest.mark.parametrize("step", [12, 18])
def test_what_was_frozen_and_learns_again_keeps_its_importance(monkeypatch, strategy, step):
    monkeypatch.setattr(ewc, "SAMPLES", 10)
    sections = {"tasks": THREE["tasks"], "stream": THREE["stream"]}
    run = make_run(strategy, sections, "thalnet")
    step_until(run, 12)
    [(anchor, importance)] = run.state.strategy.anchors
    names = [name for name in importance if name.startswith("body.cells.input.")]
    assert any(importance[name].any() for name in names)
    step_until(run, step)
    change(run, "freeze", "input")
    step_until(run, 24)
    change(run, "unfreeze", "input")
    [(later_anchor, later)] = run.state.strategy.anchors
    for name in names:
        if step == 12:  # it has stood still during the whole experience
            assert torch.equal(later_anchor[name], anchor[name])
            assert torch.equal(later[name], importance[name])
        elif strategy == "si":  # its path up to then counts, and it is pulled to where it stood
            assert torch.equal(later_anchor[name], dict(run.network.named_parameters())[name])
            assert (later[name] >= importance[name]).all()
    if step == 18 and strategy == "si":
        assert any((later[name] > importance[name]).any() for name in names)
    terms = run.state.strategy.penalty({})
    with torch.no_grad():
        for name in names:
            run.network.get_parameter(name).add_(0.1)
    assert run.state.strategy.penalty({}) > terms  # they are pulled again
