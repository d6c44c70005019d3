"""Baselines: the cells of PyTorch, the same contract as ThalNet, and what fits the same budget."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from properties import (
    BODIES,
    assert_close,
    assert_same_gradients,
    drawn,
    examples,
    gradients,
    new_body,
    normal,
    parts,
)

from thalnet_mtl.config.schema import ModelConfig
from thalnet_mtl.errors import UserError
from thalnet_mtl.models.baselines import MLP, StackedLSTM
from thalnet_mtl.models.build import build
from thalnet_mtl.models.size import count_parameters
from thalnet_mtl.models.stacked_gru import StackedGRU
from thalnet_mtl.topology.spec import TaskSpec

every_body = pytest.mark.parametrize("kind", BODIES)

MNIST = TaskSpec(inputs=28, outputs=10, steps=28)
CIFAR = TaskSpec(inputs=96, outputs=10, steps=32)
IMAGES = {"mnist": MNIST, "cifar": CIFAR}

# The largest size that fits 50,000 parameters, how many it has, and how many the next one would.
FITTING = {
    ("mnist", "body", "gru"): (46, 49_874, 51_945),
    ("mnist", "body", "lstm"): (39, 48_604, 50_970),
    ("mnist", "body", "mlp"): (52, 49_618, 50_731),
    ("mnist", "module", "ff"): (44, 48_502, 50_684),
    ("mnist", "module", "gru"): (33, 47_468, 50_266),
    ("mnist", "module", "ff_gru"): (32, 47_182, 50_108),
    ("mnist", "module", "gru_ff"): (32, 48_974, 51_956),
    ("mnist", "module", "ff_gru_ff"): (31, 48_312, 51_406),
    ("cifar", "body", "gru"): (41, 48_513, 50_578),
    ("cifar", "body", "lstm"): (35, 49_220, 51_634),
    ("cifar", "body", "mlp"): (15, 46_975, 50_154),
    ("cifar", "module", "ff"): (43, 49_292, 51_494),
    ("cifar", "module", "gru"): (31, 48_436, 51_278),
    ("cifar", "module", "ff_gru"): (32, 49_358, 52_352),
    ("cifar", "module", "gru_ff"): (30, 49_394, 52_404),
    ("cifar", "module", "ff_gru_ff"): (30, 47_354, 50_420),
}

# The sizes that were published, for GRUs with one bias a gate.
PUBLISHED = {
    ("mnist", "body", "gru"): 46,
    ("mnist", "module", "ff"): 44,
    ("mnist", "module", "gru"): 34,
    ("mnist", "module", "ff_gru"): 33,
    ("mnist", "module", "gru_ff"): 32,
    ("mnist", "module", "ff_gru_ff"): 31,
    ("cifar", "body", "gru"): 41,
    ("cifar", "module", "ff"): 43,
    ("cifar", "module", "gru"): 31,
    ("cifar", "module", "ff_gru"): 32,
    ("cifar", "module", "gru_ff"): 30,
    ("cifar", "module", "ff_gru_ff"): 30,
}


def body_of(kind, inputs=3, features=5):
    return drawn(lambda: new_body(kind, inputs, features))


@every_body
@given(batch=st.integers(1, 4), time=st.integers(1, 6), inputs=st.integers(1, 4))
@examples(max_examples=8)
def test_a_body_turns_a_sequence_and_a_state_into_outputs_and_a_state(kind, batch, time, inputs):
    body = body_of(kind, inputs)
    xs = normal(batch, time, inputs)
    ys, state = body(xs)
    assert ys.shape == (batch, time if body.recurrent else 1, body.outputs)
    for part, start in zip(parts(state), parts(body.initial(xs)), strict=True):
        assert part.shape == start.shape and len(part) == batch
        assert part.dtype == start.dtype == torch.float64
        assert not start.any()


@every_body
@given(data=st.data(), time=st.integers(2, 7))
@examples(max_examples=10)
def test_chunks_and_single_steps_give_the_same_as_the_whole_sequence(kind, data, time):
    body = body_of(kind)
    split = data.draw(st.integers(1, time - 1))
    xs = normal(4, time, 3)
    with torch.no_grad():
        ys, last = body(xs)
        first, state = body(xs[:, :split])
        second, state = body(xs[:, split:], state)
        chunks = torch.cat([first, second], 1) if body.recurrent else second
        streamed, steps = body.initial(xs), []
        for x in xs.unbind(1):
            y, streamed = body.step(x, streamed)
            steps.append(y)
        singles = torch.stack(steps if body.recurrent else steps[-1:], 1)
    for outputs, end in ((chunks, state), (singles, streamed)):
        assert_close(outputs, ys)
        for part, other in zip(parts(end), parts(last), strict=True):
            assert_close(part, other)


@every_body
def test_rows_of_a_batch_are_independent(kind):
    body = body_of(kind)
    xs = normal(3, 4, 3)
    assert_close(body(xs)[0], torch.cat([body(x[None])[0] for x in xs]))


@every_body
def test_neither_inputs_nor_state_are_changed_in_place(kind):
    body = body_of(kind)
    xs = normal(2, 3, 3)
    _, state = body(xs)
    before = [part.clone() for part in parts(state)]
    body(xs, state)
    assert torch.equal(xs, normal(2, 3, 3))
    assert all(map(torch.equal, parts(state), before))


@every_body
def test_gradients_reach_every_parameter_and_the_early_inputs(kind):
    body = body_of(kind)
    xs = normal(8, 6, 3).requires_grad_()
    ys, _ = body(xs)
    last = ys[:, -1] * normal(8, body.outputs, seed=1)
    found = gradients(last.sum(), dict(body.named_parameters()) | {"xs": xs})
    # The last inputs may still be on their way from module to module.
    assert found.pop("xs")[:, :3].abs().amax((0, 2)).min() > 0
    for name, gradient in found.items():
        assert gradient.abs().max() > 0, name


@every_body
@pytest.mark.parametrize("shape", [(2, 5, 4), (2, 5), (2, 0, 3)])
def test_inputs_of_another_shape_are_refused_with_what_is_expected(kind, shape):
    with pytest.raises(UserError, match=r"\(batch, time, 3\)") as error:
        body_of(kind)(normal(*shape))
    assert str(shape) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("layers", [1, 2, 4])
@pytest.mark.parametrize(
    ("baseline", "module"), [(StackedGRU, torch.nn.GRU), (StackedLSTM, torch.nn.LSTM)]
)
def test_a_stack_is_the_one_of_pytorch_in_outputs_state_and_all_gradients(baseline, module, layers):
    body = drawn(lambda: baseline(3, 5, layers))
    target = module(3, 5, layers, batch_first=True, dtype=torch.float64)
    target.load_state_dict(
        {name.removeprefix("rnn."): value for name, value in body.state_dict().items()}
    )
    _, start = body(normal(7, 4, 3, seed=1))
    start = [part.detach() for part in parts(start)]
    xs = normal(7, 9, 3).requires_grad_()
    theirs = tuple(part.transpose(0, 1).contiguous() for part in start)
    state = start[0] if baseline is StackedGRU else type(body.initial(xs))(*start)
    ys, last = body(xs, state)
    expected, end = target(xs, theirs[0] if baseline is StackedGRU else theirs)
    assert_close(ys, expected)
    for part, other in zip(parts(last), parts(end), strict=True):
        assert_close(part, other.transpose(0, 1))
    weight = normal(7, 9, 5, seed=2)
    own = {name.removeprefix("rnn."): value for name, value in body.named_parameters()}
    assert_same_gradients(
        gradients((ys * weight).sum(), own | {"xs": xs}),
        gradients((expected * weight).sum(), dict(target.named_parameters()) | {"xs": xs}),
    )


def test_the_mlp_sees_its_window_flattened_with_zeros_before_the_start():
    body = drawn(lambda: MLP(3, 5, layers=2, window=4))
    xs = normal(6, 9, 3)

    def dense(rows):
        y = rows.flatten(1)
        for layer in body.dense:
            y = (y @ layer.weight.T + layer.bias).clamp(min=0)
        return y[:, None]

    assert_close(body(xs)[0], dense(xs[:, -4:]))
    padded = torch.cat([torch.zeros(6, 2, 3, dtype=torch.float64), xs[:, :2]], 1)
    assert_close(body(xs[:, :2])[0], dense(padded))


# Sizes


def planned(field, name, task, **options):
    """A network with sizes and without numbers."""
    with torch.device("meta"):
        return build(ModelConfig(**{field: name}, **options), {"t": task})


def with_one_bias(network):
    """Parameters if every gate of a GRU had one bias, as papers count, instead of PyTorch's two."""
    second = (p.numel() for name, p in network.named_parameters() if "bias_hh" in name)
    return count_parameters(network) - sum(second)


