"""The choice of a path: densities agree with scikit-learn and SciPy, and are restored exactly."""

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis

from thalnet_mtl import TaskSpec
from thalnet_mtl.errors import UserError
from thalnet_mtl.models.densities import COMPONENTS, RowDensity, TokenDensity
from thalnet_mtl.models.model_folder import save_tensors
from thalnet_mtl.models.path_choice import PathChooser
from thalnet_mtl.ops.lengths import zero_past_end

ROWS = TaskSpec(inputs=3, outputs=2, steps=8)


def correlated(count, steps, inputs, seed=0, draw=0):
    """Return normal sequences, whose mean and covariance depend on the seed."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(steps * inputs, steps * inputs, generator=generator)
    generator.manual_seed(1_000 * draw + seed)
    rows = torch.randn(count, steps * inputs, generator=generator) @ mixing
    return (rows + mixing[0]).view(count, steps, inputs)


def test_a_density_of_rows_is_probabilistic_pca():
    xs, others = correlated(400, 8, 3), correlated(50, 8, 3, seed=1)
    pca = PCA(COMPONENTS).fit(xs.flatten(1).double().numpy())
    expected = pca.score_samples(others.flatten(1).double().numpy())
    np.testing.assert_allclose(RowDensity.fit(xs).log_likelihood(others), expected, rtol=1e-4)


def test_a_sequence_that_ends_early_has_the_density_of_its_steps():
    density = RowDensity.fit(correlated(400, 8, 3))
    xs, lengths = correlated(4, 8, 3, seed=1), torch.tensor([8, 3, 1, 3])
    factor = density.factor.flatten(0, 1).double()
    covariance = factor @ factor.T + density.noise * torch.eye(24)
    for n, x, value in zip(lengths, xs, density.log_likelihood(xs, lengths), strict=True):
        marginal = multivariate_normal(density.mean[:n].flatten(), covariance[: 3 * n, : 3 * n])
        assert float(value) == pytest.approx(marginal.logpdf(x[:n].flatten()), rel=1e-5)


def test_a_step_has_the_mean_and_the_variance_of_the_sequences_that_reach_it():
    xs, lengths = correlated(60, 4, 2), torch.tensor([4, 2]).repeat(30)
    density = RowDensity.fit(zero_past_end(xs, lengths), lengths)
    reached = [xs, xs, xs[::2], xs[::2]]
    means = torch.stack([part[:, t].mean(0) for t, part in enumerate(reached)])
    torch.testing.assert_close(density.mean, means)
    # 7 of 8 eigenvalues are components and the last is the noise: the covariance is exact.
    variances = torch.stack([p[:, t].var(0, correction=0) for t, p in enumerate(reached)])
    fitted = density.factor.square().sum(-1) + density.noise
    torch.testing.assert_close(fitted, variances * 60 / 59)


def test_equal_numbers_have_a_density():
    density = RowDensity.fit(torch.ones(10, 2, 1))
    near, far = density.log_likelihood(torch.tensor([[[1.0], [1.0]], [[1.0], [1.5]]]))
    assert torch.isfinite(near) and near > far


def test_a_density_of_tokens_counts_pairs():
    # 0 thrice and 1 twice: p(0) = 4/7, p(1) = 3/7. Pairs 0-1, 1-1, 0-0: p(1|0) = (1 + 3/7) / 3.
    density = TokenDensity.fit(torch.tensor([[0, 1, 1], [0, 0, 1]]), 2, torch.tensor([3, 2]))
    value = density.log_likelihood(torch.tensor([[0, 1, 1], [0, 1, 0]]), torch.tensor([3, 2]))
    first, follows, stays = np.log(4 / 7), np.log((1 + 3 / 7) / 3), np.log((1 + 3 / 7) / 2)
    np.testing.assert_allclose(value, [first + follows + stays, first + follows], rtol=1e-6)


def test_tokens_of_a_large_vocabulary_are_independent():
    density = TokenDensity.fit(torch.tensor([[5, 7], [5, 1]]), 50_000)
    assert sum(part.numel() for part in density) == 100_000
    expected = [np.log(2 / 50_004) + np.log(3 / 50_004)]
    np.testing.assert_allclose(density.log_likelihood(torch.tensor([[7, 5]])), expected, rtol=1e-6)


def test_sequences_choose_as_quadratic_discriminant_analysis_does():
    xs = [correlated(300, 4, 3, seed) for seed in range(3)]
    chooser, spec = PathChooser(), TaskSpec(inputs=3, outputs=2)
    for name, part in zip("abc", xs, strict=True):
        chooser.fit(name, spec, part)
    points = torch.cat([correlated(300, 4, 3, seed)[:50] * 0.7 for seed in range(3)])
    labels = np.repeat(list("abc"), 300)
    qda = QuadraticDiscriminantAnalysis(priors=[1 / 3] * 3)
    qda.fit(torch.cat(xs).flatten(1).numpy(), labels)
    expected = qda.predict(points.flatten(1).numpy())
    assert set(expected) == set("abc")
    assert (np.array(chooser.choose(points)) == expected).mean() > 0.97


def fitted(**tasks):
    chooser = PathChooser()
    for name, xs in tasks.items():
        chooser.fit(name, ROWS, xs)
    return chooser


def test_a_choice_is_among_the_tasks_whose_inputs_fit():
    chooser = fitted(a=torch.rand(20, 8, 3), b=torch.rand(20, 8, 3) + 1)
    chooser.fit("wide", TaskSpec(5, 2), torch.rand(20, 8, 5))
    chooser.fit("text", TaskSpec(3, 2, tokens=True), torch.randint(3, (20, 8)))
    pair = TaskSpec({"eye": 3, "ear": 2}, 2)
    both = {"eye": torch.rand(20, 8, 3), "ear": torch.rand(20, 8, 2)}
    chooser.fit("pair", pair, both)
    assert chooser.fitting(ROWS) == ["a", "b"]
    assert chooser.fitting(TaskSpec(3, 9, tokens=True)) == ["text"]
    assert chooser.fitting(pair) == ["pair"]
    assert chooser.choose(torch.full((1, 8, 3), 1.5), tasks=["a", "b"]) == ["b"]
    ear = PathChooser()
    ear.fit("p", TaskSpec(2, 2), both["ear"])
    total = fitted(p=both["eye"]).log_likelihoods(both["eye"]) + ear.log_likelihoods(both["ear"])
    torch.testing.assert_close(chooser.log_likelihoods(both, tasks=["pair"]), total)
    chooser.forget("a")
    assert chooser.fitting(ROWS) == ["b"]


def test_longer_sequences_are_compared_by_the_steps_that_all_tasks_know():
    short, long = torch.rand(20, 3, 3), torch.rand(20, 8, 3)
    chooser = fitted(short=short, long=long)
    whole, beginning = (chooser.log_likelihoods(xs) for xs in (long, long[:, :3]))
    assert torch.equal(whole, beginning)
    lengths = torch.tensor([2, 8]).repeat(10)
    assert torch.equal(
        chooser.log_likelihoods(long, lengths),
        chooser.log_likelihoods(long[:, :3], lengths.clamp(max=3)),
    )


@pytest.mark.parametrize("lengths", [None, torch.arange(2000) % 8 + 1])
def test_sequences_of_no_known_task_are_a_surprise(lengths):
    chooser, ends = PathChooser(), None if lengths is None else lengths[:400]
    chooser.fit("a", ROWS, correlated(2000, 8, 3), lengths)
    known = chooser.surprise(correlated(400, 8, 3, draw=1), ends)
    new = chooser.surprise(correlated(400, 8, 3, seed=1), ends)
    assert abs(float(known.mean())) < 0.25 and 0.9 < float(known.std()) < 1.1
    assert float(new.mean()) > 1.5


def test_what_is_typical_is_measured_on_sequences_that_were_not_fitted():
    surprises = []
    for draw in range(0, 24, 2):
        chooser = fitted(a=correlated(100, 8, 3, draw=draw))
        surprises.append(chooser.surprise(correlated(200, 8, 3, draw=draw + 1)).mean())
    assert abs(float(torch.stack(surprises).mean())) < 0.5


def test_what_is_past_the_end_has_no_effect():
    xs, lengths = torch.rand(20, 8, 3), torch.tensor([5, 8]).repeat(10)
    other = xs.clone()
    other[::2, 5:] = torch.nan
    choosers = [PathChooser(), PathChooser()]
    for chooser, part in zip(choosers, (xs, other), strict=True):
        chooser.fit("a", ROWS, part, lengths)
    first, second = (
        chooser.log_likelihoods(part, lengths)
        for chooser, part in zip(choosers, (other, xs), strict=True)
    )
    assert torch.equal(first, second)


def test_a_saved_chooser_is_restored_to_the_same_bits(tmp_path):
    chooser = PathChooser()
    chooser.fit("text", TaskSpec(3, 2, tokens=True), torch.randint(3, (20, 8)))
    for name in ("b", *(f"a.{k}" for k in range(12))):
        chooser.fit(name, ROWS, torch.rand(20, 8, 3))
    chooser.save(tmp_path)
    restored, xs = PathChooser.load(tmp_path), torch.rand(9, 8, 3)
    assert restored.tasks == chooser.tasks and chooser.tasks[-1] == "a.11"
    pair = ["b", "a.1"]
    assert torch.equal(
        restored.log_likelihoods(xs, tasks=pair), chooser.log_likelihoods(xs, tasks=pair)
    )


def test_a_damaged_file_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"paths\.safetensors is missing or damaged"):
        PathChooser.load(tmp_path)
    save_tensors(tmp_path / "paths.safetensors", {"0.a..mean": torch.ones(2)})
    with pytest.raises(UserError, match=r"paths\.safetensors is damaged: KeyError 'typical'"):
        PathChooser.load(tmp_path)


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda c: PathChooser().choose(torch.rand(1, 8, 3)), "no path to choose from"),
        (lambda c: c.choose(torch.rand(1, 8, 3), tasks=["b"]), "unknown task 'b'"),
        (lambda c: c.choose(torch.rand(1, 8, 5)), "'a' has other inputs: .batch, time, 3."),
        (lambda c: c.choose(torch.ones(1, 8, dtype=torch.long)), "'a' has other inputs"),
        (lambda c: c.choose({"eye": torch.rand(1, 8, 3)}), "'a' has other inputs"),
        (lambda c: c.choose(torch.full((1, 8, 3), torch.nan)), "finite numbers"),
        (lambda c: c.choose(torch.rand(1, 8, 3), torch.tensor([9])), "has 1 to 8 steps"),
        (lambda c: c.fit("b", ROWS, torch.rand(1, 8, 3)), "expected two sequences to fit, got 1"),
        (lambda c: c.fit("b", ROWS, torch.rand(9, 8, 5)), "shape .9, 8, 5."),
        (lambda c: c.fit("b", ROWS, torch.full((9, 8, 3), torch.inf)), "must be finite numbers"),
        (
            lambda c: c.fit("b", TaskSpec(3, 2, tokens=True), torch.full((9, 8), 3)),
            "whole numbers below 3",
        ),
    ],
)
def test_what_cannot_be_chosen_is_refused(act, message):
    with pytest.raises(UserError, match=message):
        act(fitted(a=torch.rand(20, 8, 3)))
