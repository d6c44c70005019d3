"""Outcomes of the levels of ``ops``, compared with the definition."""

import copy

import pytest
import torch
from properties import gradients, normal, task_inputs

from thalnet_mtl.models.thalnet import State
from thalnet_mtl.ops import BACKENDS

FAST = [name for name in BACKENDS if name not in ("reference", "triton")]
every_level = pytest.mark.parametrize("ops", FAST)


every_reading = pytest.mark.parametrize("reading", ["weight_norm", "fast_softmax", "fast_gaussian"])


ALL = "ys", "center", "memory"


def outcome(net, ops, batch, time, dtype, xs=None, state=None, parts=ALL, still=(), **options):
    """Outputs, state and all gradients of a sum over ``parts``, by name; ``still`` has none."""
    net.ops = ops if net.explain(active=options.get("active"))[ops] is None else "auto"
    xs = xs or task_inputs(net, batch, time)
    placement = net.placement(options.get("active"))
    widths = placement.center_width, placement.memory_width
    if state is None:
        state = [normal(batch, width, seed=k).tanh() for k, width in enumerate(widths)]
    leaves = xs | dict(zip(("center 0", "memory 0"), state, strict=True))
    leaves = {
        name: leaf.detach().to(dtype).requires_grad_(name not in still)
        for name, leaf in leaves.items()
    }
    start = State(leaves["center 0"], leaves["memory 0"])
    options = {"outputs": tuple(net.slots)} | options
    ys, last = net({name: leaves[name] for name in xs}, start, **options)
    found = {"ys": ys, "center": last.center, "memory": last.memory}
    # Without steps of memory nothing depends on it.
    taken = {name: part for name, part in found.items() if name in parts and part.numel()}
    weighed = [(part * normal(*part.shape, seed=9).to(dtype)).sum() for part in taken.values()]
    total = sum(weighed, torch.zeros(()))
    learns = {k: v for k, v in (leaves | dict(net.named_parameters())).items() if v.requires_grad}
    found |= {f"d {name}": part for name, part in gradients(total, learns).items()}
    return {name: part.detach() for name, part in found.items()}


def error(found, expected):
    """Relative L2 of the worst part. A scale is a sum that cancels: it counts with its matrix."""
    worst = 0.0
    for name in expected:
        parts = [name]
        if name.endswith("reading.scale") and name.replace("scale", "weight") in expected:
            parts.append(name.replace("scale", "weight"))
        other = sum(float((found[p] - expected[p]).double().square().sum()) for p in parts) ** 0.5
        size = sum(float(expected[p].double().square().sum()) for p in parts) ** 0.5
        worst = max(worst, other / (size + 1e-30) if size > 1e-12 else other)
    return worst


def assert_agrees(net, ops, dtype, **call):
    """As near to the definition as its type allows, and no part missing.

    In single precision the definition in double decides, with what rounding does to itself.
    """
    assert net.explain(active=call.get("active"))[ops] is None
    truth = outcome(copy.deepcopy(net).double(), "reference", dtype=torch.float64, **call)
    found = outcome(net.to(dtype), ops, dtype=dtype, **call)
    assert found.keys() == truth.keys()
    limit = 1e-12
    if dtype == torch.float32:
        limit = 5e-6 + 5 * error(outcome(net, "reference", dtype=dtype, **call), truth)
    assert error(found, truth) < limit
    return found


def one_thread_and(threads, function):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        return function()
    finally:
        torch.set_num_threads(before)
