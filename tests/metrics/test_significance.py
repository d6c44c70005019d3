"""The test is exact, as SciPy's; corrections by hand; no verdict without enough pairs."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from properties import examples
from scipy import stats

from thalnet_mtl.metrics.significance import (
    Verdict,
    bootstrap_interval,
    holm,
    least_pairs,
    sign_flip_test,
    verdict,
)

lattice = st.lists(st.integers(-50, 50).map(lambda n: n / 1000), min_size=1, max_size=9)
p_values = st.dictionaries(st.sampled_from("abcdefgh"), st.floats(0, 1), min_size=1)


def by_definition(differences):
    """Whole thousandths, so that ties are equal."""
    whole = [round(1000 * d) for d in differences]
    flips = list(product((-1, 1), repeat=len(whole)))
    sums = [sum(s * d for s, d in zip(signs, whole, strict=True)) for signs in flips]
    return sum(abs(s) >= abs(sum(whole)) for s in sums) / len(sums)


def test_three_pairs_by_hand():
    # ±1 ±2 ±3: of 8 sums, |6| is reached twice; 1 + 3 − 2 = 2 by 6, all but the two zeros.
    assert sign_flip_test([1.0, 2.0, 3.0]) == 2 / 8
    assert sign_flip_test([1.0, -2.0, 3.0]) == 6 / 8
    assert sign_flip_test([1.0, 2.0, -3.0]) == 1.0


@examples(max_examples=60)
@given(lattice)
def test_the_test_is_its_definition_where_ties_abound(differences):
    assert sign_flip_test(differences) == by_definition(differences)


@pytest.mark.parametrize("pairs", [2, 5, 6, 9, 12])
def test_the_test_equals_scipys_on_all_assignments(pairs):
    differences = np.random.default_rng(pairs).normal(0.4, 1, pairs)
    expected = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=np.inf
    )
    assert sign_flip_test(differences.tolist()) == pytest.approx(expected.pvalue, abs=1e-12)


@pytest.mark.parametrize("lost", [0, 3, 12, 20, 31])
def test_the_test_is_exact_for_forty_pairs(lost):
    differences = [-0.1] * lost + [0.1] * (40 - lost)  # then it is the sign test
    expected = stats.binomtest(lost, 40).pvalue
    assert sign_flip_test(differences) == pytest.approx(expected, rel=1e-12)


def test_ties_that_rounding_pulls_apart_are_ties():
    assert 0.1 + 0.2 - 0.3 > 0
    assert sign_flip_test([0.1, 0.2, -0.3]) == sign_flip_test([1.0, 2.0, -3.0]) == 1.0
    tenths = [0.9 - 0.8, 0.4 - 0.3, 0.6 - 0.7]
    assert len({abs(d) for d in tenths}) > 1
    assert sign_flip_test(tenths) == sign_flip_test([1.0, 1.0, -1.0]) == 1.0


def test_five_pairs_cannot_be_below_a_sixteenth_and_six_can():
    assert sign_flip_test([0.1] * 5) == 0.0625
    assert sign_flip_test([0.1] * 6) == 0.03125
    assert sign_flip_test([0.0] * 6) == 1.0


@examples(max_examples=60)
@given(st.lists(st.floats(-1, 1), min_size=1, max_size=14), st.randoms(use_true_random=False))
def test_p_is_in_its_range_and_knows_no_order_no_direction_and_no_scale(differences, random):
    p = sign_flip_test(differences)
    assert 2 / 2 ** len(differences) <= p <= 1
    assert sign_flip_test([-d for d in differences]) == p
    assert sign_flip_test([4 * d for d in differences]) == p
    assert sign_flip_test(random.sample(differences, len(differences))) == p


def test_what_is_not_a_sample_is_refused():
    for differences in ([], [0.1, float("nan")], [float("inf")]):
        with pytest.raises(ValueError, match="at least 1 finite"):
            sign_flip_test(differences)
    with pytest.raises(ValueError, match="41 pairs: the exact test supports at most 40"):
        sign_flip_test([0.1] * 41)
    with pytest.raises(ValueError, match="at least 2 finite"):
        bootstrap_interval([0.1])
    with pytest.raises(ValueError, match=r"p = 1.5 is not in \[0, 1\]"):
        holm({"a": 1.5})
    with pytest.raises(ValueError, match="p = nan"):
        verdict([0.1] * 6, float("nan"), True)


def test_the_interval_equals_scipys_percentile_bootstrap():
    values = np.sort(np.random.default_rng(1).normal(size=10))
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=10_000, method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    assert bootstrap_interval(values.tolist()) == pytest.approx(tuple(expected), abs=1e-12)


@examples(max_examples=30)
@given(
    st.lists(st.integers(-100, 100).map(float), min_size=2, max_size=10),
    st.integers(-50, 50).map(float),
    st.randoms(use_true_random=False),
)
def test_the_interval_holds_the_values_moves_with_them_and_knows_no_order(values, shift, random):
    low, high = bootstrap_interval(values)
    assert min(values) <= low <= high <= max(values)
    assert (low == high) == (len(set(values)) == 1)
    shifted = bootstrap_interval([v + shift for v in values])
    assert shifted == pytest.approx((low + shift, high + shift), abs=1e-9)
    assert bootstrap_interval(random.sample(values, len(values))) == (low, high)


def test_the_interval_covers_the_mean_as_often_as_it_says():
    draws = np.random.default_rng(2)
    for count, said in ((6, 0.85), (10, 0.90)):
        intervals = [bootstrap_interval(draws.normal(size=count).tolist()) for _ in range(400)]
        assert np.mean([low < 0 < high for low, high in intervals]) == pytest.approx(said, abs=0.04)


def test_holm_by_hand():
    # Sorted: 4 · 0.005 = 0.02; 3 · 0.01 = 0.03; 2 · 0.03 = 0.06; 1 · 0.04, but no less than 0.06.
    corrected = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert corrected == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02}, abs=1e-15)
    assert list(corrected) == ["a", "b", "c", "d"]
    assert holm({"a": 0.6, "b": 0.7}) == {"a": 1.0, "b": 1.0}
    assert holm({"a": 0.03125}) == {"a": 0.03125}
    assert holm({}) == {}


@examples()
@given(p_values, st.data())
def test_holm_is_monotone_between_no_correction_and_bonferroni(given_values, data):
    corrected = holm(given_values)
    for one, p in given_values.items():
        assert p <= corrected[one] <= min(1.0, len(given_values) * p)
        for other in given_values:
            assert p > given_values[other] or corrected[one] <= corrected[other]
    name = data.draw(st.sampled_from(sorted(given_values)))
    raised = holm(given_values | {name: data.draw(st.floats(given_values[name], 1))})
    assert all(raised[one] >= corrected[one] for one in corrected)


def test_a_verdict_needs_six_pairs_whatever_p_is():
    line = "5 pairs cannot go below p = 0.0625: 6 are needed for 0.05."
    assert verdict([0.1] * 5, 0.0625, True) == Verdict("undecided", line)
    assert verdict([0.1] * 5, 0.001, True).word == "undecided"
    assert verdict([0.1], 1.0, True).line.startswith("1 pair cannot go below p = 1:")
    assert verdict([0.1] * 5, 0.25, True, comparisons=4).line.endswith(
        "8 are needed for 0.05 in 4 comparisons."
    )


def test_a_verdict_follows_the_mean_and_the_direction_of_the_metric():
    up, down = [0.1] * 6, [-0.1] * 6
    assert verdict(up, 0.03125, True) == Verdict("better", "6 pairs, p = 0.03125.")
    assert verdict(up, 0.03125, False).word == "worse"
    assert verdict(down, 0.03125, True).word == "worse"
    assert verdict(down, 0.03125, False).word == "better"


def test_a_verdict_that_is_not_there_says_what_is_missing():
    result = verdict([0.1] * 10, 0.25, True)
    assert result == Verdict("undecided", "10 pairs, p = 0.25 is not below 0.05.")
    assert verdict([0.1] * 10, 0.05, True).word == "undecided"
    result = verdict([0.1] * 6, 0.09375, True, comparisons=3)
    assert result.word == "undecided"
    assert result.line.endswith("not below 0.05: so few start at 0.09375, 7 would suffice.")


@examples(max_examples=40)
@given(st.lists(st.floats(-1, 1), min_size=6, max_size=10), st.booleans())
def test_turning_the_comparison_around_turns_the_verdict_around(differences, higher):
    p = sign_flip_test(differences)
    opposite = {"better": "worse", "worse": "better", "undecided": "undecided"}
    word = verdict(differences, p, higher).word
    assert verdict([-d for d in differences], p, higher).word == opposite[word]
    assert verdict(differences, p, not higher).word == opposite[word]


def test_the_least_pairs_are_those_that_can_be_below_the_level_after_correction():
    for comparisons in range(1, 20):
        pairs = least_pairs(comparisons)
        for count, can in ((pairs, True), (pairs - 1, False)):
            p = sign_flip_test([0.1] * count)
            corrected = holm({str(k): p for k in range(comparisons)})
            assert (max(corrected.values()) < 0.05) == can
