"""Calls as ``nn.GRU`` takes them: packed sequences, no batch axis, states in any container."""

import pytest
import torch
from properties import BODIES, assert_close, drawn, gradients, new_body, normal, parts
from torch import nn
from torch.nn.utils.rnn import (
    PackedSequence,
    pack_padded_sequence,
    pack_sequence,
    pad_packed_sequence,
)

from thalnet_mtl.errors import UserError
from thalnet_mtl.models.baselines import StackedLSTM
from thalnet_mtl.models.network import Network
from thalnet_mtl.models.stacked_gru import StackedGRU
from thalnet_mtl.models.thalnet import State, ThalNet
from thalnet_mtl.topology.spec import ModuleSpec, TaskSpec

every_body = pytest.mark.parametrize("kind", BODIES)
every_order = pytest.mark.parametrize("lengths", [[5, 5, 3, 1], [2, 5, 1, 4], [4, 4, 4, 4]])


def body_of(kind):
    return drawn(lambda: new_body(kind))


def packed_of(lengths, enforce_sorted=False, seed=0):
    xs = normal(len(lengths), max(lengths), 3, seed=seed)
    return pack_padded_sequence(xs, torch.tensor(lengths), True, enforce_sorted), xs


def assert_same_form(actual, expected):
    assert isinstance(actual, PackedSequence)
    assert torch.equal(actual.batch_sizes, expected.batch_sizes)
    for ours, theirs in zip(actual[2:], expected[2:], strict=True):
        assert (ours is None and theirs is None) or torch.equal(ours, theirs)


# Packed sequences


@every_order
@pytest.mark.parametrize("enforce_sorted", [True, False])
@pytest.mark.parametrize("ours", [StackedGRU, StackedLSTM])
def test_a_stack_is_the_one_of_pytorch_on_packed_sequences(ours, enforce_sorted, lengths):
    if enforce_sorted and lengths != sorted(lengths, reverse=True):
        return
    body = drawn(lambda: ours(3, 5, layers=2))
    theirs = {StackedGRU: nn.GRU, StackedLSTM: nn.LSTM}[ours]
    target = theirs(3, 5, 2, batch_first=True, dtype=torch.float64)
    weights = {name.removeprefix("rnn."): value for name, value in body.state_dict().items()}
    target.load_state_dict(weights)
    packed, _ = packed_of(lengths, enforce_sorted)
    (ys, state), (expected, end) = body(packed), target(packed)
    assert_same_form(ys, expected)
    assert_close(ys.data, expected.data)
    for part, other in zip(parts(state), parts(end), strict=True):
        assert_close(part, other.transpose(0, 1))
    weight = normal(*ys.data.shape, seed=1)
    for outputs, last, leaves in (
        (ys, state, body.named_parameters()),
        (expected, end, target.named_parameters()),
    ):
        loss = (outputs.data * weight).sum() + sum(part.sum() for part in parts(last))
        found = gradients(loss, {n.removeprefix("rnn."): p for n, p in leaves})
        if outputs is ys:
            first = found
    for name, gradient in found.items():
        assert_close(first[name], gradient)


@every_order
@every_body
def test_a_packed_sequence_is_each_sequence_alone(kind, lengths):
    body, (packed, xs) = body_of(kind), packed_of(lengths)
    _, start = body(normal(4, 2, 3, seed=1))
    ys, state = body(packed, start)
    if body.recurrent:
        assert_same_form(ys, packed)
        ys, _ = pad_packed_sequence(ys, batch_first=True)
    for r, n in enumerate(lengths):
        alone = [part[r : r + 1] for part in parts(start)]
        begin = alone[0] if isinstance(start, torch.Tensor) else type(start)(*alone)
        expected, end = body(xs[r : r + 1, :n], begin)
        assert_close(ys[r, :n], expected[0])
        for part, other in zip(parts(state), parts(end), strict=True):
            assert_close(part[r], other[0])


@pytest.mark.parametrize("lengths", [[2, 5, 1, 4], [4, 4, 4, 4]])
def test_a_network_takes_packed_sequences(lengths):
    def make():
        network = Network(ThalNet(3, 3, 5))
        network.add_task("last", TaskSpec(3, 2), sub_steps=2, extra_steps=1)
        network.add_task("every", TaskSpec(3, 2, every_step=True))
        network.add_task("tokens", TaskSpec(7, 2, tokens=True, every_step=True))
        return network

    network, (packed, xs) = drawn(make), packed_of(lengths)
    counts = torch.tensor(lengths)
    outputs, state = network("last", packed)
    expected, end = network("last", xs, lengths=counts)
    assert torch.equal(outputs, expected) and torch.equal(state.center, end.center)
    ys, _ = network("every", packed)
    assert_same_form(ys, packed)
    padded, _ = pad_packed_sequence(ys, batch_first=True)
    assert torch.equal(padded, network("every", xs, lengths=counts)[0])
    texts = [torch.arange(n) for n in lengths]
    ys, _ = network("tokens", pack_sequence(texts, enforce_sorted=False))
    padded, _ = pad_packed_sequence(ys, batch_first=True)
    for row, text in zip(padded, texts, strict=True):
        assert_close(row[: len(text)], network("tokens", text[None])[0][0])


