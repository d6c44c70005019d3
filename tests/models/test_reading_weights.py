"""Reading weights: the matrix of every module, over the whole center."""

import re
from dataclasses import replace

import numpy as np
import numpy_thalnet
import pytest
import torch
from properties import (
    KNOWN_READINGS,
    arrays,
    assert_close,
    normal,
    task_inputs,
)
from thalnet_cases import (
    UNEQUAL,
    equal,
    every_reading,
    net_of,
)

from thalnet_mtl.errors import UserError


@every_reading
def test_reading_weights_are_zero_exactly_at_slots_that_are_not_read(reading):
    net = net_of([replace(module, reading=reading) for module in UNEQUAL])
    weights = net.reading_weights(task_inputs(net, batch=3, time=4))
    assert list(weights) == list(net.slots)
    for name, module in net.graph.items():
        assert weights[name].shape == (module.context, net.center)
        assert not weights[name].requires_grad
        for seen, slot in net.slots.items():
            visible = module.reads is None or seen in module.reads
            assert bool((weights[name][:, slot] != 0).all()) == visible


@pytest.mark.parametrize("reading", KNOWN_READINGS)
def test_reading_weights_are_the_matrices_of_the_equations(reading):
    net = equal(reading=reading)
    xs = task_inputs(net, batch=3, time=4)
    _, state = net(xs)
    own = arrays(net)
    for name, weights in net.reading_weights(xs).items():
        parameters = numpy_thalnet.under(own, f"cells.{name}.reading.")
        features = state.center[:, net.slots[name]].detach().numpy()
        rows = [numpy_thalnet.reading_matrix(reading, parameters, phi, 9) for phi in features]
        assert_close(weights, np.mean(rows, axis=0))


def test_reading_weights_of_static_readings_need_no_inputs():
    net = equal(reading="weight_norm")
    without, given_inputs = net.reading_weights(), net.reading_weights(normal(2, 3, 2))
    assert all(torch.equal(without[name], given_inputs[name]) for name in net.slots)


@pytest.mark.parametrize("reading", ["fast_softmax", "fast_gaussian"])
def test_reading_weights_of_dynamic_readings_need_inputs(reading):
    with pytest.raises(UserError, match=re.escape("reading_weights(xs)")):
        equal(reading=reading).reading_weights()
