"""ThalNet against its equations in NumPy, its properties, its fast sequence against the slow."""

import re
from dataclasses import replace

import numpy as np
import numpy_thalnet
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from properties import (
    DESIGNS,
    KNOWN_DESIGNS,
    KNOWN_READINGS,
    READINGS,
    arrays,
    assert_close,
    assert_same_gradients,
    chain,
    drawn,
    examples,
    gradcheck,
    gradients,
    graphs,
    normal,
    seeds,
    task_inputs,
)

from thalnet_mtl import registry
from thalnet_mtl.errors import UserError
from thalnet_mtl.models.designs import Design
from thalnet_mtl.models.thalnet import State, ThalNet
from thalnet_mtl.ops import BACKENDS
from thalnet_mtl.topology.spec import ModuleSpec

every_ops = pytest.mark.parametrize("ops", list(BACKENDS))
every_reading = pytest.mark.parametrize("reading", READINGS)
every_design = pytest.mark.parametrize("design", DESIGNS)

# Modules that have nothing in common: designs, sizes, readings, what they see, roles.
UNEQUAL = [
    ModuleSpec("input_a", 5, 3, inputs=4, reading="linear", module="gru_ff", hidden=2),
    ModuleSpec(
        "input_b",
        3,
        5,
        inputs=2,
        reading="fast_softmax",
        module="ff",
        reads=("output_b", "input_a"),
    ),
    ModuleSpec("side_a", 4, 4, reading="weight_norm_rows", module="ff_gru_ff", hidden=7),
    ModuleSpec(
        "side_b", 4, 4, reading="weight_norm", module="ff_gru_ff", hidden=7, reads=("side_b",)
    ),
    ModuleSpec(
        "output_a", 2, 1, output=True, reading="fast_gaussian", module="gru", reads=("side_a",)
    ),
    ModuleSpec(
        "output_b",
        6,
        2,
        inputs=4,
        output=True,
        module="ff_gru",
        reads=("input_b", "output_a", "side_b"),
    ),
]


def modules_of(graph):
    return [ModuleSpec(**arguments) for arguments in graph]


def computed(net, ops):
    """Return a network with this backend, or ``auto`` if it cannot run the network."""
    net.ops = ops if net.explain()[ops] is None else "auto"
    return net


def net_of(modules, ops="batched", seed=0, dtype=torch.float64):
    net = drawn(lambda: ThalNet(modules=modules), seed, dtype)
    return computed(net, ops)


def equal(design="ff_gru", reading="weight_norm", ops="batched", modules=3, inputs=2, **sizes):
    sizes = {"features": 3, "context": 4, "hidden": 5} | sizes
    net = drawn(lambda: ThalNet(inputs, modules, module=design, reading=reading, **sizes))
    return computed(net, ops)


def state_of(net, batch, seed=7):
    """A state in the middle of a sequence."""
    center, memory = normal(batch, net.center, seed=seed), normal(batch, net.memory, seed=seed + 1)
    return State(center.tanh(), memory.tanh())


def whole_center(net):
    return {"outputs": tuple(net.slots)}


def assert_same_state(actual, expected):
    for part, other in zip(actual, expected, strict=True):
        assert_close(part, other)


def assert_follows_the_equations(net, xs, state=None):
    start = (None, None) if state is None else [part.numpy() for part in state]
    expected = numpy_thalnet.thalnet(
        list(net.graph.values()),
        arrays(net),
        {name: x.numpy() for name, x in xs.items()},
        *start,
    )
    with torch.no_grad():
        centers, last = net(xs, state, **whole_center(net))
    assert_close(centers, expected.centers)
    assert_same_state(last, (expected.center, expected.memory))


# The equations


@every_ops
@pytest.mark.parametrize("reading", KNOWN_READINGS)
@pytest.mark.parametrize("design", KNOWN_DESIGNS)
def test_outputs_and_state_follow_the_equations(design, reading, ops):
    net = equal(design, reading, ops)
    xs = task_inputs(net, batch=3, time=5)
    assert_follows_the_equations(net, xs)
    assert_follows_the_equations(net, xs, state_of(net, 3))


