"""Draws of a step: a function of purpose, seed and step, and independent of each other."""

import itertools

import torch
from scipy.stats import kstest, spearmanr

from thalnet_mtl.tasks.random_streams import step_generator

PURPOSES = ("task", "replay", "memory", "reset text8", "reset enwik8")


def uniform(purpose: str, seed: int, step: int) -> float:
    return float(torch.rand(1, generator=step_generator(purpose, seed, step), dtype=torch.float64))


def test_a_draw_is_a_function_of_purpose_seed_and_step():
    draws = {
        (purpose, seed, step): uniform(purpose, seed, step)
        for purpose, seed, step in itertools.product(PURPOSES, (0, 1, 2**31), (0, 1, 10**9))
    }
    assert len(set(draws.values())) == len(draws)
    assert all(uniform(*key) == value for key, value in draws.items())


def test_streams_of_two_purposes_two_seeds_and_neighboring_steps_are_uncorrelated():
    count = 2000
    streams = {
        (purpose, seed): [uniform(purpose, seed, step) for step in range(count + 1)]
        for purpose in PURPOSES
        for seed in (0, 1)
    }
    pairs = [(a[:count], b[:count]) for a, b in itertools.combinations(streams.values(), 2)]
    pairs += [(stream[:count], stream[1:]) for stream in streams.values()]
    p_values = [spearmanr(*pair).pvalue for pair in pairs]
    p_values += [kstest(stream, "uniform").pvalue for stream in streams.values()]
    assert min(p_values) > 0.01 / len(p_values)  # 1 % for all of them together
