"""Networks: tasks of any shape around one body, what they share, and what is refused."""

import pytest
import torch
from properties import assert_close, drawn, gradients, normal

from thalnet_mtl.errors import UserError
from thalnet_mtl.models.baselines import MLP
from thalnet_mtl.models.network import Network
from thalnet_mtl.models.readings.linear import LinearReading
from thalnet_mtl.models.size import count_parameters
from thalnet_mtl.models.stacked_gru import StackedGRU
from thalnet_mtl.models.thalnet import ThalNet
from thalnet_mtl.topology.spec import ModuleSpec, TaskSpec

ROWS = TaskSpec(inputs=28, outputs=10, steps=28)
COLORS = TaskSpec(inputs=96, outputs=7, steps=32)
BYTES = TaskSpec(inputs=256, outputs=256, tokens=True, every_step=True)
WORDS = TaskSpec(inputs=11, outputs=3, tokens=True, steps=5)
TASKS = {"rows": ROWS, "colors": COLORS, "bytes": BYTES, "words": WORDS}

# Two paths that share nothing, and one module that reads both.
PATHS = [
    ModuleSpec("image_in", 3, 2, inputs=28, reads=("image_in",)),
    ModuleSpec("image_out", 4, 2, output=True, reads=("image_in",)),
    ModuleSpec("sound_in", 3, 2, inputs=12, reads=("sound_in",)),
    ModuleSpec("sound_out", 5, 2, output=True, reads=("sound_in",)),
    ModuleSpec("both", 2, 2, reads=("image_in", "sound_in")),
]


def data_of(task, batch=3, time=4, seed=0):
    if not task.tokens:
        return normal(batch, time, task.inputs, seed=seed, dtype=torch.float32)
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(task.inputs, (batch, time), generator=generator)


def network_of(body, tasks=TASKS, **options):
    def make():
        network = Network(body())
        for name, task in tasks.items():
            network.add_task(name, task, **options)
        return network

    return drawn(make, dtype=torch.float32)


def thalnet(inputs=28):
    return ThalNet(inputs=inputs, modules=4, features=6)


def gru(inputs=28):
    return StackedGRU(inputs, 6, layers=2)


def logits_shape(task, batch, time):
    return (batch, time, task.outputs) if task.every_step else (batch, task.outputs)


every_recurrent_body = pytest.mark.parametrize("body", [thalnet, gru])


# Tasks around one body


@every_recurrent_body
@pytest.mark.parametrize("task", TASKS)
def test_tasks_of_any_shape_share_one_body(task, body):
    network = network_of(body)
    for time in (1, 5):
        logits, _ = network(task, data_of(TASKS[task], 3, time))
        assert logits.shape == logits_shape(TASKS[task], 3, time)


@every_recurrent_body
def test_a_last_target_is_the_last_of_a_target_at_every_step(body):
    every = TaskSpec(inputs=28, outputs=10, every_step=True)
    network = network_of(body, {"last": ROWS, "every": every})
    network.adapters["last"].load_state_dict(network.adapters["every"].state_dict())
    xs = data_of(ROWS)
    assert_close(network("last", xs)[0], network("every", xs)[0][:, -1])


@every_recurrent_body
@pytest.mark.parametrize("task", TASKS)
def test_logits_are_a_linear_head_on_the_body_behind_an_encoder(task, body):
    network = network_of(body)
    xs, port = data_of(TASKS[task]), network.adapters[task]
    encoded = [encode(xs) for encode in port.encoders.values()]
    assert len(encoded) == 1
    ys, _ = network.body(encoded[0])
    expected = ys @ port.head.weight.T + port.head.bias
    if not TASKS[task].every_step:
        expected = expected[:, -1]
    assert_close(network(task, xs)[0], expected)


@every_recurrent_body
@pytest.mark.parametrize("task", TASKS)
def test_two_chunks_with_the_state_between_are_the_whole(task, body):
    network = network_of(body)
    xs = data_of(TASKS[task], time=7)
    whole, last = network(task, xs)
    first, state = network(task, xs[:, :3])
    second, state = network(task, xs[:, 3:], state)
    chunks = torch.cat([first, second], 1) if TASKS[task].every_step else second
    assert_close(chunks, whole)
    states = [[s] if isinstance(s, torch.Tensor) else s for s in (state, last)]
    for part, other in zip(*states, strict=True):
        assert_close(part, other)


