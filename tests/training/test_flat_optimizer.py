"""Flattened parameters are updated as PyTorch's optimizers update them one by one."""

import copy

import pytest
import torch
from torch import nn

from thalnet_mtl.registry import entries
from thalnet_mtl.training.flat_optimizer import FlatOptimizer

SHAPES = {"a": (5, 7), "b": (3,), "c": (), "d": (2, 3, 4), "e": (65,)}
USED = {"one": "abc", "two": "cd"}  # e is used by none
DECAY = {"weight_decay": 0.1}

OPTIMIZERS = entries("optimizer")
# One that a user might add: NAdam has a second moment that is one number, beside its step.
KINDS = OPTIMIZERS | {"nadam": torch.optim.NAdam}


def made(names=SHAPES):
    generator = torch.Generator().manual_seed(0)
    draws = {n: torch.randn(shape, generator=generator) for n, shape in SHAPES.items()}
    return {name: nn.Parameter(draws[name]) for name in names}


def groups(parameters):
    first = {n: p for n, p in parameters.items() if n != "b"}
    return [{"params": list(first.values())}, {"params": [parameters["b"]], "weight_decay": 0.0}]


def used_by(parameters):
    return {t: [parameters[n] for n in ns if n in parameters] for t, ns in USED.items()}


def loss(parameters, tasks):
    return sum(
        (parameters[n].sin() * (1 + k)).square().sum()
        for k, task in enumerate(tasks)
        for n in USED[task]
    )


def train(kind, steps, join):
    parameters = made()
    optimizer = KINDS[kind](groups(parameters), lr=1e-3, **DECAY)
    joined = FlatOptimizer(optimizer, used_by(parameters)) if join else None
    for step in range(steps):
        tasks = (["one"], ["two"], ["one", "two"])[step % 3]
        if joined:
            joined.zero_grad(tasks)
        else:
            optimizer.zero_grad()
        loss(parameters, tasks).backward()
        rate = 0.01 / (1 + step)
        if joined:
            joined.set_rate(rate)
            joined.step()
        else:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
        if join and step == 4:  # begin anew in the middle
            joined = FlatOptimizer(optimizer, used_by(parameters))
    return parameters, optimizer


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_and_moments_are_those_of_the_optimizer_alone(kind):
    mine, optimizer = train(kind, 9, join=True)
    own, plain = train(kind, 9, join=False)
    for name, parameter in own.items():
        torch.testing.assert_close(mine[name], parameter, rtol=1e-6, atol=1e-7)
        state, expected = optimizer.state.get(mine[name], {}), plain.state.get(parameter, {})
        assert state.keys() == expected.keys()
        for key, value in expected.items():
            torch.testing.assert_close(state[key], value, rtol=1e-6, atol=1e-7)
    assert torch.equal(mine["e"], made()["e"])  # not even decayed
    assert [group["lr"] for group in optimizer.param_groups] == [0.01 / 9] * 2


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_the_place_among_others_does_not_change_a_bit(kind):
    found = []
    for names in ("a", "ad", "da", "eda"):
        parameters = made(names)
        optimizer = OPTIMIZERS[kind](list(parameters.values()), lr=0.01, **DECAY)
        joined = FlatOptimizer(optimizer, {"task": parameters.values()})
        for _ in range(5):
            joined.zero_grad(["task"])
            sum(p.exp().sum() for p in parameters.values()).backward()
            joined.step()
        found.append(parameters["a"].detach().clone())
    assert all(torch.equal(one, found[0]) for one in found)


def test_there_are_as_few_tensors_as_groups_and_sets_of_tasks():
    parameters = made()
    joined = FlatOptimizer(OPTIMIZERS["adam"](groups(parameters)), used_by(parameters))
    assert len(joined.rows) == 5  # a, c, d, e differ in their tasks, b in its group
    alike = FlatOptimizer(OPTIMIZERS["adam"](parameters.values()), {"task": parameters.values()})
    assert len(alike.rows) == 1
    lone = [parameters["a"], parameters["d"]]
    apart = FlatOptimizer(
        OPTIMIZERS["adam"](parameters.values()), {"task": parameters.values()}, lone
    )
    assert len(apart.rows) == 3


def test_a_state_dict_of_the_optimizer_holds_all_that_was_learned():
    parameters, optimizer = train("adam", 5, join=True)
    again = {name: nn.Parameter(p.detach().clone()) for name, p in parameters.items()}
    other = OPTIMIZERS["adam"](groups(again))
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for each, by in ((parameters, optimizer), (again, other)):
        joined = FlatOptimizer(by, used_by(each))
        joined.zero_grad(["one"])
        loss(each, ["one"]).backward()
        joined.step()
    assert all(torch.equal(again[name], p) for name, p in parameters.items())