@pytest.mark.parametrize(("image", "field", "name"), FITTING)
def test_image_models_are_the_largest_of_their_kind_within_fifty_thousand(image, field, name):
    size, count, over = FITTING[image, field, name]
    network = build(ModelConfig(**{field: name}), {"t": IMAGES[image]})
    assert network.body.outputs == size
    assert count_parameters(network) == count <= 50_000
    larger = planned(field, name, IMAGES[image], features=size + 1, budget=0)
    assert count_parameters(larger) == over > 50_000


@pytest.mark.parametrize(("image", "field", "name"), PUBLISHED)
def test_published_sizes_follow_from_one_bias_a_gate(image, field, name):
    size = PUBLISHED[image, field, name]
    counts = [
        with_one_bias(planned(field, name, IMAGES[image], features=n, budget=0))
        for n in (size, size + 1)
    ]
    assert counts[0] <= 50_000 < counts[1]


@pytest.mark.parametrize(
    ("field", "name", "size", "published", "second_biases"),
    [
        ("body", "gru", 46, 49_322, 4 * 3 * 46),  # four layers
        ("module", "ff_gru", 33, 49_712, 4 * 3 * 33),  # four modules
    ],
)
def test_published_counts_are_ours_without_the_second_bias(
    field, name, size, published, second_biases
):
    network = planned(field, name, MNIST, features=size, budget=0)
    assert count_parameters(network) - second_biases == with_one_bias(network) == published


def test_the_text_models_have_the_published_millions():
    text = TaskSpec(inputs=256, outputs=256, tokens=True, every_step=True)
    ours = planned("module", "ff_gru", text, hidden=400, features=600, context=400, budget=0)
    assert count_parameters(ours) == 11_952_260
    gru = planned("body", "gru", text, layers=1, features=2000, budget=0)
    assert with_one_bias(gru) == 14_054_256