@every_recurrent_body
def test_a_new_task_changes_nothing_for_the_old_ones(body):
    network = network_of(body, {"rows": ROWS})
    xs = data_of(ROWS)
    before = network("rows", xs)[0]
    body_before = count_parameters(network.body)
    network.add_task("colors", COLORS)
    assert torch.equal(network("rows", xs)[0], before)
    assert count_parameters(network.body) == body_before


@every_recurrent_body
def test_gradients_reach_the_body_and_only_the_adapter_of_the_task(body):
    network = network_of(body)
    for task in TASKS:
        logits, _ = network(task, data_of(TASKS[task], time=6))
        found = gradients(logits.square().sum(), dict(network.named_parameters()))
        for name, gradient in found.items():
            used = name.startswith(("body.", f"adapters.{task}."))
            assert bool(gradient.any()) == used, (task, name)


@pytest.mark.parametrize("sub_steps", [1, 3])
@pytest.mark.parametrize("extra_steps", [0, 2])
@every_recurrent_body
def test_inputs_are_repeated_for_sub_steps_and_followed_by_extra_steps(
    body, sub_steps, extra_steps
):
    network = network_of(body, {"rows": ROWS}, sub_steps=sub_steps, extra_steps=extra_steps)
    xs, head = data_of(ROWS), network.adapters["rows"].head
    shown = xs.repeat_interleave(sub_steps, dim=1)
    shown = torch.cat([shown, torch.zeros(3, extra_steps, 28)], 1)
    ys, _ = network.body(shown)
    assert_close(network("rows", xs)[0], ys[:, -1] @ head.weight.T + head.bias)


@every_recurrent_body
def test_a_target_at_every_step_is_due_on_the_last_sub_step_of_each_input(body):
    every = TaskSpec(inputs=28, outputs=10, every_step=True)
    network = network_of(body, {"every": every}, sub_steps=3)
    xs, head = data_of(every), network.adapters["every"].head
    ys, _ = network.body(xs.repeat_interleave(3, dim=1))
    assert_close(network("every", xs)[0], ys[:, 2::3] @ head.weight.T + head.bias)


# Tasks at modules of their own


def two_paths():
    def make():
        network = Network(ThalNet(modules=PATHS))
        network.add_task("image", ROWS, input_modules=["image_in"], output_modules=["image_out"])
        network.add_task("sound", WORDS, input_modules=["sound_in"], output_modules=["sound_out"])
        network.add_task("video", COLORS, output_modules=["both", "image_out"])
        return network

    return drawn(make, dtype=torch.float32)


def test_gradients_reach_only_the_modules_that_a_task_uses():
    network = two_paths()
    uses = {
        "image": ["image_in", "image_out"],
        "sound": ["sound_in", "sound_out"],
        "video": ["image_in", "sound_in", "both", "image_out"],
    }
    for task, modules in uses.items():
        logits, _ = network(task, data_of(network.adapter(task).task, time=6))
        found = gradients(logits.square().sum(), dict(network.named_parameters()))
        allowed = (f"adapters.{task}.", *(f"body.cells.{name}." for name in modules))
        for name, gradient in found.items():
            assert bool(gradient.any()) == name.startswith(allowed), (task, name)


def test_a_head_reads_the_modules_that_its_task_names():
    network = two_paths()
    assert [network.adapters[task].head.in_features for task in ("image", "sound", "video")] == [
        4,
        5,
        6,
    ]
    xs, port = data_of(COLORS), network.adapters["video"]
    inputs = {name: encode(xs) for name, encode in port.encoders.items()}
    assert list(inputs) == ["image_in", "sound_in"]
    ys, _ = network.body(inputs, outputs=("both", "image_out"))
    assert_close(network("video", xs)[0], ys[:, -1] @ port.head.weight.T + port.head.bias)


def test_input_modules_that_a_task_does_not_feed_get_zeros():
    network = two_paths()
    xs, port = data_of(ROWS), network.adapters["image"]
    assert list(port.encoders) == ["image_in"]
    ys, _ = network.body(
        {"image_in": xs, "sound_in": torch.zeros(3, 4, 12)}, outputs=("image_out",)
    )
    assert_close(network("image", xs)[0], ys[:, -1] @ port.head.weight.T + port.head.bias)