@every_ops
def test_a_net_of_unequal_modules_follows_the_equations(ops):
    net = net_of(UNEQUAL, ops)
    assert_follows_the_equations(net, task_inputs(net, batch=3, time=6))
    assert_follows_the_equations(net, task_inputs(net, batch=3, time=2), state_of(net, 3))


@every_ops
@given(graph=graphs(most=4), seed=seeds)
@examples(max_examples=15)
def test_any_net_follows_the_equations(ops, graph, seed):
    assume(all(m["module"] in KNOWN_DESIGNS and m["reading"] in KNOWN_READINGS for m in graph))
    net = net_of(modules_of(graph), ops, seed)
    assert_follows_the_equations(net, task_inputs(net, batch=2, time=4), state_of(net, 2))


def test_outputs_are_the_slots_of_the_output_modules_in_the_order_of_the_net():
    net = net_of(UNEQUAL)
    xs = task_inputs(net, batch=2, time=3)
    centers, _ = net(xs, **whole_center(net))
    ys, state = net(xs)
    assert net.input_modules == ("input_a", "input_b", "output_b")
    assert net.output_modules == ("output_a", "output_b")
    assert net.outputs == 8
    assert torch.equal(ys, centers[..., 16:])
    assert torch.equal(state.center, centers[:, -1])
    chosen, _ = net(xs, outputs=("output_b", "input_a"))
    assert torch.equal(chosen, torch.cat([centers[..., 18:], centers[..., :5]], -1))


def test_a_number_of_modules_gives_the_network_of_the_paper():
    net = ThalNet(inputs=3, modules=4, features=5)
    everyone = ("input", "side1", "side2", "output")
    expected = [
        ModuleSpec(name, 5, 5, inputs=width, output=last, reads=everyone)
        for name, width, last in [
            ("input", 3, False),
            ("side1", 0, False),
            ("side2", 0, False),
            ("output", 0, True),
        ]
    ]
    assert list(net.graph.values()) == expected


def test_the_only_module_of_a_net_takes_the_input_and_feeds_the_head():
    net = ThalNet(inputs=3, modules=1, features=5)
    assert len(net.input_modules) == 1 and net.input_modules == net.output_modules


def test_one_tensor_goes_to_every_input_module_and_an_absent_input_is_zero():
    modules = [ModuleSpec(name, 3, 2, inputs=4, output=True) for name in ("left", "right")]
    net, x = net_of(modules), normal(2, 5, 4)
    assert torch.equal(net(x)[0], net({"left": x, "right": x})[0])
    assert torch.equal(net({"right": x})[0], net({"left": torch.zeros_like(x), "right": x})[0])


# The center


@every_ops
def test_the_center_starts_at_zero(ops):
    net = equal(ops=ops)
    xs = task_inputs(net, batch=2, time=3)
    start = net.initial(xs)
    assert start.center.shape == (2, 9) and start.memory.shape == (2, 9)
    assert not start.center.any() and not start.memory.any()
    for part, other in zip(net(xs), net(xs, start), strict=True):
        assert all(map(torch.equal, part, other))


@every_ops
@every_reading
@every_design
def test_nothing_is_read_in_the_first_step(design, reading, ops):
    net = equal(design, reading, ops)
    ys, _ = net(normal(2, 1, 2), **whole_center(net))
    own = dict(net.named_parameters())
    found = gradients((ys * normal(2, 1, 9)).sum(), own)
    assert all(not found[name].any() for name in own if ".reading." in name)
    assert any(found[name].any() for name in own)


@every_ops
@every_reading
@every_design
def test_every_hop_costs_exactly_one_step(design, reading, ops):
    hops, time, when = 3, 7, 2
    net = net_of(chain(hops, module=design, reading=reading), ops)
    xs = normal(2, time, 2)
    changed = xs.clone()
    changed[:, when] += 1
    with torch.no_grad():
        before, after = (net(x, **whole_center(net))[0] for x in (xs, changed))
    for hop, slot in enumerate(net.slots.values()):
        differs = (before[..., slot] != after[..., slot]).any(-1).any(0).tolist()
        assert differs[: when + hop] == [False] * (when + hop)
        assert differs[when + hop]


