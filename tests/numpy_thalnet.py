"""An independent ThalNet in plain NumPy, one row and one step at a time, to compare with in tests.

It follows the equations of Hafner et al. (NIPS 2017) and of ``torch.nn.GRU``, not the package, of
which it uses only the names in a state dict. It is slow on purpose: every line is one equation, and
nothing is shared between rows, steps or modules.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray
Arrays = Mapping[str, Array]

LAYERS = {
    "ff": ("ff", "ff"),  # the design without a GRU has two dense layers
    "gru": ("gru",),
    "ff_gru": ("ff", "gru"),
    "gru_ff": ("gru", "ff"),
    "ff_gru_ff": ("ff", "gru", "ff"),
}


class Trace(NamedTuple):
    """All centers (batch, time, center), the last center, and the last memory (batch, memory)."""

    centers: Array
    center: Array
    memory: Array


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def reading_matrix(kind: str, parameters: Arrays, features: Array, visible: int) -> Array:
    """Return R (context, visible) of a module for one row, from its own features φ_{t-1}."""
    if kind == "linear":
        return parameters["weight"]
    if kind == "weight_norm":  # β W / ‖W‖, one norm of the whole matrix
        return (
            parameters["scale"] * parameters["weight"] / np.sqrt(np.sum(parameters["weight"] ** 2))
        )
    if kind == "weight_norm_rows":  # g_j W_j / ‖W_j‖
        return np.stack(
            [
                float(scale.item()) * row / np.sqrt(np.sum(row**2))
                for scale, row in zip(parameters["scale"], parameters["weight"], strict=True)
            ]
        )
    if kind == "fast_softmax":
        logits = parameters["weight"] @ features + parameters["bias"]
        rows = logits.reshape(-1, visible)  # (W φ + b)_jk: context j first, position k second
        return np.stack([np.exp(row) / np.exp(row).sum() for row in rows])
    if kind == "fast_gaussian":
        means = parameters["mean.weight"] @ features + parameters["mean.bias"]
        raw = parameters["variance.weight"] @ features + parameters["variance.bias"]
        variances = np.log(1 + np.exp(raw)) + 1e-3
        return np.array(
            [
                [
                    np.exp(-((k - mean) ** 2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)
                    for k in range(1, visible + 1)
                ]
                for mean, variance in zip(means, variances, strict=True)
            ]
        )
    raise AssertionError(kind)


def dense(parameters: Arrays, x: Array) -> Array:
    return np.tanh(parameters["weight"] @ x + parameters["bias"])


def gru(parameters: Arrays, x: Array, h: Array) -> Array:
    """Return the next state, by the equations in the documentation of ``torch.nn.GRU``."""
    w_r, w_z, w_n = np.split(parameters["weight_ih"], 3)
    u_r, u_z, u_n = np.split(parameters["weight_hh"], 3)
    b_r, b_z, b_n = np.split(parameters["bias_ih"], 3)
    d_r, d_z, d_n = np.split(parameters["bias_hh"], 3)
    r = sigmoid(w_r @ x + b_r + u_r @ h + d_r)
    z = sigmoid(w_z @ x + b_z + u_z @ h + d_z)
    n = np.tanh(w_n @ x + b_n + r * (u_n @ h + d_n))
    return (1 - z) * n + z * h


def design(kind: str, parameters: Arrays, x: Array, memory: Array) -> tuple[Array, Array]:
    """Return features and next memory of a module for one row."""
    state = memory
    for depth, layer in enumerate(LAYERS[kind]):
        weights = under(parameters, f"stack.{depth}.")
        if layer == "ff":
            x = dense(weights, x)
        else:
            x = state = gru(weights, x, memory)
    return x, state


def memory_width(module: Any) -> int:
    """Return the width of the GRU: that of the slot if it is the last layer, else ``hidden``."""
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
    """Run the modules over all steps.

    Args:
        modules: anything with the attributes of ``thalnet_mtl.topology.spec.ModuleSpec``.
        parameters: arrays by their name in the state dict.
        xs: (batch, time, inputs) by name of the input module; absent ones are zero.
        center, memory: the state before the first step, zeros by default.
    """
    batch, time = next(iter(xs.values())).shape[:2]
    slots = dict(_spans(modules, lambda module: module.features))
    states = dict(_spans(modules, memory_width))
    widths = sum(module.features for module in modules), sum(map(memory_width, modules))
    center = np.zeros((batch, widths[0])) if center is None else center
    memory = np.zeros((batch, widths[1])) if memory is None else memory
    centers = np.zeros((batch, time, widths[0]))
    for row in range(batch):
        phi, state = center[row], memory[row]
        for t in range(time):
            next_phi, next_state = np.full(widths[0], np.nan), np.full(widths[1], np.nan)
            for module in modules:
                weights = under(parameters, f"cells.{module.name}.")
                slot, memory_slot = slots[module.name], states[module.name]
                names = [each.name for each in modules]
                reads = names if module.reads is None else [n for n in names if n in module.reads]
                visible = np.concatenate([phi[slots[name]] for name in reads])
                matrix = reading_matrix(
                    module.reading, under(weights, "reading."), phi[slot], len(visible)
                )
                x = xs[module.name][row, t] if module.name in xs else np.zeros(module.inputs)
                next_phi[slot], next_state[memory_slot] = design(
                    module.module,
                    under(weights, "design."),
                    np.concatenate([matrix @ visible, x]),
                    state[memory_slot],
                )
            phi, state = next_phi, next_state
            centers[row, t] = phi
        center, memory = _with_row(center, row, phi), _with_row(memory, row, state)
    return Trace(centers, center, memory)


def under(parameters: Arrays, prefix: str) -> dict[str, Array]:
    """Return the parameters whose names start with a prefix, and remove the prefix."""
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
