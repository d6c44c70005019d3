"""Helpers of several tests: tolerances, random networks, and the registered kinds.

``READINGS``, ``DESIGNS`` and ``BODIES`` come from the registry, so that an installed plug-in gets
the whole suite.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import own_bodies  # noqa: F401
import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor, nn

from thalnet_mtl.models.body import Body
from thalnet_mtl.models.recurrent import sized_body
from thalnet_mtl.models.thalnet import ThalNet
from thalnet_mtl.registry import entries, lookup
from thalnet_mtl.topology.spec import ModuleSpec

READINGS = list(entries("reading"))
LEARNED_READINGS = [
    name for name, kind in entries("reading").items() if list(kind(1, 1, 1).parameters())
]
DESIGNS = list(entries("module"))
BODIES = list(entries("body"))  # with those of ``own_bodies``

# Readings and designs of the paper, which are implemented in NumPy as well.
KNOWN_READINGS = ["linear", "weight_norm", "weight_norm_rows", "fast_softmax", "fast_gaussian"]
KNOWN_DESIGNS = ["ff", "gru", "ff_gru", "gru_ff", "ff_gru_ff"]

TOLERANCE = {torch.float64: 1e-12, torch.float32: 5e-6}

# The same examples in every run, so that a failing test fails again until it is repaired.
examples = partial(settings, deadline=None, derandomize=True, database=None)

sizes = st.integers(1, 6)
seeds = st.integers(0, 2**16)


def new_body(kind: str, inputs: int = 3, features: int = 5) -> Body:
    """Return a registered body; one that is no ``Body`` is wrapped as in a configuration."""
    return sized_body(kind, lookup("body", kind), inputs, features, {})


def assert_close(actual: Any, expected: Any) -> None:
    """Assert equal shapes and a relative L2 error of rounding size: 1e-12, or 5e-6 in float32."""
    dtype = actual.dtype if isinstance(actual, Tensor) else torch.float64
    actual, expected = _array(actual), _array(expected)
    assert actual.shape == expected.shape
    error, size = np.linalg.norm(actual - expected), np.linalg.norm(expected)
    assert error <= TOLERANCE[dtype] * size, f"relative error {error / size:.1e}"


def assert_same_gradients(actual: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Assert equal names, and gradients that ``assert_close`` accepts when concatenated."""
    assert actual.keys() == expected.keys()
    assert all(actual[name].shape == expected[name].shape for name in expected)
    flat = [torch.cat([tree[name].flatten() for name in expected]) for tree in (actual, expected)]
    assert_close(*flat)