@every_ops
@every_reading
@every_design
def test_modules_talk_only_through_the_center(design, reading, ops):
    """What a module keeps to itself is its own; what it writes is seen one step later, by those
    who read it and by nobody else."""
    names = ("source", "reader", "stranger")
    modules = [
        ModuleSpec("source", 3, 2, inputs=2, module=design, reading=reading),
        ModuleSpec("reader", 3, 2, output=True, module=design, reading=reading, reads=("source",)),
        ModuleSpec(
            "stranger", 3, 2, output=True, module=design, reading=reading, reads=("stranger",)
        ),
    ]
    net, other = net_of(modules, ops), net_of(modules, ops)
    with torch.no_grad():
        for parameter in other.cells["source"].parameters():
            parameter.add_(0.1 * normal(*parameter.shape, seed=5))
    xs, state = normal(2, 3, 2), state_of(net, 2)

    def changes(second, start):
        with torch.no_grad():
            both = [net(xs, state, **whole_center(net)), second(xs, start, **whole_center(net))]
        before, after = (centers for centers, _ in both)
        differs = [(before[..., s] != after[..., s]).any(-1).any(0).tolist() for s in slots]
        return dict(zip(names, differs, strict=True))

    slots = list(net.slots.values())
    never, next_step = [False] * 3, [False, True, True]
    seen = changes(other, state)
    assert seen == {"source": [True] * 3, "reader": next_step, "stranger": never}
    columns = net.placement().cells[0].memory
    if columns.stop > columns.start:
        memory = state.memory.clone()
        memory[:, columns] *= 0.5
        seen = changes(net, state._replace(memory=memory))
        assert seen == {"source": [True] * 3, "reader": next_step, "stranger": never}
    center = state.center.clone()
    center[:, net.slots["source"]] *= 0.5
    seen = changes(net, state._replace(center=center))
    assert seen["reader"][0] and seen["stranger"] == never


@every_ops
@pytest.mark.parametrize("reading", sorted({*KNOWN_READINGS} - {"fast_softmax", "fast_gaussian"}))
def test_a_module_that_no_input_reaches_does_not_depend_on_the_task_input(reading, ops):
    modules = [
        ModuleSpec("input", 3, 2, inputs=2, reading=reading),
        ModuleSpec("island", 3, 2, output=True, reading=reading, reads=("island",)),
    ]
    net = net_of(modules, ops)
    xs = normal(2, 5, 2).requires_grad_()
    assert not gradients(net(xs)[0].sum(), {"xs": xs})["xs"].any()


@every_ops
@every_reading
def test_rows_of_a_batch_are_independent(reading, ops):
    modules = [replace(module, reading=reading) for module in UNEQUAL]
    net = net_of(modules, ops)
    xs, state = task_inputs(net, batch=4, time=5), state_of(net, 4)
    ys, last = net(xs, state)
    for k in range(4):
        row = slice(k, k + 1)
        alone, kept = net(
            {name: x[row] for name, x in xs.items()}, State(*(part[row] for part in state))
        )
        assert_close(alone, ys[row])
        assert_same_state(kept, [part[row] for part in last])


# State


@every_ops
@given(graph=graphs(), seed=seeds, data=st.data())
@examples(max_examples=15)
def test_chunks_and_single_steps_give_the_same_as_the_whole_sequence(ops, graph, seed, data):
    net = net_of(modules_of(graph), ops, seed)
    time = data.draw(st.integers(2, 7))
    split = data.draw(st.integers(1, time - 1))
    xs = task_inputs(net, 3, time, seed)
    with torch.no_grad():
        ys, last = net(xs)
        first, state = net({name: x[:, :split] for name, x in xs.items()})
        second, state = net({name: x[:, split:] for name, x in xs.items()}, state)
        assert_close(torch.cat([first, second], 1), ys)
        assert_same_state(state, last)
        state, steps = net.initial(xs), []
        for t in range(time):
            y, state = net.step({name: x[:, t] for name, x in xs.items()}, state)
            steps.append(y)
        assert_close(torch.stack(steps, 1), ys)
        assert_same_state(state, last)


