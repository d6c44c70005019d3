"""Unequal lengths: a padded batch equals each sequence alone, with every body and backend."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from properties import (
    BODIES,
    assert_alone,
    assert_close,
    drawn,
    examples,
    graphs,
    new_body,
    normal,
    padded_and_alone,
    parts,
    random_lengths,
    seeds,
    spoiled,
    task_inputs,
)
from random_networks import FAVORED, Case
from thalnet_cases import (
    UNEQUAL,
    equal,
    every_design,
    every_ops,
    every_reading,
    modules_of,
    net_of,
    state_of,
    whole_center,
)

from thalnet_mtl.errors import UserError
from thalnet_mtl.models.checks import check_lengths
from thalnet_mtl.models.network import Network
from thalnet_mtl.models.stacked_gru import StackedGRU
from thalnet_mtl.models.thalnet import ThalNet
from thalnet_mtl.ops import BACKENDS
from thalnet_mtl.topology.spec import TaskSpec

every_body = pytest.mark.parametrize("kind", BODIES)


def body_of(kind, seed=0):
    return drawn(lambda: new_body(kind), seed)


def assert_sequences_alone(net, lengths, time, split=0, seed=0):
    """Assert that a padded batch with any state before it equals each of its sequences alone."""
    xs, start = task_inputs(net, len(lengths), time, seed), state_of(net, len(lengths), seed)

    def call(inputs, state, lengths):
        return net(inputs, state, lengths, **whole_center(net))

    assert_alone(*padded_and_alone(call, net, xs, start, lengths, split))


@every_ops
@every_design
@every_reading
def test_a_padded_batch_equals_each_sequence_alone(reading, design, ops):
    net = equal(design, reading, ops)
    assert_sequences_alone(net, torch.tensor([2, 6, 1, 4, 6]), 6)


@given(
    graph=graphs(),
    batch=st.sampled_from([1, 7, 17]),
    time=st.sampled_from([2, 9]),
    seed=seeds,
    data=st.data(),
)
@examples(max_examples=12)
def test_a_padded_batch_of_any_network_equals_each_sequence_alone(graph, batch, time, seed, data):
    net = net_of(modules_of(graph), seed=seed)
    split = data.draw(st.integers(0, time - 1))
    lengths = random_lengths(batch, time, split + 1, seed)
    for ops in BACKENDS:
        if net.explain()[ops] is None:
            net.ops = ops
            assert_sequences_alone(net, lengths, time, split, seed)


@every_ops
def test_rows_of_many_blocks_end_where_they_end(ops):
    net = net_of(UNEQUAL, ops)
    assert_sequences_alone(net, random_lengths(61, 3), 3)


@every_body
@given(batch=st.integers(1, 5), time=st.integers(1, 6), seed=seeds, data=st.data())
@examples(max_examples=10)
def test_a_padded_batch_of_any_body_equals_each_sequence_alone(kind, batch, time, seed, data):
    body = body_of(kind, seed)
    split = data.draw(st.integers(0, time - 1))
    lengths, xs = random_lengths(batch, time, split + 1, seed), normal(batch, time, 3, seed=seed)
    _, start = body(normal(batch, 2, 3, seed=seed + 1))

    def call(inputs, state, lengths):
        ys, state = body(inputs["x"], state, lengths)
        return ys if body.recurrent else ys[:, -1], state

    assert_alone(*padded_and_alone(call, body, {"x": xs}, start, lengths, split))


@every_body
@pytest.mark.parametrize("options", [{"sub_steps": 3}, {"extra_steps": 2}])
def test_sub_steps_and_extra_steps_belong_to_each_sequence(kind, options):
    body, lengths, xs = body_of(kind), torch.tensor([3, 1, 4]), normal(3, 4, 3)
    if not body.recurrent:
        return
    ys, state = body(spoiled(xs, lengths), None, lengths, **options)
    extra = options.get("extra_steps", 0)
    for r, n in enumerate(lengths.tolist()):
        alone, end = body(xs[r : r + 1, :n], **options)
        assert_close(ys[r, :n], alone[0, :n])
        assert not ys[r, n:4].any()
        assert_close(ys[r, 4:], alone[0, n:])
        for part, other in zip(parts(state), parts(end), strict=True):
            assert_close(part[r], other[0])
    assert ys.shape[1] == 4 + extra


@every_body
def test_lengths_that_fill_the_batch_change_nothing(kind):
    body, xs = body_of(kind), normal(4, 5, 3)
    full = torch.full((4,), 5)
    for ops in BACKENDS if kind == "thalnet" else ["auto"]:
        body.ops = ops if ops != "triton" else "auto"
        (ys, state), (expected, end) = body(xs, None, full), body(xs)
        assert_close(ys, expected)
        if kind == "thalnet":
            assert torch.equal(ys, expected)
        for part, other in zip(parts(state), parts(end), strict=True):
            assert_close(part, other)


@pytest.mark.parametrize("ops", ["cpp", "batched"])
@pytest.mark.parametrize("shared", [True, False])
def test_stacked_networks_may_have_sequences_of_other_lengths(ops, shared):
    nets = [drawn(lambda: ThalNet(3, 3, 5, module="gru_ff"), seed) for seed in range(3)]
    stacked, _ = torch.func.stack_module_state(nets)
    leaves = {name: value.detach().requires_grad_() for name, value in stacked.items()}
    xs, lengths = normal(3, 4, 6, 3), random_lengths(12, 6).view(3, 4)
    lengths = lengths[0] if shared else lengths
    nets[0].ops = ops

    def run(parameters, x, lengths):
        ys, state = torch.func.functional_call(nets[0], parameters, (x, None, lengths))
        return ys, state.center, state.memory

    outcome = torch.vmap(run, in_dims=(0, 0, None if shared else 0))(leaves, xs, lengths)
    sum(part.square().sum() for part in outcome).backward()
    for k, net in enumerate(nets):
        net.ops = "reference"
        ys, state = net(xs[k], None, lengths if shared else lengths[k])
        for part, other in zip((ys, *state), outcome, strict=True):
            torch.testing.assert_close(other[k], part)
        sum(part.square().sum() for part in (ys, *state)).backward()
        for name, parameter in net.named_parameters():
            torch.testing.assert_close(leaves[name].grad[k], parameter.grad)


def test_stacked_networks_refuse_a_length_over_the_number_of_steps():
    net, lengths = ThalNet(3, 3, 5), torch.tensor([[2, 3], [4, 1]])
    with pytest.raises(UserError, match="lengths has a 4"):
        torch.vmap(lambda x, n: net(x, None, n)[0])(torch.zeros(2, 2, 3, 3), lengths)


@pytest.mark.parametrize("seed", range(12))
def test_every_task_of_a_random_network_sees_each_sequence_alone(seed):
    case = Case(seed, FAVORED[seed % len(FAVORED)], dtype=torch.float64)
    network = case.network.requires_grad_(True).eval()  # random masks are drawn for a whole batch
    lengths = torch.tensor([2, 3, 1, 3])
    for task in network.adapters:
        xs = torch.cat([case.batch(task, number)[0] for number in range(2)])

        def call(inputs, state, lengths, task=task):
            return network(task, inputs["x"], state, lengths)

        assert_alone(*padded_and_alone(call, network, {"x": xs}, None, lengths))
        outputs, _ = network(task, spoiled(xs, lengths), None, lengths)
        for name, again in network.outputs_by_task([task], spoiled(xs, lengths), lengths=lengths)[
            0
        ].items():
            assert name == task and torch.equal(again, outputs)


def thalnet():
    return ThalNet(3, 2, 5)


@pytest.mark.parametrize("body", [thalnet, lambda: StackedGRU(3, 5, 2)])
@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        (torch.tensor([1, 0]), r"lengths has a 0; a sequence of this batch has 1 to 4 steps"),
        (torch.tensor([1, -3]), r"lengths has a -3; "),
        (torch.tensor([5, 4]), r"lengths has a 5; a sequence of this batch has 1 to 4 steps"),
        (torch.tensor([1, 2, 3]), r"lengths has shape \(3,\); expected \(2,\)"),
        (torch.tensor(2), r"lengths has shape \(\); expected \(2,\)"),
        (torch.tensor([1.0, 2.0]), r"lengths must be a tensor of int64, not torch.float32"),
        (torch.tensor([1, 2], dtype=torch.int32), r"of int64, not torch.int32"),
        (torch.ones(2, dtype=torch.int64, device="meta"), "lengths is on device meta"),
    ],
)
def test_lengths_that_do_not_fit_are_refused_in_one_line(body, lengths, message):
    network = Network(body())
    network.add_task("rows", TaskSpec(3, 2))
    network.add_task("tokens", TaskSpec(7, 2, tokens=True))
    tokens = torch.zeros(2, 4, dtype=torch.long)
    for call in (
        lambda: network.body(torch.zeros(2, 4, 3), None, lengths),
        lambda: network("rows", torch.zeros(2, 4, 3), None, lengths),
        lambda: network("tokens", tokens, lengths=lengths),
        lambda: network.outputs_by_task(["rows"], torch.zeros(2, 4, 3), lengths=lengths),
    ):
        with pytest.raises(UserError, match=message) as error:
            call()
        assert "\n" not in str(error.value)


def test_lengths_in_a_list_are_refused_in_one_line():
    with pytest.raises(UserError, match="lengths must be a tensor of int64, not list"):
        check_lengths([1, 2], torch.zeros(2, 4, 3))
