"""Readings: the contract of all registered readings, and the formulas of the paper's."""

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy_thalnet import reading_matrix
from properties import (
    KNOWN_READINGS,
    READINGS,
    arrays,
    assert_close,
    drawn,
    examples,
    gradcheck,
    gradients,
    normal,
    seeds,
    sizes,
)

from thalnet_mtl.registry import entries

every_reading = pytest.mark.parametrize("kind", READINGS)
paper_readings = pytest.mark.parametrize("kind", KNOWN_READINGS)
factors = st.floats(1e-3, 1e3)


def reading(kind, features=3, center=7, context=5, seed=0, dtype=torch.float64):
    return drawn(lambda: entries("reading")[kind](features, center, context), seed, dtype)


def fresh(kind, features=3, center=7, context=5):
    """Return a newly initialized reading."""
    return entries("reading")[kind](features, center, context)


def matrices(read, features):
    """Return R for every row of the batch, repeated if the reading is static."""
    weights = read.weights(features)
    return weights if read.dynamic else weights.expand(len(features), *weights.shape)


@every_reading
@given(features=sizes, center=sizes, context=sizes, batch=sizes)
@examples(max_examples=10)
def test_weights_have_a_row_for_each_context_element_and_a_column_for_each_position(
    kind, features, center, context, batch
):
    read = reading(kind, features, center, context)
    rows = (batch,) if read.dynamic else ()
    assert read.weights(normal(batch, features)).shape == (*rows, context, center)


@paper_readings
@given(features=sizes, center=sizes, context=sizes)
@examples(max_examples=10)
def test_parameter_counts_are_the_published_formulas(kind, features, center, context):
    formulas = {
        "linear": context * center,
        "weight_norm": context * center + 1,
        "weight_norm_rows": context * center + context,
        "fast_softmax": (features + 1) * center * context,
        "fast_gaussian": (features + 1) * 2 * context,
    }
    read = fresh(kind, features, center, context)
    assert sum(parameter.numel() for parameter in read.parameters()) == formulas[kind]


@paper_readings
@given(features=sizes, center=sizes, context=sizes, seed=seeds)
@examples(max_examples=10)
def test_weights_are_what_the_formula_says(kind, features, center, context, seed):
    read = reading(kind, features, center, context, seed)
    phi = normal(3, features, seed=seed)
    expected = [reading_matrix(kind, arrays(read), row, center) for row in phi.numpy()]
    assert_close(matrices(read, phi), np.stack(expected))


@every_reading
def test_static_readings_ignore_the_features_and_dynamic_ones_follow_them_row_by_row(kind):
    read = reading(kind)
    phi = normal(4, 3)
    changed = phi.clone()
    changed[1] += 1
    before, after = matrices(read, phi), matrices(read, changed)
    same = [torch.equal(*pair) for pair in zip(before, after, strict=True)]
    assert same == [True, not read.dynamic, True, True]
    if not read.dynamic:
        assert torch.equal(read.weights(), read.weights(phi))


@every_reading
def test_gradients_reach_every_parameter_and_are_right(kind):
    read = reading(kind, features=2, center=4, context=3)
    phi = normal(2, 2, seed=1)
    loss = (matrices(read, phi) * normal(2, 3, 4, seed=2)).sum()
    for name, gradient in gradients(loss, dict(read.named_parameters())).items():
        assert gradient.abs().max() > 0, name
    gradcheck(lambda features: read.weights(features), read, phi)


@every_reading
@pytest.mark.parametrize("center", [1, 7, 2400])
def test_weights_and_their_gradients_are_finite_at_the_start(kind, center):
    read = fresh(kind, features=3, center=center, context=2)
    weights = read.weights(normal(4, 3, dtype=torch.float32))
    assert weights.isfinite().all() and weights.abs().max() > 0
    for name, gradient in gradients(weights.sum(), dict(read.named_parameters())).items():
        assert gradient.isfinite().all(), name


@every_reading
def test_sizes_are_known_without_allocating_anything(kind):
    with torch.device("meta"):
        planned = fresh(kind)
    shapes = {name: value.shape for name, value in fresh(kind).named_parameters()}
    assert {name: value.shape for name, value in planned.named_parameters()} == shapes


@given(beta=st.floats(-50, 50), seed=seeds, center=sizes, context=sizes)
@examples(max_examples=30)
def test_weight_norm_has_the_norm_and_the_sign_of_beta(beta, seed, center, context):
    read = reading("weight_norm", 1, center, context, seed)
    with torch.no_grad():
        read.scale.fill_(beta)
    assert_close(read.weights().norm(), abs(beta))
    assert_close(read.weights(), beta * read.weight / read.weight.norm())


@given(beta=st.floats(0.1, 50), factor=factors, seed=seeds)
@examples(max_examples=30)
def test_weight_norm_does_not_depend_on_the_length_of_its_matrix(beta, factor, seed):
    read = reading("weight_norm", seed=seed)
    with torch.no_grad():
        read.scale.fill_(beta)
        before = read.weights().clone()
        read.weight.mul_(factor)
    assert_close(read.weights(), before)


