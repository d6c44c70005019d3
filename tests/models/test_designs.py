"""Module designs: the contract of all registered designs, and the equations of the paper's."""

import numpy as np
import pytest
import torch
from hypothesis import given
from numpy_thalnet import LAYERS
from numpy_thalnet import design as numpy_design
from properties import (
    DESIGNS,
    KNOWN_DESIGNS,
    arrays,
    assert_close,
    assert_same_gradients,
    drawn,
    examples,
    gradcheck,
    gradients,
    normal,
    seeds,
    sizes,
)

from thalnet_mtl.registry import entries

every_design = pytest.mark.parametrize("kind", DESIGNS)
paper_designs = pytest.mark.parametrize("kind", KNOWN_DESIGNS)


def design(kind, inputs=4, features=3, hidden=5, seed=0):
    return drawn(lambda: entries("module")[kind](inputs, features, hidden), seed)


def shapes(module):
    return {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}


@every_design
@given(inputs=sizes, features=sizes, hidden=sizes, batch=sizes)
@examples(max_examples=10)
def test_a_step_gives_features_and_a_memory_of_the_promised_widths(
    kind, inputs, features, hidden, batch
):
    module = design(kind, inputs, features, hidden)
    phi, memory = module(normal(batch, inputs), normal(batch, module.memory, seed=1))
    assert phi.shape == (batch, features)
    assert memory.shape == (batch, module.memory)


@paper_designs
@given(inputs=sizes, features=sizes, hidden=sizes, seed=seeds)
@examples(max_examples=10)
def test_a_step_is_what_the_equations_say(kind, inputs, features, hidden, seed):
    module = design(kind, inputs, features, hidden, seed)
    x, memory = normal(3, inputs, seed=seed), normal(3, module.memory, seed=seed + 1)
    expected = [
        numpy_design(kind, arrays(module), *pair)
        for pair in zip(x.numpy(), memory.numpy(), strict=True)
    ]
    for part, values in zip(module(x, memory), zip(*expected, strict=True), strict=True):
        assert_close(part, np.stack(values))


@every_design
def test_gradients_reach_parameters_input_and_memory_and_are_right(kind):
    module = design(kind, inputs=2, features=2, hidden=3)
    x, memory = normal(2, 2), normal(2, module.memory, seed=1)
    leaves = dict(module.named_parameters()) | {"x": x.requires_grad_()}
    if module.memory:
        leaves["memory"] = memory.requires_grad_()
    loss = (module(x, memory)[0] * normal(2, 2, seed=2)).sum()
    for name, gradient in gradients(loss, leaves).items():
        assert gradient.abs().max() > 0, name
    gradcheck(lambda x: module(x, memory.detach()), module, x)


@every_design
def test_rows_of_a_batch_are_independent(kind):
    module = design(kind)
    x, memory = normal(3, 4), normal(3, module.memory, seed=1)
    batched = torch.cat(module(x, memory), dim=1)
    rows = [torch.cat(module(x[k : k + 1], memory[k : k + 1]), dim=1) for k in range(3)]
    assert_close(batched, torch.cat(rows))


@every_design
def test_the_memory_is_not_changed_in_place(kind):
    module = design(kind)
    x, memory = normal(3, 4), normal(3, module.memory, seed=1)
    module(x, memory)
    assert torch.equal(x, normal(3, 4))
    assert torch.equal(memory, normal(3, module.memory, seed=1))


@paper_designs
def test_features_stay_within_one(kind):
    module = design(kind)
    phi, _ = module(100 * normal(50, 4), normal(50, module.memory, seed=1).tanh())
    assert phi.abs().max() <= 1


@paper_designs
@pytest.mark.parametrize("inputs", [4, 6])
def test_parameter_counts_are_those_of_a_stack_of_dense_and_gru_layers(kind, inputs):
    layers = LAYERS[kind]
    expected, width = 0, inputs
    for depth, layer in enumerate(layers):
        out = 3 if depth == len(layers) - 1 else 5
        expected += 3 * (width + out + 2) * out if layer == "gru" else (width + 1) * out
        width = out
    module = entries("module")[kind](inputs, 3, 5)
    assert sum(parameter.numel() for parameter in module.parameters()) == expected


def test_dense_layers_alone_have_no_memory():
    assert design("ff").memory == 0


@pytest.mark.parametrize(
    ("kind", "width"), [("gru", 3), ("ff_gru", 3), ("gru_ff", 5), ("ff_gru_ff", 5)]
)
def test_the_memory_is_as_wide_as_the_gru(kind, width):
    assert design(kind, features=3, hidden=5).memory == width


def test_a_design_of_one_layer_ignores_the_hidden_width():
    assert shapes(design("gru", hidden=2)) == shapes(design("gru", hidden=9))


@pytest.mark.parametrize("kind", sorted({*KNOWN_DESIGNS} - {"gru"}))
def test_the_hidden_width_applies_to_all_layers_but_the_last(kind):
    narrow, wide = design(kind, hidden=2), design(kind, hidden=9)
    first, last = "stack.0.", f"stack.{len(LAYERS[kind]) - 1}."
    for name, shape in shapes(wide).items():
        rows, columns = (*shape, None)[:2]
        gates = 3 if "_ih" in name or "_hh" in name else 1
        assert rows == gates * (3 if name.startswith(last) else 9)
        if columns is not None:
            state = "_hh" in name
            outputs = 3 if name.startswith(last) else 9
            inputs = 4 if name.startswith(first) else 9
            assert columns == (outputs if state else inputs)
    assert shapes(narrow).keys() == shapes(wide).keys() and shapes(narrow) != shapes(wide)


def test_a_gru_module_equals_the_gru_of_pytorch_in_outputs_and_all_gradients():
    module = design("gru", inputs=4, features=3)
    gru = torch.nn.GRU(4, 3, batch_first=True, dtype=torch.float64)
    gru.load_state_dict(
        {
            f"{name.removeprefix('stack.0.')}_l0": value
            for name, value in module.state_dict().items()
        }
    )
    xs, start = normal(5, 9, 4).requires_grad_(), normal(5, 3, seed=1).requires_grad_()
    weight = normal(5, 9, 3, seed=2)

    state, steps = start, []
    for x in xs.unbind(1):
        phi, state = module(x, state)
        assert torch.equal(phi, state)
        steps.append(phi)
    ys, last = gru(xs, start[None])
    assert_close(torch.stack(steps, 1), ys)
    assert_close(state, last[0])

    inputs = {"xs": xs, "start": start}
    parameters = {f"{name.removeprefix('stack.0.')}_l0": p for name, p in module.named_parameters()}
    expected = dict(gru.named_parameters())
    loss, target = (torch.stack(steps, 1) * weight).sum(), (ys * weight).sum()
    assert_same_gradients(
        gradients(loss, {k: parameters[k] for k in expected} | inputs),
        gradients(target, expected | inputs),
    )
