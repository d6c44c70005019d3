"""ThalNet against its equations in NumPy, and properties of its center and its state."""

from dataclasses import replace

import numpy_thalnet
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from properties import (
    KNOWN_DESIGNS,
    KNOWN_READINGS,
    arrays,
    assert_close,
    chain,
    examples,
    gradients,
    graphs,
    normal,
    seeds,
    task_inputs,
)
from thalnet_cases import (
    UNEQUAL,
    assert_same_state,
    equal,
    every_design,
    every_ops,
    every_reading,
    modules_of,
    net_of,
    state_of,
    whole_center,
)

from thalnet_mtl.models.thalnet import State, ThalNet
from thalnet_mtl.topology.spec import ModuleSpec


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
