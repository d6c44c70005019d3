"""Tests whether networks that learn the same task develop similar connectivity.

The connectivity of a network is the matrix of how strongly each module reads each slot: the root
mean square of that block of R, in logarithms, minus the mean of its row (a reading of fixed norm
only distributes it). The similarity of two networks is the correlation of their matrices, with the
side modules matched in the order that maximizes it.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations, permutations
from statistics import mean

import numpy as np
import torch
from jaxtyping import Float

from benchmarks.records import reading_strengths
from thalnet_mtl.config.load import load_configs
from thalnet_mtl.metrics.significance import bootstrap_interval, sign_flip_test
from thalnet_mtl.models.thalnet import ThalNet
from thalnet_mtl.training.setup import make_network, make_tasks

Strengths = Mapping[str, Mapping[str, float]]
SIDES = ("side1", "side2")
SHUFFLES = 10_000


def similarity(first: Strengths, second: Strengths) -> float:
    """Return the correlation of two networks, with the side modules in the best order.

    >>> net = {"input": {"input": 1.0, "side1": 2.0}, "side1": {"input": 3.0, "side1": 1.0}}
    >>> round(similarity(net, net), 6)
    1.0
    """
    names = [*first]
    sides = [name for name in names if name in SIDES]
    correlations = []
    for order in permutations(sides):
        renamed = dict(zip(sides, order, strict=True))
        matched = [renamed.get(name, name) for name in names]
        correlations.append(correlation(matrix(first, names), matrix(second, matched)))
    return max(correlations)


def matrix(net: Strengths, names: Sequence[str]) -> Float[np.ndarray, "reader source"]:
    """Return the logarithms of the strengths minus the mean of each reader."""
    logs = np.log([[net[reader][source] for source in names] for reader in names])
    return logs - logs.mean(1, keepdims=True)


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Return the Pearson correlation of the entries of two matrices."""
    return float(np.corrcoef(first.ravel(), second.ravel())[0, 1])


def excess_similarity(
    similarities: Float[np.ndarray, "net net"], groups: Sequence[Sequence[int] | np.ndarray]
) -> float:
    """Return the mean similarity within the groups minus that between them."""
    same = [similarities[a, b] for group in groups for a, b in combinations(group, 2)]
    different = [
        similarities[a, b]
        for first, second in combinations(groups, 2)
        for a in first
        for b in second
    ]
    return mean(same) - mean(different)


def mean_similarity(
    similarities: Float[np.ndarray, "net net"], first: Sequence[int], second: Sequence[int]
) -> float:
    """Return the mean similarity of two distinct networks, one from each group."""
    return mean(similarities[a, b] for a in first for b in second if a != b)


def permutation_test(
    similarities: Float[np.ndarray, "net net"], groups: Sequence[Sequence[int]]
) -> float:
    """Return the one-sided p of the excess similarity under random assignment to the groups."""
    observed, rng = excess_similarity(similarities, groups), np.random.default_rng(0)
    members = [k for group in groups for k in group]
    ends = np.cumsum([len(group) for group in groups])
    reached = 0
    for _ in range(SHUFFLES):
        shuffled = np.split(rng.permutation(members), ends[:-1])
        reached += excess_similarity(similarities, shuffled) >= observed - 1e-12
    return (1 + reached) / (1 + SHUFFLES)


def initial_strengths(config: str, seed: int) -> dict[str, dict[str, float]]:
    """Return the reading strengths of the untrained network of a configuration."""
    settings = load_configs([config], {"train.seed": str(seed)})[""]
    torch.manual_seed(seed)
    body = make_network(settings, make_tasks(settings)).body
    assert isinstance(body, ThalNet)
    slots = {name: slot.stop - slot.start for name, slot in body.slots.items()}
    return reading_strengths(body.reading_weights(), slots)


def relative_strengths(net: Strengths) -> Float[np.ndarray, "reader source"]:
    """Return strengths relative to a reader that reads all slots alike: 1 is an equal share."""
    strengths = np.array([[net[reader][source] for source in net] for reader in net])
    return strengths / np.sqrt((strengths**2).mean(1, keepdims=True))


def reading_tables(networks: Mapping[str, Sequence[Strengths]]) -> str:
    """Return who reads whom, the skip connection and the feedback path, in Markdown."""
    lines = []
    for task, nets in networks.items():
        names, strengths = [*nets[0]], np.array([relative_strengths(net) for net in nets])
        first, last = names.index("input"), names.index("output")
        lines += [f"| {task}: reader | {' | '.join(names)} |", "|" + "---|" * (len(names) + 1)]
        for k, name in enumerate(names):
            lines.append(f"| {name} | {' | '.join(f'{x:.2f}' for x in strengths[:, k].mean(0))} |")
        paths = {
            "skip connection: output reads input": strengths[:, last, first],
            "feedback: other modules read output": np.delete(strengths, last, 1)[:, :, last].mean(
                1
            ),
        }
        for path, values in paths.items():
            low, high = bootstrap_interval([*values])
            p = sign_flip_test([*(values - 1)])
            lines.append(
                f"| {path} | {values.mean():.2f} [{low:.2f}, {high:.2f}] | p = {p:.4f} | | |"
            )
        lines.append("")
    return "\n".join(lines[:-1])


def similarity_table(networks: Mapping[str, Sequence[Strengths]]) -> str:
    """Return the similarities of trained and untrained networks of two tasks, in Markdown."""
    nets = [net for group in networks.values() for net in group]
    ends = np.cumsum([len(group) for group in networks.values()])
    places = np.split(np.arange(len(nets)), ends[:-1])
    groups = {name: [int(k) for k in place] for name, place in zip(networks, places, strict=True)}
    similarities = np.array([[similarity(a, b) for b in nets] for a in nets])
    lines = [f"| mean similarity | {' | '.join(groups)} |", "|" + "---|" * (len(groups) + 1)]
    for name, group in groups.items():
        cells = [f"{mean_similarity(similarities, group, g):+.2f}" for g in groups.values()]
        lines.append(f"| {name} ({len(group)}) | {' | '.join(cells)} |")
    trained, untrained = [*groups.values()][:2], [*groups.values()][2:]
    excess, p = excess_similarity(similarities, trained), permutation_test(similarities, trained)
    lines += [
        "",
        f"Trained networks of the same task are more similar than those of different tasks by "
        f"{excess:+.3f} (p = {p:.4f}, {SHUFFLES:,} permutations of the labels).",
    ]
    for name, after, before in zip(networks, trained, untrained, strict=False):
        gain = mean_similarity(similarities, after, after)
        gain -= mean_similarity(similarities, before, before)
        lines.append(f"Training increased the similarity of those of {name} by {gain:+.3f}.")
    return "\n".join(lines)
