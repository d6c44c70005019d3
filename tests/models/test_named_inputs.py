"""Tasks with several named inputs, each for the input module of its name."""

import json

import pytest
import torch
import yaml
from properties import assert_alone, assert_close, drawn, normal, padded_and_alone, random_lengths

from thalnet_mtl.config.schema import ModelConfig
from thalnet_mtl.errors import UserError
from thalnet_mtl.models.build import build
from thalnet_mtl.models.export import export
from thalnet_mtl.models.network import Network
from thalnet_mtl.models.stacked_gru import StackedGRU
from thalnet_mtl.models.thalnet import ThalNet
from thalnet_mtl.topology.spec import ModuleSpec, TaskSpec, from_plain, to_plain

CLIP = TaskSpec(inputs={"image": 4, "sound": 5}, outputs=3)
MODULES = [
    ModuleSpec("image", 4, 3, inputs=4),
    ModuleSpec("sound", 3, 3, inputs=2, module="gru"),  # behind an encoder
    ModuleSpec("output", 5, 4, output=True),
]


def network_of(task=CLIP, dtype=torch.float64):
    def make():
        network = Network(ThalNet(modules=MODULES))
        network.add_task("clip", task)
        network.add_task("plain", TaskSpec(4, 2), input_modules=["image"])
        return network

    return drawn(make, dtype=dtype)


def data_of(batch=3, time=4, dtype=torch.float64):
    widths = CLIP.inputs.items()
    return {name: normal(batch, time, n, seed=n, dtype=dtype) for name, n in widths}


def test_each_input_goes_to_the_module_of_its_name():
    network, xs = network_of(), data_of()
    adapter = network.adapters["clip"]
    assert adapter.spec.input_modules == ("image", "sound")
    encode = adapter.encoders["sound"]
    assert isinstance(encode, torch.nn.Linear)
    assert isinstance(adapter.encoders["image"], torch.nn.Identity)
    ys, _ = network.body({"image": xs["image"], "sound": encode(xs["sound"])})
    expected = ys[:, -1] @ adapter.head.weight.T + adapter.head.bias
    assert_close(network("clip", xs)[0], expected)
    assert_close(network("clip", dict(reversed(xs.items())))[0], expected)
    assert torch.equal(network.outputs_by_task(["clip"], xs)[0]["clip"], network("clip", xs)[0])
    assert "task clip: rows of image 4, sound 5 -> 3 outputs" in repr(network)


def test_tokens_may_have_names():
    words = TaskSpec(inputs={"image": 4, "sound": 7}, outputs=3, tokens=True)
    network = network_of(words)
    xs = {name: torch.randint(n, (3, 5)) for name, n in words.inputs.items()}
    encoders = network.adapters["clip"].encoders
    ys, _ = network.body({name: encoders[name](x).double() for name, x in xs.items()})
    assert_close(network("clip", xs)[0], network.adapters["clip"].head(ys[:, -1]))


def test_a_padded_batch_equals_each_sequence_alone():
    network, lengths = network_of(), random_lengths(6, 5)

    def call(xs, state, lengths):
        return network("clip", xs, state, lengths)

    assert_alone(*padded_and_alone(call, network, data_of(6, 5), None, lengths))


def test_dropout_reaches_every_input():
    network, xs = network_of(), data_of()
    network.dropout = 1.0
    _, state = network.train()("clip", xs)
    zeros = {name: torch.zeros_like(x) for name, x in xs.items()}
    _, expected = network.eval()("clip", zeros)
    assert torch.equal(state.center, expected.center)


def test_a_specification_with_named_inputs_is_frozen_hashable_and_plain_in_files():
    widths = {"image": 4, "sound": 5}
    task = TaskSpec(widths, 3)
    widths["image"] = 6
    assert task == CLIP and hash(task) == hash(CLIP) and len({task, CLIP}) == 1
    assert task != TaskSpec({"image": 4}, 3) and task != TaskSpec(4, 3)
    with pytest.raises(TypeError):
        task.inputs["image"] = 1
    plain = to_plain(task)
    assert plain["inputs"] == {"image": 4, "sound": 5} and type(plain["inputs"]) is dict
    for again in (json.loads(json.dumps(plain)), yaml.safe_load(yaml.safe_dump(plain))):
        assert from_plain(TaskSpec, again) == task


def test_a_network_with_named_inputs_is_saved_and_loaded(tmp_path):
    network, xs = network_of(dtype=torch.float32), data_of(dtype=torch.float32)
    network.save(tmp_path / "model")
    loaded = Network.load(tmp_path / "model")
    assert loaded.adapter("clip").task == CLIP
    assert torch.equal(loaded("clip", xs)[0], network("clip", xs)[0])


