"""Distributions of sampled fields: their bounds, their quantiles, and their mistakes."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thalnet_mtl.errors import UserError
from thalnet_mtl.sweep.sampler import random_values
from thalnet_mtl.sweep.space import Distribution, distribution_of, parse_samples

ENDS = st.floats(1e-6, 1e6).flatmap(
    lambda low: st.tuples(st.just(low), st.floats(low * 1.001, low * 1e6))
)
WHOLE_ENDS = st.integers(1, 10**6).flatmap(
    lambda low: st.tuples(st.just(low), st.integers(low + 1, low + 10**6))
)


def test_quantiles_are_those_worked_by_hand():
    log = Distribution("log", (1e-4, 1e-2))
    assert [log.at(u) for u in (0, 0.25, 0.5)] == [1e-4, 0.0003162, 0.001]
    uniform = Distribution("uniform", (-1.0, 3.0))
    assert [uniform.at(u) for u in (0, 0.25, 0.99999999)] == [-1, 0, 3]
    whole = Distribution("int", (2, 5), whole=True)
    assert [whole.at(u) for u in (0, 0.249, 0.25, 0.5, 0.75, 0.999)] == [2, 2, 3, 4, 5, 5]
    # exp(log 0.5 + u log 17), rounded: 0.5 is the start of 1, 1.5 the end
    sizes = Distribution("log", (1, 8), whole=True)
    edge = math.log(1.5 / 0.5) / math.log(17)
    assert [sizes.at(u) for u in (0, edge - 1e-6, edge + 1e-6, 0.9999)] == [1, 1, 2, 8]
    assert [Distribution("values", ("a", "b", "c")).at(u) for u in (0, 0.34, 0.99)] == list("abc")


@settings(deadline=None)
@given(st.sampled_from(["log", "uniform"]), ENDS, st.floats(0, 1, exclude_max=True))
def test_numbers_stay_between_their_ends_and_have_few_digits(kind, ends, u):
    value = Distribution(kind, ends).at(u)
    assert ends[0] <= value <= ends[1]
    assert value in ends or value == float(f"{value:.4g}")


@settings(deadline=None)
@given(st.sampled_from(["log", "int"]), WHOLE_ENDS, st.floats(0, 1, exclude_max=True))
def test_whole_numbers_stay_between_their_ends(kind, ends, u):
    value = Distribution(kind, ends, whole=True).at(u)
    assert ends[0] <= value <= ends[1] and type(value) is int


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**31),
    number=st.integers(0, 1000),
    keys=st.lists(st.sampled_from("abcdef"), min_size=1, unique=True),
    left=st.sets(st.sampled_from("abcdef")),
)
def test_an_arm_without_some_fields_has_the_same_values_of_the_others(seed, number, keys, left):
    space = {key: Distribution("log", (1e-4, 1.0)) for key in keys}
    values = random_values(space, seed, number)
    smaller = {key: space[key] for key in reversed(keys) if key not in left}
    expected = {key: value for key, value in values.items() if key not in left}
    assert random_values(smaller, seed, number) == expected


def test_values_of_trials_cover_the_range_and_differ_between_seeds():
    space = {"x": Distribution("uniform", (0.0, 1.0)), "y": Distribution("uniform", (0.0, 1.0))}
    values = [random_values(space, 3, number) for number in range(400)]
    for key in space:
        mean = sum(value[key] for value in values) / 400
        assert abs(mean - 0.5) < 4 / math.sqrt(12 * 400)  # four standard errors
    assert abs(sum((v["x"] - 0.5) * (v["y"] - 0.5) for v in values) / 400) < 4 / 12 / 20
    assert random_values(space, 4, 0) != values[0]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("train.clip", "expected section.field= and log:low,high, uniform:low,high, int:low,high"),
        ("clip=0,1", "Did you mean 'train.clip=0,1'?"),
        ("train.clip=", "a value is empty"),
        ("train.clip=log:1,", "a value is empty"),
        ("train.clip=log:1", "log takes two ends, log:low,high, not 1"),
        ("train.clip=uniform:1,2,3", "uniform takes two ends, uniform:low,high, not 3"),
        ("train.clip=lgo:1,2", "unknown distribution 'lgo'. Allowed: log, uniform, int. Did you"),
    ],
)
def test_a_word_that_is_no_sample_is_one_line(word, message):
    with pytest.raises(UserError, match="--sample") as error:
        parse_samples([word])
    assert message in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(UserError, match="given twice"):
        parse_samples(["train.clip=0,1", "train.clip=2,3"])


@pytest.mark.parametrize(
    ("text", "field", "message"),
    [
        ("log:0,1", float, "both ends of log must be above 0, got 0"),
        ("log:2,1", float, "the first end must be below the second, got log:2,1"),
        ("log:1,x", float, "expected a number, got 'x'"),
        ("uniform:1,.inf", float, "expected a number, got '.inf'"),
        ("int:1,2.5", float, "int takes whole numbers, got 2.5"),
        ("uniform:1,4", int, "the field takes whole numbers; write int:1,4"),
        ("log:1,4", str, "log is for numbers; give values: value,value"),
        ("1,1", int, "each value must be given once, got 1,1"),
    ],
)
def test_a_distribution_that_does_not_fit_its_field_is_one_line(text, field, message):
    [sample] = parse_samples([f"train.some={text}"])
    with pytest.raises(UserError, match="--sample") as error:
        distribution_of(sample, field)
    assert message in str(error.value)


def test_values_with_colons_are_values_and_a_prefix_names_an_arm():
    plain, own = parse_samples(
        ["train.strategy=avalanche:ewc,naive", "avalanche:ewc:strategy.strength=log:1,10"]
    )
    assert (plain.arm, plain.kind, plain.texts) == ("", "values", ("avalanche:ewc", "naive"))
    assert (own.arm, own.key, own.kind) == ("avalanche:ewc", "strategy.strength", "log")
    assert own.text == "log:1,10" and own.name == "avalanche:ewc:strategy.strength"
