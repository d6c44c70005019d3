"""Costs against formulas."""

import pytest
import torch

from thalnet_mtl.models.baselines import StackedLSTM
from thalnet_mtl.models.cost import count_macs, stored_bytes
from thalnet_mtl.models.network import Network
from thalnet_mtl.models.size import parameter_counts
from thalnet_mtl.models.stacked_gru import StackedGRU
from thalnet_mtl.models.thalnet import ThalNet
from thalnet_mtl.topology.spec import TaskSpec


def network(body):
    made = Network(body)
    made.add_task("rows", TaskSpec(inputs=5, outputs=3))
    return made


@pytest.mark.parametrize(("kind", "gates"), [(StackedGRU, 3), (StackedLSTM, 4)])
def test_recurrent_layers_count_at_every_step(kind, gates):
    found = count_macs(network(kind(5, features=8, layers=2)), "rows", torch.rand(1, 7, 5))
    assert found == 7 * gates * 8 * (5 + 8 + 8 + 8) + 8 * 3


def test_a_thalnet_counts_readings_dense_layers_and_gates():
    net = network(ThalNet(inputs=5, modules=3, features=4, context=6))
    net.body.ops = "batched"
    read, dense, gates = 3 * 6 * 12, 3 * 6 * 4 + 5 * 4, 3 * 3 * 4 * (4 + 4)
    assert count_macs(net, "rows", torch.rand(1, 7, 5)) == 7 * (read + dense + gates) + 4 * 3
    assert net.body.ops == "batched"
    assert count_macs(net, "rows", torch.rand(1, 14, 5)) == 14 * (read + dense + gates) + 4 * 3


def test_parameters_are_counted_as_trainable_or_frozen():
    net = network(ThalNet(inputs=5, modules=3, features=4))
    every = sum(p.numel() for p in net.parameters())
    assert parameter_counts(net) == {"total": every, "trainable": every, "frozen": 0}
    net.freeze("side1")
    of_one = sum(p.numel() for p in net.body.cell("side1").parameters())
    assert parameter_counts(net) == {"total": every, "trainable": every - of_one, "frozen": of_one}


def test_stored_bytes_count_tensors_in_nested_containers():
    kept = {"a": [torch.zeros(3, dtype=torch.uint8)], "b": (torch.zeros(2, 2), "word", 7)}
    assert stored_bytes(kept) == 3 + 16