def test_a_reading_whose_columns_are_fixed_can_be_neither_copied_nor_opened(monkeypatch):
    monkeypatch.setattr(LinearReading, "columns", None)
    network = Network(ThalNet(inputs=28, modules=3, features=4, reading="linear"))
    network.add_task("rows", ROWS)
    before = network.describe()
    for attempt in (
        lambda: network.clone("side1", "copy_of"),
        lambda: network.attach(ModuleSpec("extra", 3, 2), read_by=["output"]),
    ):
        with pytest.raises(UserError, match=r"LinearReading has no 'columns'"):
            attempt()
        assert network.describe() == before


def test_duplicate_tasks_of_a_module_are_refused():
    network = network_of(thalnet)
    with pytest.raises(UserError, match="expected a list of different names"):
        network.attach(ModuleSpec("extra", 3, 2, tasks=("rows", "rows")))


def test_a_parameter_frozen_by_hand_stays_frozen_through_growth():
    network = network_of(thalnet)
    stopped = network.body.cell("output").reading.weight.requires_grad_(False)
    network.attach(ModuleSpec("extra", 3, 2), read_by=["output"])
    weight = network.body.cell("output").reading.weight
    assert weight.shape[1] == stopped.shape[1] + 3 and not weight.requires_grad


# Mistakes


def one_line(error):
    message = str(error.value)
    assert "\n" not in message and len(message) < 250
    return message


def stepless():
    return MLP(28, 6, layers=1)


@pytest.mark.parametrize(
    ("body", "name", "task", "options", "message"),
    [
        (
            thalnet,
            "a",
            ROWS,
            {"input_modules": ["inptu"]},
            "input module 'inptu'.*Did you mean 'input'",
        ),
        (thalnet, "a", ROWS, {"input_modules": ["side1"]}, "input module 'side1'. Allowed: input"),
        (
            thalnet,
            "a",
            ROWS,
            {"output_modules": ["outptu"]},
            "module 'outptu'.*Did you mean 'output'",
        ),
        (thalnet, "a", ROWS, {"output_modules": []}, "output_modules"),
        (gru, "a", ROWS, {"input_modules": ["input"]}, "only the modules of a ThalNet"),
        (gru, "a", ROWS, {"output_modules": ["output"]}, "only the modules of a ThalNet"),
        (gru, "taken", ROWS, {}, "has a task 'taken' already"),
        (gru, "a.b", ROWS, {}, "invalid task name 'a.b'"),
        (gru, "", ROWS, {}, "invalid task name ''"),
        (gru, "a", ROWS, {"sub_steps": 0}, "sub_steps must be at least 1"),
        (gru, "a", ROWS, {"extra_steps": -1}, "extra_steps at least 0"),
        (gru, "a", BYTES, {"extra_steps": 1}, "extra_steps: task 'a' has a target at every step"),
        (stepless, "a", BYTES, {}, "a body without steps.*'a' needs one a step"),
        (stepless, "a", ROWS, {"sub_steps": 2}, "a body without steps takes sub_steps 1"),
        (stepless, "a", ROWS, {"extra_steps": 1}, "a body without steps takes sub_steps 1"),
    ],
)
def test_tasks_that_do_not_fit_are_refused_in_one_line(body, name, task, options, message):
    network = Network(body())
    network.add_task("taken", ROWS)
    with pytest.raises(UserError, match=message) as error:
        network.add_task(name, task, **options)
    one_line(error)
    assert list(network.adapters) == ["taken"]


@pytest.mark.parametrize(
    ("task", "xs", "message"),
    [
        ("row", data_of(ROWS), "unknown task 'row'.*Allowed: rows, .*Did you mean 'rows'"),
        ("rows", data_of(COLORS), r"input of task 'rows'.*\(3, 4, 96\).*\(batch, time, 28\)"),
        ("rows", data_of(ROWS)[0], r"input of task 'rows'.*\(4, 28\)"),
        ("rows", data_of(ROWS)[:, :0], "time ≥ 1"),
        (
            "bytes",
            data_of(ROWS),
            r"task 'bytes': expected tokens \(batch, time\), got \(3, 4, 28\)",
        ),
    ],
)
def test_inputs_that_do_not_fit_are_refused_in_one_line(task, xs, message):
    with pytest.raises(UserError, match=message) as error:
        network_of(thalnet)(task, xs)
    one_line(error)


@pytest.mark.parametrize("name", ["class", "body", "head", "step", "state"])
def test_any_common_word_can_name_a_task(name):
    network = Network(gru())
    network.add_task(name, ROWS)
    assert network(name, data_of(ROWS))[0].shape == (3, 10)