@every_ops
@pytest.mark.parametrize("sub_steps", [1, 2, 3])
@pytest.mark.parametrize("extra_steps", [0, 1, 4])
def test_sub_steps_and_extra_steps_are_a_loop_over_steps(sub_steps, extra_steps, ops):
    net = net_of(UNEQUAL, ops)
    xs = task_inputs(net, batch=2, time=3)
    state, steps = net.initial(xs), []
    for t in range(3):
        for _ in range(sub_steps):
            y, state = net.step({name: x[:, t] for name, x in xs.items()}, state)
        steps.append(y)
    settling = state  # which is not carried on: a sequence in pieces is the same as a whole one
    for _ in range(extra_steps):
        nothing = {name: torch.zeros_like(x[:, 0]) for name, x in xs.items()}
        y, settling = net.step(nothing, settling)
        steps.append(y)
    ys, last = net(xs, sub_steps=sub_steps, extra_steps=extra_steps)
    assert_close(ys, torch.stack(steps, 1))
    assert_same_state(last, state)


@every_ops
def test_sub_steps_hold_for_a_single_step_too(ops):
    net = equal(ops=ops)
    xs = normal(2, 1, 2)
    ys, last = net(xs, sub_steps=3, extra_steps=2)
    y, state = net.step(xs[:, 0], None, sub_steps=3, extra_steps=2)
    assert_close(y, ys[:, -1])
    assert_same_state(state, last)


@every_ops
def test_neither_inputs_nor_state_are_changed_in_place(ops):
    net = net_of(UNEQUAL, ops)
    xs, state = task_inputs(net, batch=2, time=4), state_of(net, 2)
    net(xs, state, sub_steps=2, extra_steps=1)
    for name, x in task_inputs(net, batch=2, time=4).items():
        assert torch.equal(xs[name], x)
    assert all(map(torch.equal, state, state_of(net, 2)))


@every_ops
def test_no_state_is_kept_between_calls(ops):
    net = net_of(UNEQUAL, ops)
    xs = task_inputs(net, batch=2, time=4)
    before = net(xs)[0]
    net(task_inputs(net, batch=3, time=2, seed=9))
    assert torch.equal(net(xs)[0], before)


# What is read


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


# Mistakes


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


# The fast sequence against the definition


def both(modules, seed, dtype=torch.float64):
    return [net_of(modules, ops, seed, dtype) for ops in BACKENDS]


def everything(net, batch, time, seed=0, dtype=torch.float64):
    """Outputs, last state, and the gradients of a loss on all of them by all that there is."""
    xs = task_inputs(net, batch, time, seed, dtype)
    start = State(*(part.to(dtype) for part in state_of(net, batch, seed)))
    leaves = {f"xs.{name}": x.requires_grad_() for name, x in xs.items()}
    leaves |= {f"start.{k}": part.requires_grad_() for k, part in enumerate(start) if part.numel()}
    leaves |= dict(net.named_parameters())
    centers, last = net(xs, start, **whole_center(net))
    parts = centers, *last
    loss = sum(
        (part * normal(*part.shape, seed=seed + k, dtype=dtype)).sum()
        for k, part in enumerate(parts)
    )
    return [part.detach() for part in parts], gradients(loss, leaves)


def assert_agree(modules, batch, time, seed=0, dtype=torch.float64):
    (expected, target), *others = (
        everything(net, batch, time, seed, dtype) for net in both(modules, seed, dtype)
    )
    for actual, found in others:
        for part, other in zip(actual, expected, strict=True):
            assert part.dtype == dtype
            assert_close(part, other)
        assert_same_gradients(found, target)


@given(
    graph=graphs(),
    batch=st.sampled_from([1, 7, 17]),
    time=st.sampled_from([1, 2, 9]),
    seed=seeds,
)
@examples(max_examples=60)
def test_all_backends_agree_in_outputs_state_and_gradients(graph, batch, time, seed):
    assert_agree(modules_of(graph), batch, time, seed)


@every_reading
@every_design
def test_all_backends_agree_on_equal_modules(design, reading):
    net = equal(design, reading, modules=4)
    assert_agree(list(net.graph.values()), batch=7, time=9)


@every_design
@pytest.mark.parametrize(
    "other", [{"features": 4}, {"context": 5}, {"hidden": 6}, {"module": "gru_ff"}, {"inputs": 3}]
)
def test_all_backends_agree_on_modules_that_differ_in_one_field(design, other):
    make = ModuleSpec("one", 3, 4, inputs=2, output=True, hidden=5, module=design)
    modules = [make, replace(make, name="two"), replace(make, name="other", **other)]
    assert_agree(modules, batch=2, time=3)


