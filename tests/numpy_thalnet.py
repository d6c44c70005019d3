"""ThalNet once more in plain NumPy, one row and one step at a time: what the tests compare with.

Written from the equations of Hafner et al. (NIPS 2017) and those of ``torch.nn.GRU``, not from the
package, of which it knows nothing but the names in a state dict. Slow on purpose: every line is one
equation, and nothing is shared between rows, steps or modules.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray
Arrays = Mapping[str, Array]

LAYERS = {
    "ff": ("ff", "ff"),  # the one without a GRU has two dense layers
    "gru": ("gru",),
    "ff_gru": ("ff", "gru"),
    "gru_ff": ("gru", "ff"),
    "ff_gru_ff": ("ff", "gru", "ff"),
}


class Trace(NamedTuple):
    """What a sequence leaves behind: (batch, time, center), (batch, center), (batch, memory)."""

    centers: Array
    center: Array
    memory: Array


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def reading_matrix(kind: str, own: Arrays, features: Array, seen: int) -> Array:
    """R (context, seen) of one module for one row, from the module's own features φ_{t-1}."""
    if kind == "linear":
        return own["weight"]
    if kind == "weight_norm":  # β W / ‖W‖, one norm of the whole matrix
        return own["scale"] * own["weight"] / np.sqrt(np.sum(own["weight"] ** 2))
    if kind == "weight_norm_rows":  # g_j W_j / ‖W_j‖
        return np.stack(
            [
                float(scale.item()) * row / np.sqrt(np.sum(row**2))
                for scale, row in zip(own["scale"], own["weight"], strict=True)
            ]
        )
    if kind == "fast_softmax":
        logits = own["weight"] @ features + own["bias"]
        rows = logits.reshape(-1, seen)  # (W φ + b)_jk: context j first, position k second
        return np.stack([np.exp(row) / np.exp(row).sum() for row in rows])
    if kind == "fast_gaussian":
        means = own["mean.weight"] @ features + own["mean.bias"]
        raw = own["variance.weight"] @ features + own["variance.bias"]
        variances = np.log(1 + np.exp(raw)) + 1e-3
        return np.array(
            [
                [
                    np.exp(-((k - mean) ** 2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)
                    for k in range(1, seen + 1)
                ]
                for mean, variance in zip(means, variances, strict=True)
            ]
        )
    raise AssertionError(kind)


def dense(own: Arrays, x: Array) -> Array:
    return np.tanh(own["weight"] @ x + own["bias"])


def gru(own: Arrays, x: Array, h: Array) -> Array:
    """The equations in the documentation of ``torch.nn.GRU``: reset, update, new."""
    w_r, w_z, w_n = np.split(own["weight_ih"], 3)
    u_r, u_z, u_n = np.split(own["weight_hh"], 3)
    b_r, b_z, b_n = np.split(own["bias_ih"], 3)
    d_r, d_z, d_n = np.split(own["bias_hh"], 3)
    r = sigmoid(w_r @ x + b_r + u_r @ h + d_r)
    z = sigmoid(w_z @ x + b_z + u_z @ h + d_z)
    n = np.tanh(w_n @ x + b_n + r * (u_n @ h + d_n))
    return (1 - z) * n + z * h


def design(kind: str, own: Arrays, x: Array, memory: Array) -> tuple[Array, Array]:
    """Features and next memory of one module for one row."""
    kept = memory
    for depth, layer in enumerate(LAYERS[kind]):
        parameters = under(own, f"stack.{depth}.")
        if layer == "ff":
            x = dense(parameters, x)
        else:
            x = kept = gru(parameters, x, memory)
    return x, kept


def memory_width(module: Any) -> int:
    """A GRU that is the last layer is as wide as the slot, any other as wide as inner layers."""
    layers = LAYERS[module.module]
    if "gru" not in layers:
        return 0
    return module.features if layers[-1] == "gru" else module.hidden or module.features


def thalnet(
    modules: Sequence[Any],
    parameters: Arrays,
    xs: Mapping[str, Array],
    center: Array | None = None,
    memory: Array | None = None,
) -> Trace:
    """The whole sequence.

    Args:
        modules: anything with the attributes of ``thalnet_mtl.topology.spec.Module``.
        parameters: arrays by their name in the state dict.
        xs: (batch, time, inputs) by name of the input module; absent ones are zero.
        center, memory: the state before the first step, zeros by default.
    """
    batch, time = next(iter(xs.values())).shape[:2]
    slots = dict(_spans(modules, lambda module: module.features))
    keeps = dict(_spans(modules, memory_width))
    widths = sum(module.features for module in modules), sum(map(memory_width, modules))
    center = np.zeros((batch, widths[0])) if center is None else center
    memory = np.zeros((batch, widths[1])) if memory is None else memory
    centers = np.zeros((batch, time, widths[0]))
    for row in range(batch):
        before, kept = center[row], memory[row]
        for t in range(time):
            after, keep = np.full(widths[0], np.nan), np.full(widths[1], np.nan)
            for module in modules:
                own = under(parameters, f"cells.{module.name}.")
                names = [other.name for other in modules]
                reads = names if module.reads is None else [n for n in names if n in module.reads]
                seen = np.concatenate([before[slots[name]] for name in reads])
                features = before[slots[module.name]]
                matrix = reading_matrix(module.reading, under(own, "reading."), features, len(seen))
                context = matrix @ seen
                x = xs[module.name][row, t] if module.name in xs else np.zeros(module.inputs)
                after[slots[module.name]], keep[keeps[module.name]] = design(
                    module.module,
                    under(own, "design."),
                    np.concatenate([context, x]),
                    kept[keeps[module.name]],
                )
            before, kept = after, keep
            centers[row, t] = before
        center, memory = _with_row(center, row, before), _with_row(memory, row, kept)
    return Trace(centers, center, memory)


def under(parameters: Arrays, prefix: str) -> dict[str, Array]:
    """The parameters whose names start with a prefix, without it."""
    return {
        name.removeprefix(prefix): value
        for name, value in parameters.items()
        if name.startswith(prefix)
    }


def _spans(modules: Sequence[Any], width: Any) -> Iterator[tuple[str, slice]]:
    start = 0
    for module in modules:
        yield module.name, slice(start, start + width(module))
        start += width(module)


def _with_row(array: Array, row: int, value: Array) -> Array:
    array = array.copy()
    array[row] = value
    return array
