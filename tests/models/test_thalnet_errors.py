"""Errors of ThalNet: inputs, names and modules that do not fit, each reported in one line."""

import re
from dataclasses import replace

import pytest
import torch
from properties import (
    normal,
    task_inputs,
)
from thalnet_cases import (
    UNEQUAL,
    net_of,
)

from thalnet_mtl.models.thalnet import ThalNet
from thalnet_mtl.topology.spec import ModuleSpec


def one_line(error):
    message = str(error.value)
    assert "\n" not in message and len(message) < 200
    return message


@pytest.mark.parametrize("shape", [(2, 5, 4), (2, 5), (2, 0, 3), (2, 5, 3, 1)])
def test_inputs_of_another_shape_are_refused_with_what_is_expected(shape):
    net = ThalNet(inputs=3, modules=2, features=3)
    with pytest.raises(ValueError, match=re.escape("(batch, time, 3)")) as error:
        net(torch.zeros(shape))
    assert "'input'" in one_line(error) and str(tuple(shape)) in one_line(error)


def test_inputs_for_an_unknown_module_name_the_closest_one():
    net = net_of(UNEQUAL)
    with pytest.raises(ValueError, match=r"module 'input_aa'.*Did you mean 'input_a'") as error:
        net({"input_aa": normal(2, 3, 4)})
    assert "Allowed: input_a, input_b, output_b." in one_line(error)
    with pytest.raises(ValueError, match="unknown input module 'side_a'"):
        net({"side_a": normal(2, 3, 4)})


def test_outputs_of_an_unknown_module_name_the_closest_one():
    net = net_of(UNEQUAL)
    with pytest.raises(
        ValueError, match=r"unknown module 'outptu_b'.*Did you mean 'output_b'"
    ) as error:
        net(task_inputs(net, 2, 3), outputs=("outptu_b",))
    one_line(error)


def test_inputs_of_different_length_are_refused():
    net = net_of(UNEQUAL)
    with pytest.raises(ValueError, match="same batch and time") as error:
        net({"input_a": normal(2, 3, 4), "input_b": normal(2, 4, 2)})
    one_line(error)


ONE = ModuleSpec("one", 3, 2, inputs=2, output=True)


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        ([ONE, ONE], "there is a module 'one' already"),
        ([replace(ONE, name="a.b")], "invalid module name 'a.b'"),
        ([replace(ONE, name="")], "invalid module name ''"),
        ([replace(ONE, reads=("won",))], "module 'one' reads.*'won'.*Did you mean 'one'"),
        ([replace(ONE, reads=())], "'one' reads no slot"),
        ([replace(ONE, features=0)], "'one': features and context must be at least 1"),
        ([replace(ONE, context=0)], "'one': features and context must be at least 1"),
        ([replace(ONE, inputs=0)], "one module with inputs"),
        ([replace(ONE, output=False)], "one with output=True"),
        ([replace(ONE, module="gruff")], "unknown module 'gruff'.*Did you mean 'gru_ff'"),
        ([replace(ONE, reading="linaer")], "unknown reading 'linaer'.*Did you mean 'linear'"),
        ([], "at least one module"),
        (0, "modules must be at least 1, got 0"),
    ],
)
def test_invalid_modules_are_refused_in_one_line(modules, message):
    with pytest.raises(ValueError, match=message) as error:
        ThalNet(inputs=2, modules=modules)
    one_line(error)


@pytest.mark.parametrize("name", ["φ", "class", "center", "memory", "step", "weight"])
def test_any_common_word_can_name_a_module(name):
    ys, _ = ThalNet(modules=[replace(ONE, name=name)])(torch.zeros(2, 3, 2))
    assert ys.shape == (2, 3, 3)


@pytest.mark.parametrize("name", ["values", "train", "half", "training", "_modules", "__len__"])
def test_reserved_names_are_refused_in_one_line(name):
    with pytest.raises(ValueError, match=f"'{name}': use an identifier that is not") as error:
        ThalNet(modules=[replace(ONE, name=name)])
    one_line(error)
