"""Encoders: without parameters where a task is as wide as the body, learned elsewhere."""

import pytest
import torch
from properties import normal
from torch import nn

from thalnet_mtl.models.adapter import OneHot, encoder
from thalnet_mtl.models.network import Network
from thalnet_mtl.models.size import count_parameters
from thalnet_mtl.models.thalnet import ThalNet
from thalnet_mtl.topology.spec import TaskSpec

ROWS = TaskSpec(inputs=28, outputs=10, steps=28)
COLORS = TaskSpec(inputs=96, outputs=7, steps=32)
BYTES = TaskSpec(inputs=256, outputs=256, tokens=True, every_step=True)
WORDS = TaskSpec(inputs=11, outputs=3, tokens=True, steps=5)


def data_of(task, batch=3, time=4, seed=0):
    if not task.tokens:
        return normal(batch, time, task.inputs, seed=seed, dtype=torch.float32)
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(task.inputs, (batch, time), generator=generator)


def test_rows_as_wide_as_the_body_need_no_encoder():
    assert count_parameters(encoder(ROWS, 28)) == 0
    assert torch.equal(encoder(ROWS, 28)(data_of(ROWS)), data_of(ROWS))


def test_tokens_are_one_hot_if_the_body_is_as_wide_as_the_vocabulary():
    encode, xs = encoder(WORDS, 11), data_of(WORDS)
    assert isinstance(encode, OneHot) and count_parameters(encode) == 0
    torch.testing.assert_close(encode(xs), torch.eye(11)[xs] * 11**0.5)
    torch.testing.assert_close(encode(xs).square().mean(-1), torch.ones(xs.shape))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_hot_rows_have_the_type_of_the_body(dtype):
    network = Network(ThalNet(inputs=11, modules=2, features=3)).to(dtype)
    network.add_task("words", WORDS)
    assert network.to(dtype)("words", data_of(WORDS))[0].dtype == dtype


def test_one_hot_rows_of_a_double_network_are_exact_in_double_precision():
    network = Network(ThalNet(inputs=11, modules=2, features=3)).double()
    network.add_task("words", WORDS)
    (rows,) = network.adapters["words"].encode(data_of(WORDS), ("input",)).values()
    assert rows.dtype == torch.float64 and float(rows.max()) == 11**0.5


def test_other_inputs_get_a_learned_encoder():
    assert isinstance(encoder(COLORS, 28), nn.Linear)
    assert count_parameters(encoder(COLORS, 28)) == 97 * 28
    assert isinstance(encoder(BYTES, 28), nn.Embedding)
    assert count_parameters(encoder(BYTES, 28)) == 256 * 28
