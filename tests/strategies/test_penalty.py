"""Quadratic penalties: their value, their gradient, and anchors in a network that changes."""

from copy import deepcopy

import pytest
import torch
from stream_fixtures import (
    TWO,
    make_run,
    step_until,
)
from toy_tasks import GROWING, STREAM

from thalnet_mtl.strategies.base import trainable_parameters
from thalnet_mtl.topology.spec import ModuleSpec
from thalnet_mtl.training import growth
from thalnet_mtl.training.context import RunContext
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
    growth.grow_if_due(run)
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


def test_a_module_that_comes_back_under_its_name_is_a_new_one():
    run = make_run("ewc", {"tasks": TWO["tasks"], "stream": TWO["stream"]}, "thalnet")
    extra = ModuleSpec("extra", features=4, context=4)
    on_topology_change(run, run.network.attach(extra, read_by=["output"]))
    step_until(run, 12)
    on_topology_change(run, run.network.detach("extra"))
    on_topology_change(
        run, run.network.attach(ModuleSpec("extra", features=3, context=5), read_by=["output"])
    )
    assert run.state.strategy.penalty({}).item() == pytest.approx(0, abs=1e-12)