def test_all_backends_agree_on_unequal_modules():
    assert_agree(UNEQUAL, batch=7, time=9)


@pytest.mark.parametrize("design", KNOWN_DESIGNS)
def test_all_backends_agree_in_single_precision(design):
    net = equal(design, "weight_norm", modules=4, features=33, context=17, hidden=9, inputs=28)
    assert_agree(list(net.graph.values()), batch=16, time=28, dtype=torch.float32)


@pytest.mark.parametrize("modules", [1, 3, 5, 64])
def test_all_backends_agree_for_any_number_of_modules(modules):
    net = equal(modules=modules)
    assert_agree(list(net.graph.values()), batch=2, time=3)


@every_ops
@every_reading
def test_gradients_match_finite_differences(reading, ops):
    modules = [
        ModuleSpec("input", 1, 2, inputs=1, reading=reading),
        ModuleSpec("side", 1, 2, reading=reading, module="gru_ff", reads=("output", "input")),
        ModuleSpec("output", 1, 2, output=True, reading=reading),
    ]
    net = net_of(modules, ops)
    xs, state = normal(1, 2, 1), state_of(net, 1)

    def outputs(x, center, memory):
        centers, last = net(x, State(center, memory), **whole_center(net))
        return centers, last.memory

    # Other backends agree with the reference in every gradient (tests/ops/test_backends.py).
    gradcheck(outputs, net, xs, *state, fast=ops != "reference")


@every_ops
@every_design
@every_reading
def test_gradients_reach_every_parameter(reading, design, ops):
    net = equal(design, reading, ops)
    ys, _ = net(normal(3, 6, 2))
    loss = (ys * normal(3, 6, 3, seed=1)).sum()
    for name, gradient in gradients(loss, dict(net.named_parameters())).items():
        assert gradient.abs().max() > 0, name


@every_ops
def test_repeated_runs_are_bit_identical(ops):
    (parts, found), (again, refound) = (everything(net_of(UNEQUAL, ops), 7, 9) for _ in range(2))
    assert all(map(torch.equal, parts, again))
    assert all(torch.equal(found[name], refound[name]) for name in found)


# Plug-ins


@pytest.fixture
def plugin(monkeypatch):
    """Register something for the length of a test."""

    def register(kind, name, entry):
        monkeypatch.setitem(registry._entries[kind], name, entry)

    return register


class Residual(Design):
    """A stack like the built-in ones, used in another way."""

    layers = ("ff", "gru")

    def forward(self, x, memory):
        dense, gru = self.stack
        memory = gru(torch.relu(dense(x)), memory)
        return 0.5 * memory, memory


class Leaky(torch.nn.Module):
    """A design that shares nothing with the built-in ones."""

    def __init__(self, inputs, features, hidden):
        super().__init__()
        self.memory = 2
        self.into, self.out = torch.nn.Linear(inputs, 2), torch.nn.Linear(2, features)

    def forward(self, x, memory):
        memory = 0.9 * memory + 0.1 * self.into(x)
        return torch.sin(self.out(memory)), memory


class Uniform(torch.nn.Module):
    """A reading of nothing but what the contract asks for."""

    dynamic = False

    def __init__(self, features, center, context):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.ones(context, 1))
        self.seen = center

    def weights(self, features=None):
        return self.gain.expand(-1, self.seen) / self.seen


@pytest.mark.parametrize("design", [Residual, Leaky])
def test_all_backends_agree_on_a_design_of_a_plug_in(design, plugin):
    plugin("module", "elsewhere", design)
    net = equal("elsewhere", modules=3)
    assert_agree(list(net.graph.values()), batch=3, time=4)


@pytest.mark.parametrize("design", ["gru", "ff_gru"])
def test_all_backends_agree_on_a_reading_of_a_plug_in(design, plugin):
    plugin("reading", "elsewhere", Uniform)
    net = equal(design, "elsewhere", modules=3)
    assert_agree(list(net.graph.values()), batch=3, time=4)
