"""Triton kernels of ``triton.py``: all steps of 16 rows of the batch in one program.

The state of all modules stays in registers from step to step; weights are on the chip. Every size
is a power of two of at least 16, rows included: the caller pads with zeros, which stay zeros.
Gates lie in blocks n, r, z, n_h, as in ``prepare.py``.
"""

import triton
import triton.language as tl

ROWS = 16  # of a program: the least that a product of tiles takes


@triton.jit
def _tanh(x):
    return 2 * tl.sigmoid(2 * x) - 1


@triton.jit
def _flat(x, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    """(module, row, width) as (row, module · width)."""
    return tl.reshape(tl.permute(x, (1, 0, 2)), (ROWS, WIDTH))


@triton.jit
def _by_module(x, ROWS: tl.constexpr, MODULES: tl.constexpr, WIDTH: tl.constexpr):
    """(row, module · width) as (module, row, width)."""
    return tl.permute(tl.reshape(x, (ROWS, MODULES, WIDTH)), (1, 0, 2))


@triton.jit
def _matrices(start, MODULES: tl.constexpr, K: tl.constexpr, N: tl.constexpr, k, n):
    """One block of the weights of all modules, (module, K, N), at strides k and n."""
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
    """Centers, activations and the last memory.

    Args:
        first: (time, batch, module · H) what the dense layers get beside the center.
        read: (module · F, module · H) readings, composed with the dense layers.
        w: (module, H, 3 F) for n, r, z; u: (module, F, 3 F) for r, z, n.
        bias: (module, 4 F).
        center0: (batch, module · F); memory0, last: (module, batch, F).
        centers: (time, batch, module · F); dense: as first; gates: (4, time, module, batch, F).
    """
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    slots, hidden = tl.arange(0, MODULES * F), tl.arange(0, MODULES * H)
    m, f = tl.arange(0, MODULES)[:, None, None], tl.arange(0, F)[None, None, :]
    cell = (m * batch + rows[None, :, None]) * F + f  # of (module, batch, F)
    reading = tl.load(read + slots[:, None] * (MODULES * H) + hidden[None, :])
    w_n = _matrices(w, MODULES, H, F, 3 * F, 1)
    w_r = _matrices(w + F, MODULES, H, F, 3 * F, 1)
    w_z = _matrices(w + 2 * F, MODULES, H, F, 3 * F, 1)
    u_r = _matrices(u, MODULES, F, F, 3 * F, 1)
    u_z = _matrices(u + F, MODULES, F, F, 3 * F, 1)
    u_n = _matrices(u + 2 * F, MODULES, F, F, 3 * F, 1)
    b_n, b_r = tl.load(bias + m * 4 * F + f), tl.load(bias + m * 4 * F + F + f)
    b_z, b_h = tl.load(bias + m * 4 * F + 2 * F + f), tl.load(bias + m * 4 * F + 3 * F + f)
    center = tl.load(center0 + rows[:, None] * (MODULES * F) + slots[None, :])
    state = tl.load(memory0 + cell)
    block = MODULES * batch * F * time
    for t in range(time):
        at = (t * batch + rows[:, None]) * (MODULES * H) + hidden[None, :]
        seen = _tanh(tl.load(first + at) + _dot(center, reading, PRECISION))
        tl.store(dense + at, seen)
        x = _by_module(seen, ROWS, MODULES, H)
        reset = tl.sigmoid(_dot(x, w_r, PRECISION) + _dot(state, u_r, PRECISION) + b_r)
        update = tl.sigmoid(_dot(x, w_z, PRECISION) + _dot(state, u_z, PRECISION) + b_z)
        inner = _dot(state, u_n, PRECISION) + b_h
        new = _tanh(_dot(x, w_n, PRECISION) + b_n + reset * inner)
        state = new + update * (state - new)
        to = gates + t * MODULES * batch * F + cell
        tl.store(to, new)
        tl.store(to + block, reset)
        tl.store(to + 2 * block, update)
        tl.store(to + 3 * block, inner)
        center = _flat(state, ROWS, MODULES * F)
        tl.store(centers + (t * batch + rows[:, None]) * (MODULES * F) + slots[None, :], center)
    tl.store(last + cell, state)


@triton.jit
def backward(
    read, w, u, memory0, centers, dense, gates, by_centers, by_last, by_first, by_gates,
    by_center0, by_memory0, time, batch,
    MODULES: tl.constexpr, H: tl.constexpr, F: tl.constexpr, PRECISION: tl.constexpr,
    ROWS: tl.constexpr,
):  # fmt: skip
    """Gradients by pre-activations, in the layout of the activations, and by the first state."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    slots, hidden = tl.arange(0, MODULES * F), tl.arange(0, MODULES * H)
    m, f = tl.arange(0, MODULES)[:, None, None], tl.arange(0, F)[None, None, :]
    cell = (m * batch + rows[None, :, None]) * F + f
    slot = rows[None, :, None] * (MODULES * F) + m * F + f  # of (batch, module · F)
    reading = tl.load(read + slots[None, :] * (MODULES * H) + hidden[:, None])
    w_n = _matrices(w, MODULES, F, H, 1, 3 * F)
    w_r = _matrices(w + F, MODULES, F, H, 1, 3 * F)
    w_z = _matrices(w + 2 * F, MODULES, F, H, 1, 3 * F)
    u_r = _matrices(u, MODULES, F, F, 1, 3 * F)
    u_z = _matrices(u + F, MODULES, F, F, 1, 3 * F)
    u_n = _matrices(u + 2 * F, MODULES, F, F, 1, 3 * F)
    by_state = tl.load(by_last + cell)
    by_center = tl.zeros((ROWS, MODULES * F), tl.float32)
    block = MODULES * batch * F * time
    for step in range(time):
        t = time - 1 - step
        by = by_state + _by_module(by_center, ROWS, MODULES, F)
        by += tl.load(by_centers + t * batch * MODULES * F + slot)
        of = t * MODULES * batch * F + cell
        new, reset = tl.load(gates + of), tl.load(gates + of + block)
        update, inner = tl.load(gates + of + 2 * block), tl.load(gates + of + 3 * block)
        before = tl.load(centers + (t - 1) * batch * MODULES * F + slot, mask=t > 0, other=0.0)
        before += tl.load(memory0 + cell, mask=t == 0, other=0.0)
        by_new = by * (1 - update) * (1 - new * new)
        by_reset = by_new * inner * reset * (1 - reset)
        by_update = by * (before - new) * update * (1 - update)
        by_inner = by_new * reset
        tl.store(by_gates + of, by_new)
        tl.store(by_gates + of + block, by_reset)
        tl.store(by_gates + of + 2 * block, by_update)
        tl.store(by_gates + of + 3 * block, by_inner)
        by_state = by * update + _dot(by_reset, u_r, PRECISION)
        by_state += _dot(by_update, u_z, PRECISION) + _dot(by_inner, u_n, PRECISION)
        by_x = _dot(by_new, w_n, PRECISION) + _dot(by_reset, w_r, PRECISION)
        by_x += _dot(by_update, w_z, PRECISION)
        at = (t * batch + rows[:, None]) * (MODULES * H) + hidden[None, :]
        seen = tl.load(dense + at)
        by_seen = _flat(by_x, ROWS, MODULES * H) * (1 - seen * seen)
        tl.store(by_first + at, by_seen)
        by_center = _dot(by_seen, reading, PRECISION)
    tl.store(by_memory0 + cell, by_state)
    tl.store(by_center0 + rows[:, None] * (MODULES * F) + slots[None, :], by_center)
