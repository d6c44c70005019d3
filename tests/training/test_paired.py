"""Paired tests: exact on small samples, and of the right size on noise."""

import pytest
import torch
from scipy.stats import permutation_test

from thalnet_mtl.training.search.paired import rejected, sign_flip, sign_flip_norm, signs


def exact(values):
    """Return the p-value that SciPy has for the same test."""
    return permutation_test(
        (values,),
        lambda x, axis: x.mean(axis),
        permutation_type="samples",
        alternative="greater",
        vectorized=True,
        n_resamples=float("inf"),
    ).pvalue


@pytest.mark.parametrize("count", [2, 5, 12])
def test_few_differences_are_tested_as_scipy_does(count):
    generator = torch.Generator().manual_seed(count)
    values = torch.randn(count, generator=generator, dtype=torch.float64) + 0.3
    assert sign_flip(values) == pytest.approx(exact(values.numpy()), abs=1e-12)


def test_many_differences_are_tested_by_random_signs():
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(16, generator=generator, dtype=torch.float64) + 0.3
    assert sign_flip(values) == pytest.approx(exact(values.numpy()), abs=0.01)
    assert sign_flip(values) == sign_flip(values) > 0
    assert sign_flip(values) + sign_flip(-values) == pytest.approx(1, abs=0.01)


def test_a_mean_vector_of_one_number_is_tested_on_both_sides():
    values = torch.tensor([0.3, -0.2, 0.5, 0.4, 0.1, 0.6, -0.1])
    both = min(sign_flip(values), sign_flip(-values)) * 2
    assert sign_flip_norm(values.unsqueeze(1)) == pytest.approx(both, abs=1e-12)


def test_noise_is_rejected_as_often_as_the_level_says():
    generator = torch.Generator().manual_seed(1)
    vectors = torch.randn(400, 10, 7, generator=generator)
    share = sum(sign_flip_norm(sample) <= 0.05 for sample in vectors) / 400
    assert 0.02 < share < 0.09
    assert sign_flip_norm(vectors[0] + 2) <= 2 / 1024


def test_losses_that_are_not_finite_prove_nothing():
    assert sign_flip(torch.tensor([1.0, float("nan"), 1.0])) == 1
    assert sign_flip(torch.tensor([1.0, float("inf"), 1.0])) == 1
    assert sign_flip_norm(torch.tensor([[1.0], [float("nan")]])) == 1
    assert sign_flip(torch.zeros(0)) == sign_flip(torch.zeros(9)) == 1
    assert sign_flip_norm(torch.zeros(9, 3)) == 1


def test_all_signs_are_tried_where_there_are_few():
    rows = signs(4)
    assert len(rows.unique(dim=0)) == 16 and rows[0].eq(1).all()
    assert signs(40)[0].eq(1).all()


def test_several_tests_share_the_level():
    assert rejected([0.03, 0.001, 0.012], 0.03) == [True, True, True]
    assert rejected([0.02, 0.001, 0.04], 0.03) == [False, True, False]
    assert rejected([0.011, 0.9, 0.9], 0.03) == [False, False, False]
    assert rejected([], 0.01) == []