def test_a_step_with_named_inputs_is_exported(tmp_path):
    import onnxruntime

    network, xs = network_of(dtype=torch.float32), data_of(dtype=torch.float32)
    expected, _ = network("clip", xs)
    session = onnxruntime.InferenceSession(export(network, "onnx", tmp_path / "a.onnx", "clip"))
    assert [x.name for x in session.get_inputs()] == ["image", "sound", "state0", "state1"]
    state = [part.detach().numpy() for part in network.initial("clip", 3)]
    for t in range(4):
        feed = {name: x[:, t].numpy() for name, x in xs.items()}
        outputs, *state = session.run(
            None, feed | {f"state{k}": part for k, part in enumerate(state)}
        )
    torch.testing.assert_close(torch.from_numpy(outputs), expected, rtol=1e-4, atol=1e-5)


def test_a_configuration_builds_an_input_module_for_every_name():
    tasks = {"clip": CLIP}
    body = build(ModelConfig(modules=4, features=6, budget=0), tasks).body
    assert list(body.graph) == ["image", "sound", "side1", "side2", "output"]
    assert [body.graph[name].inputs for name in body.graph] == [4, 5, 0, 0, 0]
    assert body.output_modules == ("output",)
    body = build(ModelConfig(features=6, budget=0), tasks | {"rows": TaskSpec(7, 2)}).body
    assert body.input_modules == ("image", "sound", "input") and body.graph["input"].inputs == 7
    clash = {"clip": TaskSpec({"output": 4}, 3)}
    with pytest.raises(UserError, match="an input cannot be called 'output'"):
        build(ModelConfig(features=6, budget=0), clash)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda xs: xs["image"], "task 'clip' has the inputs image, sound: .* not Tensor"),
        (lambda xs: {"image": xs["image"]}, "task 'clip': input 'sound' is missing"),
        (lambda xs: {}, "task 'clip': input 'image' is missing"),
        (lambda xs: xs | {"sond": xs["sound"]}, "unknown input of task 'clip' 'sond'.*'sound'"),
        (lambda xs: xs | {"sound": xs["image"]}, r"input 'sound' of task 'clip' has shape.*5\)"),
        (lambda xs: xs | {"sound": 3}, "input 'sound' of task 'clip': expected a tensor, not int"),
        (lambda xs: xs | {"sound": xs["sound"][:, :2]}, "must have the same batch and time"),
    ],
)
def test_inputs_of_other_names_or_shapes_are_refused_in_one_line(change, message):
    with pytest.raises(UserError, match=message) as error:
        network_of()("clip", change(data_of()))
    assert "\n" not in str(error.value)


def test_a_single_input_is_one_tensor():
    with pytest.raises(UserError, match="task 'plain' has a single input: one tensor, not dict"):
        network_of()("plain", {"image": normal(3, 4, 4)})


@pytest.mark.parametrize(
    ("body", "task", "options", "message"),
    [
        (lambda: StackedGRU(4, 5), CLIP, {}, "inputs image, sound: only a ThalNet.*StackedGRU"),
        (lambda: ThalNet(4, 3), CLIP, {}, "unknown input module 'image'. Allowed: input"),
        (
            lambda: ThalNet(modules=MODULES),
            CLIP,
            {"input_modules": ["image"]},
            "each for the module of its name; leave out input_modules",
        ),
    ],
)
def test_bodies_without_a_module_for_every_input_are_refused_in_one_line(
    body, task, options, message
):
    network = Network(body())
    with pytest.raises(UserError, match=message) as error:
        network.add_task("clip", task, **options)
    assert "\n" not in str(error.value) and not network.adapters


def test_an_input_that_the_head_cannot_see_is_refused():
    modules = [
        ModuleSpec("image", 4, 3, inputs=4, reads=("image",)),
        ModuleSpec("sound", 3, 3, inputs=2),
        ModuleSpec("output", 5, 4, output=True, reads=("image",)),
    ]
    with pytest.raises(UserError, match="its head cannot depend on its input 'sound'"):
        Network(ThalNet(modules=modules)).add_task("clip", CLIP)


@pytest.mark.parametrize("inputs", [{}, {"image": 0}, 0])
def test_widths_are_at_least_one(inputs):
    with pytest.raises(UserError, match="inputs and outputs must be at least 1"):
        TaskSpec(inputs, 3)