@pytest.mark.parametrize("context", [1, 5, 33])
def test_weight_norm_starts_at_the_root_of_the_context(context):
    read = fresh("weight_norm", context=context)
    assert_close(read.scale, np.float32(context**0.5))
    assert_close(read.weights().square().sum(1).mean(), np.float32(1))


@given(seed=seeds, center=sizes, context=sizes)
@examples(max_examples=30)
def test_weight_norm_rows_has_rows_of_the_norm_g(seed, center, context):
    read = reading("weight_norm_rows", 1, center, context, seed)
    assert_close(read.weights().norm(dim=1), read.scale.flatten().abs())


@given(seed=seeds, row=st.integers(0, 4), factor=factors)
@examples(max_examples=30)
def test_weight_norm_rows_does_not_depend_on_the_length_of_any_row(seed, row, factor):
    read = reading("weight_norm_rows", seed=seed)
    with torch.no_grad():
        before = read.weights().clone()
        read.weight[row].mul_(factor)
    assert_close(read.weights(), before)


def test_weight_norm_rows_starts_with_rows_of_unit_norm():
    assert_close(fresh("weight_norm_rows").weights().norm(dim=1), np.ones(5, np.float32))


def test_a_random_reading_starts_like_a_linear_one_and_has_no_parameters():
    torch.manual_seed(0)
    linear = fresh("linear")
    torch.manual_seed(0)
    random = fresh("random")
    assert torch.equal(random.weights(), linear.weights())
    assert not list(random.parameters())
    assert torch.equal(random.state_dict()["weight"], random.weights())


@given(seed=seeds, features=sizes, center=sizes, context=sizes)
@examples(max_examples=30)
def test_softmax_rows_are_distributions_over_the_center(seed, features, center, context):
    weights = reading("fast_softmax", features, center, context, seed).weights(normal(3, features))
    assert (weights > 0).all()
    assert_close(weights.sum(-1), np.ones((3, context)))


@given(seed=seeds, features=sizes, center=sizes, context=sizes)
@examples(max_examples=30)
def test_gaussian_rows_are_normal_densities_at_the_positions_from_one(
    seed, features, center, context
):
    read = reading("fast_gaussian", features, center, context, seed)
    phi = normal(3, features, seed=seed)
    mean = phi @ read.mean.weight.T + read.mean.bias
    raw = phi @ read.variance.weight.T + read.variance.bias
    variance = torch.nn.functional.softplus(raw) + 1e-3
    expected = scipy.stats.norm.pdf(
        np.arange(1, center + 1),
        loc=mean.detach().numpy()[..., None],
        scale=np.sqrt(variance.detach().numpy())[..., None],
    )
    assert_close(read.weights(phi), expected)


def test_gaussian_variances_never_fall_below_a_thousandth():
    read = reading("fast_gaussian", features=1, center=4, context=4)
    with torch.no_grad():
        read.mean.weight.zero_()
        read.mean.bias.copy_(torch.arange(1, 5))
        read.variance.weight.zero_()
        read.variance.bias.fill_(-1000)
    peak = scipy.stats.norm.pdf(0, scale=1e-3**0.5)
    assert_close(read.weights(normal(1, 1))[0].diagonal(), np.full(4, peak))


@pytest.mark.parametrize(("center", "context"), [(7, 7), (128, 32), (100, 3), (3, 5), (2400, 400)])
def test_gaussian_means_start_spread_over_the_center(center, context):
    means = fresh("fast_gaussian", center=center, context=context).mean.bias.detach()
    assert means.min() >= 0.5 and means.max() <= center + 0.5
    assert_close(means + means.flip(0), np.full(context, center + 1, np.float32))
    gaps = means.diff().double()
    assert np.allclose(gaps, center / context, rtol=1e-3)


@pytest.mark.parametrize("center", [7, 128, 400, 2400])
def test_gaussian_deviations_start_at_an_eighth_of_the_center(center):
    read = fresh("fast_gaussian", features=3, center=center, context=4)
    variance = torch.nn.functional.softplus(read.variance.bias.detach().double())
    assert np.allclose(variance.sqrt(), max(1, center / 8), rtol=1e-4)


def test_a_gated_reading_is_a_linear_one_times_a_gate_for_each_element_of_the_context():
    read, phi, center = reading("gated"), normal(4, 3), normal(4, 7, seed=1)
    weights = arrays(read)
    gate = 1 / (1 + np.exp(-(phi.numpy() @ weights["gate.weight"].T + weights["gate.bias"])))
    expected = gate * (center.numpy() @ weights["weight"].T)
    assert_close(torch.einsum("bkc,bc->bk", read.weights(phi), center), expected)
    assert sum(p.numel() for p in read.parameters()) == 5 * 7 + 5 * (3 + 1)
    assert torch.equal(fresh("gated").gate.bias, torch.ones(5))