def gradients(loss: Tensor, leaves: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return gradients by name, zeros for leaves on which the loss does not depend."""
    if not loss.requires_grad:
        return {name: torch.zeros_like(leaf) for name, leaf in leaves.items()}
    grads = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    return {
        name: torch.zeros_like(leaf) if gradient is None else gradient
        for (name, leaf), gradient in zip(leaves.items(), grads, strict=True)
    }


def gradcheck(function: Callable[..., Any], module: nn.Module, *inputs: Tensor) -> None:
    """Check derivatives of ``function(*inputs)`` w.r.t. inputs and parameters by differences.

    ``function`` uses ``module``, whose parameters are swapped for the ones that are checked.
    """
    names = [name for name, _ in module.named_parameters()]
    values = [parameter.detach().clone() for parameter in module.parameters()]

    def call(*leaves: Tensor) -> Any:
        wrapped = _Calls(module, function)
        swapped = {f"module.{n}": leaf for n, leaf in zip(names, leaves, strict=False)}
        return torch.func.functional_call(wrapped, swapped, leaves[len(names) :])

    leaves = [leaf.detach().clone().requires_grad_() for leaf in (*values, *inputs)]
    assert torch.autograd.gradcheck(call, leaves)


def drawn(make: Callable[[], Any], seed: int = 0, dtype: torch.dtype = torch.float64) -> Any:
    """Return a module whose parameters are perturbed: scales are not 1, biases not 0."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = make().to(dtype)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
    return module


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return normally distributed numbers, the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def arrays(module: nn.Module) -> dict[str, np.ndarray]:
    """Return a state dict as NumPy arrays."""
    return {name: value.numpy() for name, value in module.state_dict().items()}


def task_inputs(
    net: ThalNet, batch: int, time: int, seed: int = 0, dtype: torch.dtype = torch.float64
) -> dict[str, Tensor]:
    """Return a sequence for every input module."""
    return {
        name: normal(batch, time, net.graph[name].inputs, seed=seed + k, dtype=dtype)
        for k, name in enumerate(net.input_modules)
    }


def random_lengths(batch: int, time: int, least: int = 1, seed: int = 0) -> Tensor:
    """Return the lengths of sequences in a padded batch."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(least, time + 1, (batch,), generator=generator)


def spoiled(xs: Tensor, lengths: Tensor) -> Tensor:
    """Return inputs with NaN past the end of every sequence, or -1 instead of tokens."""
    past = torch.arange(xs.shape[1]) >= lengths[:, None]
    filler = torch.nan if xs.is_floating_point() else -1
    return xs.masked_fill(past.view(*past.shape, *[1] * (xs.ndim - 2)), filler)


def parts(state: Tensor | Sequence[Tensor]) -> list[Tensor]:
    """Return the tensors of a state."""
    return [state] if isinstance(state, Tensor) else list(state)


def padded_and_alone(
    call: Callable[..., Any],
    module: nn.Module,
    xs: Mapping[str, Tensor],
    start: Any,
    lengths: Tensor,
    split: int = 0,
) -> list[dict[str, Tensor]]:
    """Return what a padded batch gives, and what its sequences give one by one.

    These are outputs, final state and all gradients of a weighted sum of both, by name. The padded
    batch is spoiled past the ends, and may come in two chunks, the first of ``split`` steps.

    Args:
        call: from inputs by name, state and lengths to outputs and state. Outputs are (batch, time,
            outputs), or (batch, outputs).
        start: state before the first step, or None.
    """
    results = []
    weights: dict[str, Tensor] = {}
    for alone in (False, True):
        leaves = {
            name: (x if alone else spoiled(x, lengths)).detach().clone() for name, x in xs.items()
        }
        first = [] if start is None else [part.detach().clone() for part in parts(start)]
        trainable = {
            f"xs {n}": x.requires_grad_() for n, x in leaves.items() if x.is_floating_point()
        }
        trainable |= {f"start {k}": p.requires_grad_() for k, p in enumerate(first) if p.numel()}
        trainable |= {n: p for n, p in module.named_parameters() if p.requires_grad}
        begin = None if start is None else _rebuilt(start, first)
        if alone:
            rows = [
                call(
                    {name: x[r : r + 1, :n] for name, x in leaves.items()},
                    None if begin is None else _rebuilt(begin, [p[r : r + 1] for p in first]),
                    None,
                )
                for r, n in enumerate(lengths.tolist())
            ]
            time = weights["ys"].shape[1]
            ys = torch.cat([_padded(ys, time) for ys, _ in rows])
            last = [torch.cat(column) for column in zip(*(parts(s) for _, s in rows), strict=True)]
        else:
            head = []
            if split:
                chunk = {name: x[:, :split] for name, x in leaves.items()}
                ys, begin = call(chunk, begin, None)
                head = [ys] if ys.ndim == 3 else []
            chunk = {name: x[:, split:] for name, x in leaves.items()}
            ys, state = call(chunk, begin, lengths - split)
            ys, last = torch.cat([*head, ys], 1), parts(state)
        named = {"ys": ys} | {f"state {k}": part for k, part in enumerate(last)}
        weights = weights or {
            name: normal(*value.shape, seed=k, dtype=value.dtype)
            for k, (name, value) in enumerate(named.items())
        }
        loss = torch.stack([(weights[name] * value).sum() for name, value in named.items()]).sum()
        grads = {f"d {name}": grad for name, grad in gradients(loss, trainable).items()}
        results.append({name: value.detach() for name, value in (named | grads).items()})
    return results


def assert_alone(actual: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Assert the results of ``padded_and_alone`` equal, to rounding; zero is exactly zero."""
    assert actual.keys() == expected.keys()
    for name in (name for name in expected if not name.startswith("d ")):
        assert_close(actual[name], expected[name])
    for name in (name for name in expected if name == "ys" or name.startswith("d xs")):
        assert not actual[name][expected[name] == 0].any(), name
    grads = [{n: tree[n] for n in expected if n.startswith("d ")} for tree in (actual, expected)]
    assert_same_gradients(*grads)


def chain(hops: int, **options: Any) -> list[ModuleSpec]:
    """Return a chain of modules: each reads only the one before, the first gets the input."""
    names = [f"m{k}" for k in range(hops + 1)]
    return [
        ModuleSpec(
            name,
            features=3,
            context=2,
            inputs=2 if k == 0 else 0,
            output=k == hops,
            reads=(names[max(0, k - 1)],),
            **options,
        )
        for k, name in enumerate(names)
    ]


@st.composite
def graphs(draw: Any, most: int = 5) -> Sequence[Mapping[str, Any]]:
    """Draw the arguments of one to five modules, some equal, some different in one field."""
    size = st.sampled_from([1, 2, 3, 5])
    options = {
        "features": size,
        "context": size,
        "hidden": st.sampled_from([0, 1, 4]),
        "module": st.sampled_from(DESIGNS),
    }
    make = {name: draw(values) for name, values in options.items()}
    other = draw(st.sampled_from(list(options)))
    makes = [make, {**make, other: draw(options[other])}]
    count = draw(st.integers(1, most))
    names = [f"m{k}" for k in range(count)]
    source, sink = draw(st.sampled_from(names)), draw(st.sampled_from(names))
    reads = st.none() | st.lists(st.sampled_from(names), min_size=1, unique=True).map(tuple)
    return [
        {
            "name": name,
            "inputs": draw(st.sampled_from([1, 3] if name == source else [0, 0, 1, 3])),
            "output": name == sink or draw(st.booleans()),
            "reading": draw(st.sampled_from(READINGS)),
            "reads": draw(reads),
            **draw(st.sampled_from(makes)),
        }
        for name in names
    ]


class _Calls(nn.Module):
    """A wrapper around a module whose forward pass is a function that uses the module."""

    def __init__(self, module: nn.Module, function: Callable[..., Any]):
        super().__init__()
        self.module, self.function = module, function

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(*inputs)


def _rebuilt(state: Any, values: Sequence[Tensor]) -> Any:
    return values[0] if isinstance(state, Tensor) else type(state)(*values)


def _padded(ys: Tensor, time: int) -> Tensor:
    """Return the outputs of one sequence with zeros at its end, unless it has a single one."""
    return ys if ys.ndim < 3 else nn.functional.pad(ys, (0, 0, 0, time - ys.shape[1]))


def _array(value: Any) -> np.ndarray:
    return value.detach().numpy() if isinstance(value, Tensor) else np.asarray(value)
