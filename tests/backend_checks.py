"""Compare the results of a backend with those of the reference."""

import copy

import pytest
import torch
from properties import gradients, normal, task_inputs

from thalnet_mtl.models.thalnet import State
from thalnet_mtl.ops import BACKENDS, buffers

FAST = [name for name in BACKENDS if name not in ("reference", "triton")]
RESULTS = "ys", "center", "memory"

every_backend = pytest.mark.parametrize("backend", FAST)
every_reading = pytest.mark.parametrize("reading", ["weight_norm", "fast_softmax", "fast_gaussian"])


def run_backend(
    net, backend, batch, time, dtype, xs=None, state=None, summed=RESULTS, constant=(), **options
):
    """Return results and all gradients of a weighted sum of the results ``summed``, by name.

    Inputs and states in ``constant`` get no gradient. A backend that cannot run the network is
    replaced by ``auto``.
    """
    supported = net.explain(active=options.get("active"))[backend] is None
    net.ops = backend if supported else "auto"
    xs = xs or task_inputs(net, batch, time)
    placement = net.placement(options.get("active"))
    widths = placement.center_width, placement.memory_width
    if state is None:
        state = [normal(batch, width, seed=k).tanh() for k, width in enumerate(widths)]
    leaves = xs | dict(zip(("center 0", "memory 0"), state, strict=True))
    leaves = {
        name: leaf.detach().to(dtype).requires_grad_(name not in constant)
        for name, leaf in leaves.items()
    }
    start = State(leaves["center 0"], leaves["memory 0"])
    options = {"outputs": tuple(net.slots)} | options
    torch.manual_seed(0)  # of random masks
    ys, last = net({name: leaves[name] for name in xs}, start, **options)
    results = {"ys": ys, "center": last.center, "memory": last.memory}
    # An empty memory has no gradient.
    terms = [result for name, result in results.items() if name in summed and result.numel()]
    weighted = [(term * normal(*term.shape, seed=9).to(dtype)).sum() for term in terms]
    total = sum(weighted, torch.zeros(()))
    trainable = leaves | dict(net.named_parameters())
    trainable = {name: leaf for name, leaf in trainable.items() if leaf.requires_grad}
    results |= {f"d {name}": grad for name, grad in gradients(total, trainable).items()}
    return {name: result.detach() for name, result in results.items()}


def largest_error(results, expected):
    """Return the largest relative L2 error of a result or gradient.

    The gradient of a scale is a sum that cancels, so it is counted together with its matrix.
    """
    worst = 0.0
    for name in expected:
        names = [name]
        if name.endswith("reading.scale") and name.replace("scale", "weight") in expected:
            names.append(name.replace("scale", "weight"))
        squares = [float((results[n] - expected[n]).double().square().sum()) for n in names]
        difference = sum(squares) ** 0.5
        size = sum(float(expected[n].double().square().sum()) for n in names) ** 0.5
        worst = max(worst, difference / (size + 1e-30) if size > 1e-12 else difference)
    return worst


@torch.no_grad()
def disturbed(net):
    """Return a copy in double precision, its weights changed as rounding to float32 does."""
    copied, generator = copy.deepcopy(net).double(), torch.Generator().manual_seed(0)
    for weight in (*copied.parameters(), *copied.buffers()):
        if weight.is_floating_point():
            noise = torch.rand(weight.shape, generator=generator, dtype=weight.dtype) * 2 - 1
            weight.mul_(1 + 2**-24 * noise.to(weight.device))
    return copied


def assert_agrees(net, backend, dtype, **call):
    """Assert that a backend agrees with the reference as closely as its type allows.

    Single precision is compared with the reference in double precision; it may have five times
    the rounding error of the reference in single precision. Where terms cancel, that error may be
    small by luck: it counts at least as the effect of weights that are rounded.

    Returns the results.
    """
    assert net.explain(active=call.get("active"))[backend] is None
    exact = run_backend(copy.deepcopy(net).double(), "reference", dtype=torch.float64, **call)
    results = run_backend(net.to(dtype), backend, dtype=dtype, **call)
    assert results.keys() == exact.keys()
    limit = 1e-12
    if dtype == torch.float32:
        reference = run_backend(net, "reference", dtype=dtype, **call)
        rounded = run_backend(disturbed(net), "reference", dtype=torch.float64, **call)
        limit = 5e-6 + 5 * max(largest_error(each, exact) for each in (reference, rounded))
    assert largest_error(results, exact) < limit
    return results


def with_threads(threads, function):
    """Return the result of a function that runs with this number of threads."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        return function()
    finally:
        torch.set_num_threads(before)


def poison_new_memory(monkeypatch):
    """Fill all newly allocated memory with NaN, that of pooled buffers included."""

    def poisoned(make):
        def make_poisoned(*args, **kwargs):
            tensor = make(*args, **kwargs)
            return tensor.fill_(torch.nan) if tensor.is_floating_point() else tensor

        return make_poisoned

    for owner, name in [(torch, "empty_like"), (torch, "empty"), (torch.Tensor, "new_empty")]:
        monkeypatch.setattr(owner, name, poisoned(getattr(owner, name)))
    monkeypatch.setattr(buffers, "MIN_BYTES", 0)
    monkeypatch.setattr(buffers, "_free", {})
    monkeypatch.setattr(buffers.np, "empty", lambda size, dtype: buffers.np.full(size, 255, dtype))