@pytest.mark.parametrize("name", ["values", "train", "half", "training", "_modules", "__len__"])
def test_reserved_names_are_refused_in_one_line(name):
    with pytest.raises(UserError, match=f"'{name}': use an identifier that is not") as error:
        Network(gru()).add_task(name, ROWS)
    one_line(error)


def test_outputs_by_task_equal_single_calls_and_share_computation(monkeypatch):
    torch.manual_seed(0)
    network = Network(ThalNet(inputs=3, modules=3, features=5))
    network.add_task("a", TaskSpec(3, 2))
    network.add_task("b", TaskSpec(3, 4, steps=4))
    network.add_task("each", TaskSpec(3, 2, every_step=True))
    network.add_task("slow", TaskSpec(3, 2), sub_steps=2)
    network.add_task("wide", TaskSpec(4, 2))
    network.attach(ModuleSpec("own", features=4, context=4, inputs=3, output=True, tasks=("new",)))
    network.add_task("new", TaskSpec(3, 2))
    xs, wide = torch.rand(6, 4, 3), torch.rand(6, 4, 4)
    alone = {name: network(name, xs) for name in ("a", "b", "each", "slow", "new")}
    runs = []
    real = network.features
    monkeypatch.setattr(network, "features", lambda *args: runs.append(args[0]) or real(*args))
    found, states = network.outputs_by_task([*alone], xs)
    for name, (outputs, state) in alone.items():
        assert torch.equal(found[name], outputs)
        assert all(map(torch.equal, states[name], state))
    assert runs == ["a", "slow", "new"]
    assert torch.equal(network.outputs_by_task(["wide"], wide)[0]["wide"], network("wide", wide)[0])


def test_an_encoder_can_be_learned_where_inputs_fit():
    network = network_of(thalnet)
    network.add_task("encoded", ROWS, encode=True)
    encoders = list(network.adapter("encoded").encoders.values())
    assert encoders and all(isinstance(encoder, torch.nn.Linear) for encoder in encoders)
    again = Network.from_description(network.describe())
    assert again.state_dict().keys() == network.state_dict().keys()


def test_features_are_what_the_head_reads():
    network = network_of(thalnet)
    xs = torch.rand(3, 5, ROWS.inputs)
    ys, _ = network.features("rows", xs)
    logits, _ = network("rows", xs)
    assert_close(network.adapter("rows").head(ys[:, -1]), logits)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "name at least one module"),
        ({"output_modules": ["output"]}, "connected to 'output' already"),
        ({"output_modules": ["side9"]}, "Did you mean"),
        ({"input_modules": ["side1"]}, "unknown input module 'side1'"),
    ],
)
def test_mistakes_in_connections_are_refused(options, message):
    network = Network(ThalNet(inputs=28, modules=4, features=4))
    network.add_task("rows", ROWS)
    before = network.describe()
    with pytest.raises(UserError, match=message):
        network.connect("rows", **options)
    assert network.describe() == before


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        ([], "name at least one module"),
        (["side1"], "is not connected to 'side1'"),
        (["output"], "would have no output module"),
        (["input"], "would have no input module"),
    ],
)
def test_mistakes_in_disconnections_are_refused(modules, message):
    network = Network(ThalNet(inputs=28, modules=4, features=4))
    network.add_task("rows", ROWS)
    before = network.describe()
    with pytest.raises(UserError, match=message):
        network.disconnect("rows", *modules)
    network.freeze(task="rows")
    with pytest.raises(UserError, match="is frozen"):
        network.disconnect("rows", "output")
    assert (
        network.describe()["tasks"]["rows"]["output_modules"]
        == before["tasks"]["rows"]["output_modules"]
    )


def test_a_disconnected_module_no_longer_counts():
    network = Network(ThalNet(inputs=28, modules=4, features=4))
    network.add_task("rows", ROWS)
    network.connect("rows", output_modules=["side1", "side2"])
    head, xs = network.adapter("rows").head, torch.rand(3, 5, 28)
    with torch.no_grad():
        head.weight.normal_()
        ys, _ = network.features("rows", xs)
        expected = (
            head.bias
            + ys[:, -1, :4] @ head.weight[:, :4].T
            + (ys[:, -1, 8:] @ head.weight[:, 8:].T)
        )
    network.disconnect("rows", "side1")
    assert_close(network("rows", xs)[0], expected)
