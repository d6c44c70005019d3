"""The block GRU against its formula, written down in NumPy, and what its update bias does."""

import numpy as np
import pytest
import torch
from properties import arrays, assert_close, drawn, normal

from thalnet_mtl.models.designs.block_gru import BlockGRU


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def normed(a, gain):
    return gain * a / np.sqrt((a**2).mean(-1, keepdims=True) + 1e-4)


def step(weights, x, memory):
    def dense(name, a):
        return a @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def silu(a):
        return a * sigmoid(a)

    read = silu(normed(dense("read", x), weights["read_norm.weight"]))
    joined = np.concatenate([memory, read], -1)
    joined = silu(normed(dense("join", joined), weights["join_norm.weight"]))
    reset, candidate, update = np.split(dense("gates", joined), 3, -1)
    update = sigmoid(update - 1)
    return update * np.tanh(sigmoid(reset) * candidate) + (1 - update) * memory


@pytest.mark.parametrize("sizes", [(4, 3, 5), (1, 1, 1), (2, 6, 1)])
def test_a_step_is_what_the_formula_says(sizes):
    design = drawn(lambda: BlockGRU(*sizes))
    x, memory = normal(7, sizes[0]), normal(7, sizes[1], seed=1)
    features, state = design(x, memory)
    assert torch.equal(features, state)
    assert_close(state, step(arrays(design), x.numpy(), memory.numpy()))


def test_without_gates_it_moves_to_zero_by_the_share_of_the_update_bias():
    design = BlockGRU(4, 3, 5).double()
    torch.nn.init.zeros_(design.gates.weight)
    torch.nn.init.zeros_(design.gates.bias)
    memory = normal(2, 3)
    assert_close(design(normal(2, 4), memory)[1], memory / (1 + np.exp(-1)))


def test_what_it_reads_may_have_any_scale():
    design = BlockGRU(4, 3, 5).double()
    torch.nn.init.zeros_(design.read.bias)
    x, memory = normal(5, 4), normal(5, 3, seed=1)
    small, large = design(10 * x, memory)[1], design(1000 * x, memory)[1]
    assert (small - large).abs().max() < 1e-4 < (design(-10 * x, memory)[1] - small).abs().max()


def test_it_has_the_parameters_of_its_three_layers_and_two_norms():
    inputs, features, hidden = 4, 3, 5
    expected = (inputs + 2) * hidden + (features + hidden + 2) * features
    expected += 3 * (features + 1) * features
    assert sum(p.numel() for p in BlockGRU(inputs, features, hidden).parameters()) == expected