def test_a_packed_sequence_has_its_own_lengths_and_no_extra_steps():
    body, (packed, _) = body_of("thalnet"), packed_of([2, 1])
    with pytest.raises(UserError, match="lengths: a PackedSequence knows the lengths"):
        body(packed, lengths=torch.tensor([2, 1]))
    with pytest.raises(UserError, match="extra_steps: give a padded batch with lengths"):
        body(packed, extra_steps=1)
    with pytest.raises(UserError, match=r"\(batch, time, 3\)"):
        body(pack_sequence([torch.zeros(2, 4)]))


# Without a batch axis


@every_body
def test_one_sequence_needs_no_batch_axis(kind):
    body, xs = body_of(kind), normal(1, 6, 3)
    (first, state), (expected, middle) = body(xs[0, :4]), body(xs[:, :4])
    (second, last), (following, end) = body(xs[0, 4:], state), body(xs[:, 4:], middle)
    for ys, batch in ((first, expected), (second, following)):
        assert torch.equal(ys, batch[0])
    for alone, batch in ((state, middle), (last, end)):
        assert type(alone) is type(batch)
        for part, other in zip(parts(alone), parts(batch), strict=True):
            assert torch.equal(part, other[0])
    y, _ = body.step(xs[0, 4], state)
    assert torch.equal(y, body.step(xs[:, 4], middle)[0][0])


def test_a_gru_without_a_batch_axis_is_the_one_of_pytorch():
    body = drawn(lambda: StackedGRU(3, 5, layers=2))
    target = nn.GRU(3, 5, 2, batch_first=True, dtype=torch.float64)
    target.load_state_dict({n.removeprefix("rnn."): v for n, v in body.state_dict().items()})
    xs, start = normal(4, 3), normal(2, 5)
    for ours, theirs in zip(body(xs, start), target(xs, start), strict=True):
        assert_close(ours, theirs)


def test_inputs_of_several_modules_need_no_batch_axis():
    modules = [
        ModuleSpec("image", 4, 3, inputs=4),
        ModuleSpec("sound", 3, 3, inputs=2),
        ModuleSpec("output", 5, 4, output=True),
    ]
    net = drawn(lambda: ThalNet(modules=modules))
    xs = {"image": normal(6, 4), "sound": normal(6, 2)}
    ys, state = net(xs)
    expected, end = net({name: x[None] for name, x in xs.items()})
    assert torch.equal(ys, expected[0]) and torch.equal(state.center, end.center[0])
    assert torch.equal(net({"image": xs["image"]})[0], net({"image": xs["image"][None]})[0][0])


def test_one_sequence_without_a_batch_axis_has_no_lengths():
    with pytest.raises(UserError, match="a sequence without a batch axis has its own length"):
        body_of("thalnet")(normal(6, 3), None, torch.tensor([3]))


# States


@pytest.mark.parametrize("kind", ["thalnet", "lstm"])
@pytest.mark.parametrize("container", [tuple, list])
def test_a_state_may_be_in_a_tuple_or_a_list(kind, container):
    body, xs = body_of(kind), normal(4, 6, 3)
    _, state = body(xs)
    expected, end = body(xs, state)
    ys, last = body(xs, container(part.detach() for part in state))
    assert torch.equal(ys, expected) and type(last) is type(end)
    y, _ = body.step(xs[:, 0], container(state))
    assert torch.equal(y, expected[:, 0])


@every_body
def test_a_detached_state_has_no_history(kind):
    body = body_of(kind)
    xs = normal(2, 3, 3).requires_grad_()
    _, state = body(xs)
    detached = state.detach()
    assert type(detached) is type(state)
    for part, other in zip(parts(detached), parts(state), strict=True):
        assert torch.equal(part, other) and other.requires_grad and not part.requires_grad


@every_body
def test_sizes_have_the_names_of_pytorch(kind):
    body = body_of(kind)
    ys, _ = body(normal(2, 3, 3))
    assert (body.input_size, body.hidden_size) == (3, ys.shape[-1])


@every_body
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda part: part[:2], r"a state of shape \(2, .*does not fit; expected \(4, "),
        (lambda part: part[..., :-1], "a state of shape .*does not fit; expected"),
        (lambda part: part.float(), "a state of type torch.float32 does not fit inputs of"),
        (lambda part: part.to("meta"), "a state on device meta does not fit inputs on cpu"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_in_one_line(kind, change, message):
    body, xs = body_of(kind), normal(4, 6, 3)
    _, state = body(xs)
    changed = [change(part) for part in parts(state)]
    with pytest.raises(UserError, match=message) as error:
        body(xs, changed[0] if isinstance(state, torch.Tensor) else type(state)(*changed))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("kind", "state", "message"),
    [
        ("thalnet", torch.zeros(2, 10), "a state of 2 parts is expected, .* not Tensor"),
        ("thalnet", [torch.zeros(2, 10)], "a state of 2 parts is expected, .* not list of 1"),
        ("lstm", State(torch.zeros(2, 4, 5), None), "a state of NoneType does not fit"),
        ("gru", (torch.zeros(2, 4, 5),), "a state of tuple does not fit; expected a tensor"),
        ("gru", 0, "a state of int does not fit; expected a tensor"),
    ],
)
def test_a_state_of_another_body_is_refused_in_one_line(kind, state, message):
    body = body_of(kind).float()
    with pytest.raises(UserError, match=message) as error:
        body(torch.zeros(2, 3, 3), state)
    assert "\n" not in str(error.value)
