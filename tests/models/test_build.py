"""Networks built from configurations: what they consist of, and the budget that they fill."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from properties import BODIES, examples, normal
from torch import nn

from thalnet_mtl.config.schema import ModelConfig
from thalnet_mtl.errors import UserError
from thalnet_mtl.models.build import build, largest_within_budget
from thalnet_mtl.models.size import count_parameters
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


def one_line(error):
    message = str(error.value)
    assert "\n" not in message and len(message) < 250
    return message


@pytest.mark.parametrize("body", BODIES)
def test_every_body_serves_several_tasks(body):
    tasks = {"rows": ROWS, "colors": COLORS, "words": WORDS}
    network = build(ModelConfig(body=body, features=5, layers=2), tasks)
    for name, task in tasks.items():
        logits, _ = network(name, data_of(task, 2, 3))
        assert logits.shape == (2, task.outputs)


@pytest.mark.parametrize(
    ("tasks", "width"),
    [
        ({"rows": ROWS}, 28),
        ({"bytes": BYTES}, 256),
        ({"rows": ROWS, "again": ROWS}, 28),
        ({"rows": ROWS, "colors": COLORS}, 6),
        ({"rows": ROWS, "bytes": BYTES}, 6),
    ],
)
def test_a_body_is_as_wide_as_its_tasks_or_as_its_features_if_they_differ(tasks, width):
    network = build(ModelConfig(features=6), tasks)
    assert network.body.inputs == width
    encoders = [port.encoders for port in network.adapters.values()]
    assert (sum(map(count_parameters, encoders)) == 0) == (width != 6)


def test_a_configuration_describes_the_net_it_builds():
    network = build(
        ModelConfig(
            modules=3,
            module="gru_ff",
            reading="linear",
            features=4,
            context=5,
            hidden=6,
            sub_steps=2,
            extra_steps=1,
        ),
        {"rows": ROWS},
    )
    modules = list(network.body.graph.values())
    assert len(modules) == 3
    for module in modules:
        sizes = module.features, module.context, module.hidden
        assert (*sizes, module.module, module.reading) == (4, 5, 6, "gru_ff", "linear")
    assert (network.adapter("rows").spec.sub_steps, network.adapter("rows").spec.extra_steps) == (
        2,
        1,
    )
    stack = build(ModelConfig(body="lstm", layers=2, features=4), {"rows": ROWS}).body
    assert (stack.rnn.num_layers, stack.outputs) == (2, 4)
    mlp = build(ModelConfig(body="mlp", features=4), {"rows": ROWS, "colors": COLORS}).body
    assert mlp.window == 32


@pytest.mark.parametrize("reading", ["linear", "weight_norm", "weight_norm_rows", "fast_gaussian"])
@pytest.mark.parametrize("budget", [2_000, 50_000])
def test_a_budget_is_filled_by_every_reading(reading, budget):
    config = ModelConfig(reading=reading, budget=budget)
    network = build(config, {"rows": ROWS})
    size = network.body.outputs
    assert count_parameters(network) <= budget
    larger = ModelConfig(reading=reading, features=size + 1, budget=0)
    assert count_parameters(build(larger, {"rows": ROWS})) > budget
    assert network("rows", data_of(ROWS))[0].isfinite().all()


@given(squares=st.integers(0, 5), slope=st.integers(1, 9), rest=st.integers(0, 20), data=st.data())
@examples(max_examples=60)
def test_largest_within_budget_agrees_with_brute_force(squares, slope, rest, data):
    def count(size):
        return squares * size * size + slope * size + rest

    def make(size):
        return nn.ParameterList([nn.Parameter(torch.empty(count(size)))])

    budget = data.draw(st.integers(count(1), 3_000))
    brute = max(size for size in range(1, 3_002) if count(size) <= budget)
    assert largest_within_budget(make, budget) == brute


def test_the_search_within_a_budget_allocates_no_memory():
    def make(size):
        parameter = nn.Parameter(torch.empty(size, 10**9))
        assert parameter.is_meta
        return nn.ParameterList([parameter])

    assert largest_within_budget(make, 12 * 10**9) == 12


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features": 100}, "model.features 100 makes .* over model.budget 50,000"),
        ({"budget": 0}, "both are 0"),
        ({"budget": 30}, "model.budget 30 is too small"),
        ({"body": "gruu"}, "unknown body 'gruu'.*Did you mean 'gru'"),
        ({"reading": "softmax"}, "unknown reading 'softmax'.*Did you mean 'fast_softmax'"),
        ({"module": "ffgru"}, "unknown module 'ffgru'.*Did you mean 'ff_gru'"),
        ({"body": "mlp", "sub_steps": 2}, "a body without steps"),
    ],
)
def test_invalid_configurations_are_refused_in_one_line(options, message):
    with pytest.raises(UserError, match=message) as error:
        build(ModelConfig(**options), {"rows": ROWS})
    one_line(error)


def test_an_mlp_has_no_output_at_every_step():
    with pytest.raises(UserError, match=r"model.body mlp has one output a sequence") as error:
        build(ModelConfig(body="mlp"), {"bytes": BYTES})
    one_line(error)


def test_an_mlp_needs_the_length_of_sequences():
    stream = TaskSpec(inputs=28, outputs=10)
    with pytest.raises(UserError, match=r"mlp needs a task .* length") as error:
        build(ModelConfig(body="mlp", features=4), {"stream": stream})
    one_line(error)
