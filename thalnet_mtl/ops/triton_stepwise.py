"""Triton kernels of ``triton.py`` for nets whose weights no multiprocessor holds: two a step.

Each program computes a tile of rows and columns. What a step waits for is in global memory, so
that a step cannot begin before the last kernel of the one before has ended. Gates lie in blocks n,
r, z, n_h, as in ``prepare.py``; (module, row, width) tensors are contiguous.
"""

import triton
import triton.language as tl


@triton.jit
def _tanh(x):
    return 2 * tl.sigmoid(2 * x) - 1


@triton.jit
def _product(
    sum, x, rows, row_stride, row_count, weight, columns, down, across, column_count, K,
    PRECISION: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """sum + X W of a tile: X (rows, K) at a stride of rows, W (K, columns) at two strides."""
    for start in range(0, K, BK):
        k = start + tl.arange(0, BK)
        wide = (rows[:, None] < row_count) & (k[None, :] < K)
        tall = (k[:, None] < K) & (columns[None, :] < column_count)
        a = tl.load(x + rows[:, None] * row_stride + k[None, :], mask=wide, other=0.0)
        b = tl.load(weight + k[:, None] * down + columns[None, :] * across, mask=tall, other=0.0)
        sum += tl.dot(a.to(b.dtype), b, input_precision=PRECISION)
    return sum


@triton.jit
def seen(
    first, center, read, dense, batch, CENTER, HIDDEN,
    PRECISION: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """tanh(first + Φ read): (batch, module · H), what all modules read through dense layers."""
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    columns = tl.program_id(1) * BN + tl.arange(0, BN)
    at = rows[:, None] * HIDDEN + columns[None, :]
    inside = (rows[:, None] < batch) & (columns[None, :] < HIDDEN)
    sum = tl.load(first + at, mask=inside, other=0.0)
    sum = _product(sum, center, rows, CENTER, batch, read, columns, HIDDEN, 1, HIDDEN, CENTER,
                   PRECISION, BK)  # fmt: skip
    tl.store(dense + at, _tanh(sum), mask=inside)


@triton.jit
def gates(
    dense, state, w, u, bias, center, kept, batch, block, state_row, state_module, HIDDEN, CENTER,
    H, F, PRECISION: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Gates and next states of all modules, into a center (batch, module · F) and ``kept``."""
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    f, m = tl.program_id(1) * BN + tl.arange(0, BN), tl.program_id(2)
    inside = (rows[:, None] < batch) & (f[None, :] < F)
    zero = tl.zeros((BM, BN), tl.float32)
    b = bias + m * 4 * F + f[None, :]
    new = zero + tl.load(b, mask=f[None, :] < F, other=0.0)
    reset = zero + tl.load(b + F, mask=f[None, :] < F, other=0.0)
    update = zero + tl.load(b + 2 * F, mask=f[None, :] < F, other=0.0)
    inner = zero + tl.load(b + 3 * F, mask=f[None, :] < F, other=0.0)
    x, weight = dense + m * H, w + m * H * 3 * F
    new = _product(new, x, rows, HIDDEN, batch, weight, f, 3 * F, 1, F, H, PRECISION, BK)
    reset = _product(reset, x, rows, HIDDEN, batch, weight + F, f, 3 * F, 1, F, H, PRECISION, BK)
    update = _product(update, x, rows, HIDDEN, batch, weight + 2 * F, f, 3 * F, 1, F, H,
                      PRECISION, BK)  # fmt: skip
    x, weight = state + m * state_module, u + m * F * 3 * F
    reset = _product(reset, x, rows, state_row, batch, weight, f, 3 * F, 1, F, F, PRECISION, BK)
    update = _product(update, x, rows, state_row, batch, weight + F, f, 3 * F, 1, F, F,
                      PRECISION, BK)  # fmt: skip
    inner = _product(inner, x, rows, state_row, batch, weight + 2 * F, f, 3 * F, 1, F, F,
                     PRECISION, BK)  # fmt: skip
    old = tl.load(x + rows[:, None] * state_row + f[None, :], mask=inside, other=0.0)
    reset, update = tl.sigmoid(reset), tl.sigmoid(update)
    new = _tanh(new + reset * inner)
    tl.store(center + rows[:, None] * CENTER + m * F + f[None, :], new + update * (old - new),
             mask=inside)  # fmt: skip
    to = kept + (m * batch + rows[:, None]) * F + f[None, :]
    tl.store(to, new, mask=inside)
    tl.store(to + block, reset, mask=inside)
    tl.store(to + 2 * block, update, mask=inside)
    tl.store(to + 3 * block, inner, mask=inside)


@triton.jit
def back_gates(
    by_center, by_seen, read, by_later, u, carried, kept, state, by_kept, batch, block, state_row,
    state_module, HIDDEN, CENTER, F, LAST: tl.constexpr,
    PRECISION: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Gradients by the gates of a step, from those by its center and by what came later."""
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    f, m = tl.program_id(1) * BN + tl.arange(0, BN), tl.program_id(2)
    inside = (rows[:, None] < batch) & (f[None, :] < F)
    of = (m * batch + rows[:, None]) * F + f[None, :]
    by = tl.load(by_center + rows[:, None] * CENTER + m * F + f[None, :], mask=inside, other=0.0)
    by += tl.load(carried + of, mask=inside, other=0.0)
    if not LAST:
        by = _product(by, by_seen, rows, HIDDEN, batch, read + m * F * HIDDEN, f, 1, HIDDEN, F,
                      HIDDEN, PRECISION, BK)  # fmt: skip
        later, weight = by_later + m * batch * F + block, u + m * F * 3 * F
        by = _product(by, later, rows, F, batch, weight, f, 1, 3 * F, F, F, PRECISION, BK)
        by = _product(by, later + block, rows, F, batch, weight + F, f, 1, 3 * F, F, F,
                      PRECISION, BK)  # fmt: skip
        by = _product(by, later + 2 * block, rows, F, batch, weight + 2 * F, f, 1, 3 * F, F, F,
                      PRECISION, BK)  # fmt: skip
    new = tl.load(kept + of, mask=inside, other=0.0)
    reset = tl.load(kept + block + of, mask=inside, other=0.0)
    update = tl.load(kept + 2 * block + of, mask=inside, other=0.0)
    inner = tl.load(kept + 3 * block + of, mask=inside, other=0.0)
    old = tl.load(state + rows[:, None] * state_row + m * state_module + f[None, :], mask=inside,
                  other=0.0)  # fmt: skip
    by_new = by * (1 - update) * (1 - new * new)
    tl.store(by_kept + of, by_new, mask=inside)
    tl.store(by_kept + block + of, by_new * inner * reset * (1 - reset), mask=inside)
    tl.store(by_kept + 2 * block + of, by * (old - new) * update * (1 - update), mask=inside)
    tl.store(by_kept + 3 * block + of, by_new * reset, mask=inside)
    tl.store(carried + of, by * update, mask=inside)


@triton.jit
def back_seen(
    by_kept, w, dense, by_seen, batch, block, HIDDEN, H, F,
    PRECISION: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Gradients by what was read, from those by the gates n, r, z."""
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    h, m = tl.program_id(1) * BN + tl.arange(0, BN), tl.program_id(2)
    inside = (rows[:, None] < batch) & (h[None, :] < H)
    g, weight = by_kept + m * batch * F, w + m * H * 3 * F
    sum = tl.zeros((BM, BN), tl.float32)
    sum = _product(sum, g, rows, F, batch, weight, h, 1, 3 * F, H, F, PRECISION, BK)
    sum = _product(sum, g + block, rows, F, batch, weight + F, h, 1, 3 * F, H, F, PRECISION, BK)
    sum = _product(sum, g + 2 * block, rows, F, batch, weight + 2 * F, h, 1, 3 * F, H, F,
                   PRECISION, BK)  # fmt: skip
    at = rows[:, None] * HIDDEN + m * H + h[None, :]
    value = tl.load(dense + at, mask=inside, other=0.0)
    tl.store(by_seen + at, sum * (1 - value * value), mask=inside)
