"""Triton kernels for small networks: one program runs 16 rows of the batch through all steps.

The state of all modules stays in registers from step to step, and weights stay on the chip. Every
size is a power of two of at least 16, rows included: ``triton.py`` pads with zeros, which stay
zeros. The gates are blocks n, r, z, n_h, as in ``packed_weights.py``.
"""

import triton
import triton.language as tl

ROWS = 16  # of the batch in a program: the smallest tile that Triton multiplies


@triton.jit
def _tanh(x):
    return 2 * tl.sigmoid(2 * x) - 1


@triton.jit
def _flat(x, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    """Return (module, row, width) as (row, module · width)."""
    return tl.reshape(tl.permute(x, (1, 0, 2)), (ROWS, WIDTH))


@triton.jit
def _by_module(x, ROWS: tl.constexpr, MODULES: tl.constexpr, WIDTH: tl.constexpr):
    """Return (row, module · width) as (module, row, width)."""
    return tl.permute(tl.reshape(x, (ROWS, MODULES, WIDTH)), (1, 0, 2))


@triton.jit
def _load_matrices(start, MODULES: tl.constexpr, K: tl.constexpr, N: tl.constexpr, k, n):
    """Load one block of the weights of all modules, (module, K, N), with strides k and n."""
    m = tl.arange(0, MODULES)[:, None, None]
    rows, columns = tl.arange(0, K)[None, :, None], tl.arange(0, N)[None, None, :]
    return tl.load(start + m * (3 * K * N) + rows * k + columns * n)


@triton.jit
def _dot(x, weight, PRECISION: tl.constexpr):
    return tl.dot(x.to(weight.dtype), weight, input_precision=PRECISION)


@triton.jit
def forward(
    first, read, w, u, bias, center0, memory0, centers, dense, gates, last, time, batch,
    MODULES: tl.constexpr, H: tl.constexpr, F: tl.constexpr, PRECISION: tl.constexpr,
    ROWS: tl.constexpr,
):  # fmt: skip
    """Compute centers, activations and the last memory.

    Args:
        first: (time, batch, module · H), projected task inputs plus biases of the dense layers.
        read: (module · F, module · H), readings composed with the dense layers.
        w: (module, H, 3 F), input weights of the GRUs for n, r, z.
        u: (module, F, 3 F), state weights of the GRUs for r, z, n.
        bias: (module, 4 F).
        center0: (batch, module · F).
        memory0, last: (module, batch, F).
        centers: (time, batch, module · F).
        dense: (time, batch, module · H), outputs of the dense layers.
        gates: (4, time, module, batch, F).
    """
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    slots, hidden = tl.arange(0, MODULES * F), tl.arange(0, MODULES * H)
    m, f = tl.arange(0, MODULES)[:, None, None], tl.arange(0, F)[None, None, :]
    cell = (m * batch + rows[None, :, None]) * F + f  # index in (module, batch, F)
    reading = tl.load(read + slots[:, None] * (MODULES * H) + hidden[None, :])
    w_n = _load_matrices(w, MODULES, H, F, 3 * F, 1)
    w_r = _load_matrices(w + F, MODULES, H, F, 3 * F, 1)
    w_z = _load_matrices(w + 2 * F, MODULES, H, F, 3 * F, 1)
    u_r = _load_matrices(u, MODULES, F, F, 3 * F, 1)
    u_z = _load_matrices(u + F, MODULES, F, F, 3 * F, 1)
    u_n = _load_matrices(u + 2 * F, MODULES, F, F, 3 * F, 1)
    b_n, b_r = tl.load(bias + m * 4 * F + f), tl.load(bias + m * 4 * F + F + f)
    b_z, b_h = tl.load(bias + m * 4 * F + 2 * F + f), tl.load(bias + m * 4 * F + 3 * F + f)
    center = tl.load(center0 + rows[:, None] * (MODULES * F) + slots[None, :])
    state = tl.load(memory0 + cell)
    block = MODULES * batch * F * time
    for t in range(time):
        hidden_index = (t * batch + rows[:, None]) * (MODULES * H) + hidden[None, :]
        outputs = _tanh(tl.load(first + hidden_index) + _dot(center, reading, PRECISION))
        tl.store(dense + hidden_index, outputs)
        x = _by_module(outputs, ROWS, MODULES, H)
        reset = tl.sigmoid(_dot(x, w_r, PRECISION) + _dot(state, u_r, PRECISION) + b_r)
        update = tl.sigmoid(_dot(x, w_z, PRECISION) + _dot(state, u_z, PRECISION) + b_z)
        inner = _dot(state, u_n, PRECISION) + b_h
        new = _tanh(_dot(x, w_n, PRECISION) + b_n + reset * inner)
        state = new + update * (state - new)
        step_gates = gates + t * MODULES * batch * F + cell
        tl.store(step_gates, new)
        tl.store(step_gates + block, reset)
        tl.store(step_gates + 2 * block, update)
        tl.store(step_gates + 3 * block, inner)
        center = _flat(state, ROWS, MODULES * F)
        tl.store(centers + (t * batch + rows[:, None]) * (MODULES * F) + slots[None, :], center)
    tl.store(last + cell, state)


@triton.jit
def backward(
    read, w, u, memory0, centers, dense, gates, grad_centers, grad_last, grad_first, grad_gates,
    grad_center0, grad_memory0, time, batch,
    MODULES: tl.constexpr, H: tl.constexpr, F: tl.constexpr, PRECISION: tl.constexpr,
    ROWS: tl.constexpr,
):  # fmt: skip
    """Compute gradients w.r.t. pre-activations, in their layout, and w.r.t. the first state."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    slots, hidden = tl.arange(0, MODULES * F), tl.arange(0, MODULES * H)
    m, f = tl.arange(0, MODULES)[:, None, None], tl.arange(0, F)[None, None, :]
    cell = (m * batch + rows[None, :, None]) * F + f
    slot = rows[None, :, None] * (MODULES * F) + m * F + f  # index in (batch, module · F)
    reading = tl.load(read + slots[None, :] * (MODULES * H) + hidden[:, None])
    w_n = _load_matrices(w, MODULES, F, H, 1, 3 * F)
    w_r = _load_matrices(w + F, MODULES, F, H, 1, 3 * F)
    w_z = _load_matrices(w + 2 * F, MODULES, F, H, 1, 3 * F)
    u_r = _load_matrices(u, MODULES, F, F, 1, 3 * F)
    u_z = _load_matrices(u + F, MODULES, F, F, 1, 3 * F)
    u_n = _load_matrices(u + 2 * F, MODULES, F, F, 1, 3 * F)
    grad_state = tl.load(grad_last + cell)
    grad_center = tl.zeros((ROWS, MODULES * F), tl.float32)
    block = MODULES * batch * F * time
    for step in range(time):
        t = time - 1 - step
        grad = grad_state + _by_module(grad_center, ROWS, MODULES, F)
        grad += tl.load(grad_centers + t * batch * MODULES * F + slot)
        index = t * MODULES * batch * F + cell
        new, reset = tl.load(gates + index), tl.load(gates + index + block)
        update, inner = tl.load(gates + index + 2 * block), tl.load(gates + index + 3 * block)
        state = tl.load(centers + (t - 1) * batch * MODULES * F + slot, mask=t > 0, other=0.0)
        state += tl.load(memory0 + cell, mask=t == 0, other=0.0)
        grad_new = grad * (1 - update) * (1 - new * new)
        grad_reset = grad_new * inner * reset * (1 - reset)
        grad_update = grad * (state - new) * update * (1 - update)
        grad_inner = grad_new * reset
        tl.store(grad_gates + index, grad_new)
        tl.store(grad_gates + index + block, grad_reset)
        tl.store(grad_gates + index + 2 * block, grad_update)
        tl.store(grad_gates + index + 3 * block, grad_inner)
        grad_state = grad * update + _dot(grad_reset, u_r, PRECISION)
        grad_state += _dot(grad_update, u_z, PRECISION) + _dot(grad_inner, u_n, PRECISION)
        grad_x = _dot(grad_new, w_n, PRECISION) + _dot(grad_reset, w_r, PRECISION)
        grad_x += _dot(grad_update, w_z, PRECISION)
        hidden_index = (t * batch + rows[:, None]) * (MODULES * H) + hidden[None, :]
        outputs = tl.load(dense + hidden_index)
        grad_dense = _flat(grad_x, ROWS, MODULES * H) * (1 - outputs * outputs)
        tl.store(grad_first + hidden_index, grad_dense)
        grad_center = _dot(grad_dense, reading, PRECISION)
    tl.store(grad_memory0 + cell, grad_state)
    tl.store(grad_center0 + rows[:, None] * (MODULES * F) + slots[None, :], grad_center)
