"""Synaptic intelligence against the formula of its paper, in plain PyTorch."""

from copy import deepcopy

import torch
from stream_fixtures import (
    THREE,
    assert_same_weights,
    batches,
    make_run,
    sgd,
    step_until,
    train_plainly,
)


def test_synaptic_intelligence_is_the_path_integral_of_a_plain_loop():
    run = make_run("si", THREE, "gru")
    network = deepcopy(run.network)
    omega: dict = {}  # Ω
    anchor: dict = {}
    optimizer = sgd(network)
    for number, task in enumerate("abc"):
        step_until(run, 12 * (number + 1))
        start = {n: p.detach().clone() for n, p in network.named_parameters()}
        path = {n: torch.zeros_like(p) for n, p in start.items()}
        # Heads of other tasks have no gradient and do not move.
        users = {n: f"adapters.{task}." in n or n.startswith("body.") for n in start}
        for name, p in network.named_parameters():
            p.requires_grad_(users[name])

        def after(gradients, steps, path=path):
            for name in gradients:
                path[name] -= gradients[name] * steps[name]

        def penalty(network, xs):
            now = dict(network.named_parameters())
            return 3 * sum((omega[n] * (now[n] - anchor[n]) ** 2).sum() for n in omega)

        def penalty_so_far(network, xs):
            return penalty(network, xs) if omega else 0

        train_plainly(network, task, batches(run, task, 12), penalty_so_far, after, optimizer)
        for name, p in network.named_parameters():
            far = p.detach() - start[name]
            omega[name] = omega.get(name, 0) + path[name].clamp(min=0) / (far**2 + 0.1)
            anchor[name] = p.detach().clone()
        assert_same_weights(run, network)
        [(theirs, weight)] = run.state.strategy.anchors
        for name in omega:
            torch.testing.assert_close(weight[name] / 2, omega[name], rtol=1e-3, atol=1e-9)
            torch.testing.assert_close(theirs[name], anchor[name], rtol=2e-5, atol=2e-6)
    assert max(value.max() for value in omega.values()) > 1e-3  # there was something to compare
