"""Small bodies with every backend that can run them, and what they must agree with."""

import copy

import pytest
import torch
from properties import drawn, normal

from thalnet_mtl.models.recurrent import TorchRNN
from thalnet_mtl.models.stacked_gru import StackedGRU
from thalnet_mtl.models.thalnet import ThalNet

XS = normal(2, 3, 3)
LENGTHS = torch.tensor([2, 3])
OPTIONS = {"features": 3, "context": 2, "hidden": 2}
BODIES = {
    "static": lambda: ThalNet(3, 2, **OPTIONS),
    "dynamic": lambda: ThalNet(3, 2, **OPTIONS, reading="fast_softmax"),
    "gru": lambda: StackedGRU(3, 4, layers=2),
    "rnn": lambda: TorchRNN(3, 4, layers=2),
}
CASES = [
    *(("static", ops) for ops in ("auto", "cpp", "fused", "batched")),
    *(("dynamic", ops) for ops in ("auto", "cpp", "batched")),
    *((kind, "auto") for kind in ("gru", "rnn")),
]
every_case = pytest.mark.parametrize(("kind", "ops"), CASES)


def nets(kind, ops):
    """Return a body with a backend, and what it must agree with."""
    body = drawn(BODIES[kind])
    body.ops = ops
    if isinstance(body, ThalNet):
        expected = copy.deepcopy(body)
        expected.ops = "reference"
        return body, expected
    return body, copy.deepcopy(body.rnn if kind == "gru" else body.module)


def flat(tensors):
    return torch.cat([tensor.flatten() for tensor in tensors])
