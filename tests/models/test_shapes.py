"""A network without numbers has the parameters of the network with them, by name and shape."""

import subprocess
import sys

import pytest
import torch
from properties import BODIES, DESIGNS, READINGS

from thalnet_mtl.config.load import load_config
from thalnet_mtl.models.build import build
from thalnet_mtl.models.shapes import shapes_only
from thalnet_mtl.topology.spec import TaskSpec

TASKS = {"a": TaskSpec(3, 4, steps=7), "b": TaskSpec(5, 2, steps=7)}
MODELS = [
    *({"body": body} for body in BODIES),
    *({"reading": reading} for reading in READINGS),
    *({"module": design} for design in DESIGNS),
]


def shapes(network: torch.nn.Module) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (value.shape, value.dtype) for name, value in network.state_dict().items()}


@pytest.mark.parametrize("model", MODELS, ids=str)
def test_shapes_are_those_of_the_network_with_numbers(model):
    options = load_config({"model": {"features": 6, "budget": 0, "modules": 3} | model}).model
    network = build(options, TASKS)
    before = torch.get_rng_state()
    with shapes_only():
        empty = build(options, TASKS)
    assert shapes(empty) == shapes(network)
    assert all(parameter.is_meta for parameter in empty.parameters())
    assert torch.equal(before, torch.get_rng_state())


def test_what_modules_draw_and_scale_keeps_its_shape_and_type():
    with shapes_only():
        for value in (torch.randn(2, 3) * 0.5, 2.0 * torch.rand(2, 3), torch.rand(2, 3) / 4.0):
            assert value.shape == (2, 3) and value.dtype == torch.float32 and value.is_meta
        generator = torch.Generator("cpu")
        assert torch.randn(2, 3, dtype=torch.float64, generator=generator).dtype == torch.float64
        assert (torch.arange(3) * 0.5).dtype == torch.float32
    assert torch.rand(2).device.type == "cpu"


def test_a_network_is_built_within_its_budget_without_a_compiler():
    code = (
        "import sys\n"
        "from thalnet_mtl.config.load import load_config\n"
        "from thalnet_mtl.training.setup import check_buildable\n"
        "check_buildable(load_config('digits'))\n"
        "print('torch._dynamo' in sys.modules, 'sympy' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "False False\n", done.stderr
