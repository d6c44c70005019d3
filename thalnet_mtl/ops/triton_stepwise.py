"""Triton kernels for networks whose weights do not fit one multiprocessor: two kernels a step.

Each program computes a tile of rows and columns. Steps exchange their results through global
memory, so a kernel starts only after the previous one has ended. The gates are blocks n, r, z, n_h,
as in ``packed_weights.py``. Tensors (module, row, width) are contiguous.
"""

import triton
import triton.language as tl


@triton.jit
def _tanh(x):
    return 2 * tl.sigmoid(2 * x) - 1


@triton.jit
def _product(
    sum, x, rows, row_stride, row_count, weight, columns, k_stride, column_stride, column_count, K,
    PRECISION: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Return sum + X W of a tile: X (rows, K) with one stride, W (K, columns) with two strides."""
    for start in range(0, K, BK):
        k = start + tl.arange(0, BK)
        x_mask = (rows[:, None] < row_count) & (k[None, :] < K)
        weight_mask = (k[:, None] < K) & (columns[None, :] < column_count)
        a = tl.load(x + rows[:, None] * row_stride + k[None, :], mask=x_mask, other=0.0)
        b = tl.load(
            weight + k[:, None] * k_stride + columns[None, :] * column_stride,
            mask=weight_mask,
            other=0.0,
        )
        sum += tl.dot(a.to(b.dtype), b, input_precision=PRECISION)
    return sum


@triton.jit
def dense_layers(
    first, center, read, dense, batch, CENTER, HIDDEN,
    PRECISION: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Compute tanh(first + Φ read), the outputs (batch, module · H) of all dense layers."""
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    columns = tl.program_id(1) * BN + tl.arange(0, BN)
    index = rows[:, None] * HIDDEN + columns[None, :]
    inside = (rows[:, None] < batch) & (columns[None, :] < HIDDEN)
    sum = tl.load(first + index, mask=inside, other=0.0)
    sum = _product(sum, center, rows, CENTER, batch, read, columns, HIDDEN, 1, HIDDEN, CENTER,
                   PRECISION, BK)  # fmt: skip
    tl.store(dense + index, _tanh(sum), mask=inside)


@triton.jit
def gru(
    dense, state, w, u, bias, center, gates, batch, block, state_row, state_module, HIDDEN, CENTER,
    H, F, PRECISION: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Compute the gates of all GRUs, and their next states into a center (batch, module · F)."""
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
    step_gates = gates + (m * batch + rows[:, None]) * F + f[None, :]
    tl.store(step_gates, new, mask=inside)
    tl.store(step_gates + block, reset, mask=inside)
    tl.store(step_gates + 2 * block, update, mask=inside)
    tl.store(step_gates + 3 * block, inner, mask=inside)


@triton.jit
def gru_backward(
    grad_center, grad_first, read, grad_next_gates, u, grad_state, gates, state, grad_gates, batch,
    block, state_row, state_module, HIDDEN, CENTER, F, LAST: tl.constexpr,
    PRECISION: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Compute gradients w.r.t. the gates of a step, from its center and the following step.

    ``grad_state`` is updated in place: the part that reaches the previous state past the gates.
    """
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    f, m = tl.program_id(1) * BN + tl.arange(0, BN), tl.program_id(2)
    inside = (rows[:, None] < batch) & (f[None, :] < F)
    index = (m * batch + rows[:, None]) * F + f[None, :]
    grad = tl.load(
        grad_center + rows[:, None] * CENTER + m * F + f[None, :], mask=inside, other=0.0
    )
    grad += tl.load(grad_state + index, mask=inside, other=0.0)
    if not LAST:
        grad = _product(grad, grad_first, rows, HIDDEN, batch, read + m * F * HIDDEN, f, 1, HIDDEN,
                        F, HIDDEN, PRECISION, BK)  # fmt: skip
        g, weight = grad_next_gates + m * batch * F + block, u + m * F * 3 * F
        grad = _product(grad, g, rows, F, batch, weight, f, 1, 3 * F, F, F, PRECISION, BK)
        grad = _product(grad, g + block, rows, F, batch, weight + F, f, 1, 3 * F, F, F,
                        PRECISION, BK)  # fmt: skip
        grad = _product(grad, g + 2 * block, rows, F, batch, weight + 2 * F, f, 1, 3 * F, F, F,
                        PRECISION, BK)  # fmt: skip
    new = tl.load(gates + index, mask=inside, other=0.0)
    reset = tl.load(gates + block + index, mask=inside, other=0.0)
    update = tl.load(gates + 2 * block + index, mask=inside, other=0.0)
    inner = tl.load(gates + 3 * block + index, mask=inside, other=0.0)
    old = tl.load(state + rows[:, None] * state_row + m * state_module + f[None, :], mask=inside,
                  other=0.0)  # fmt: skip
    grad_new = grad * (1 - update) * (1 - new * new)
    tl.store(grad_gates + index, grad_new, mask=inside)
    tl.store(grad_gates + block + index, grad_new * inner * reset * (1 - reset), mask=inside)
    tl.store(
        grad_gates + 2 * block + index, grad * (old - new) * update * (1 - update), mask=inside
    )
    tl.store(grad_gates + 3 * block + index, grad_new * reset, mask=inside)
    tl.store(grad_state + index, grad * update, mask=inside)


@triton.jit
def dense_layers_backward(
    grad_gates, w, dense, grad_first, batch, block, HIDDEN, H, F,
    PRECISION: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Compute gradients w.r.t. the pre-activations of the dense layers, from gates n, r, z."""
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    h, m = tl.program_id(1) * BN + tl.arange(0, BN), tl.program_id(2)
    inside = (rows[:, None] < batch) & (h[None, :] < H)
    g, weight = grad_gates + m * batch * F, w + m * H * 3 * F
    sum = tl.zeros((BM, BN), tl.float32)
    sum = _product(sum, g, rows, F, batch, weight, h, 1, 3 * F, H, F, PRECISION, BK)
    sum = _product(sum, g + block, rows, F, batch, weight + F, h, 1, 3 * F, H, F, PRECISION, BK)
    sum = _product(sum, g + 2 * block, rows, F, batch, weight + 2 * F, h, 1, 3 * F, H, F,
                   PRECISION, BK)  # fmt: skip
    index = rows[:, None] * HIDDEN + m * H + h[None, :]
    value = tl.load(dense + index, mask=inside, other=0.0)
    tl.store(grad_first + index, sum * (1 - value * value), mask=inside)
