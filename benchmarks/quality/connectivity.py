"""Do nets that learn the same task come to be wired alike? A measure, and a test, of the claim.

A net is the matrix of how strongly each module reads each other: the root mean square of that
block of R, in logarithms, less the mean of its row, as a reading of one norm only shares it out.
Two nets are as similar as the correlation of their matrices, side modules matched in the order in
which it is greatest.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations, permutations
from statistics import mean

import numpy as np
import torch
from jaxtyping import Float

from benchmarks.shared import strengths
from thalnet_mtl.config.load import load_configs
from thalnet_mtl.metrics.significance import bootstrap_interval, sign_flip_test
from thalnet_mtl.models.thalnet import ThalNet
from thalnet_mtl.training.setup import make_network, make_tasks

Strengths = Mapping[str, Mapping[str, float]]
SIDES = ("side1", "side2")
SHUFFLES = 10_000


def similarity(one: Strengths, other: Strengths) -> float:
    """Correlation of two nets, side modules in the best order.

    >>> net = {"input": {"input": 1.0, "side1": 2.0}, "side1": {"input": 3.0, "side1": 1.0}}
    >>> round(similarity(net, net), 6)
    1.0
    """
    names = [*one]
    sides = [name for name in names if name in SIDES]
    found = []
    for order in permutations(sides):
        renamed = dict(zip(sides, order, strict=True))
        matched = [renamed.get(name, name) for name in names]
        found.append(correlation(matrix(one, names), matrix(other, matched)))
    return max(found)


def matrix(net: Strengths, names: Sequence[str]) -> Float[np.ndarray, "reader source"]:
    """Logarithms of the strengths, without the mean of each reader."""
    logs = np.log([[net[reader][source] for source in names] for reader in names])
    return logs - logs.mean(1, keepdims=True)


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


def within(of: Float[np.ndarray, "net net"], groups: Sequence[Sequence[int]]) -> float:
    """Mean similarity of two nets of the same group, less that of two of different ones."""
    same = [of[a, b] for group in groups for a, b in combinations(group, 2)]
    other = [of[a, b] for one, two in combinations(groups, 2) for a in one for b in two]
    return mean(same) - mean(other)


def means(of: Float[np.ndarray, "net net"], one: Sequence[int], other: Sequence[int]) -> float:
    """Mean similarity of two different nets, one of each group."""
    return mean(of[a, b] for a in one for b in other if a != b)


def shuffled(of: Float[np.ndarray, "net net"], groups: Sequence[Sequence[int]]) -> float:
    """p that nets sorted into groups at random are as much more alike within them (one-sided)."""
    seen, draw = within(of, groups), np.random.default_rng(0)
    everyone, ends = [k for group in groups for k in group], np.cumsum([len(g) for g in groups])
    reached = 0
    for _ in range(SHUFFLES):
        mixed = draw.permutation(everyone)
        reached += within(of, np.split(mixed, ends[:-1])) >= seen - 1e-12
    return (1 + reached) / (1 + SHUFFLES)


def initial(config: str, seed: int) -> dict[str, dict[str, float]]:
    """The strengths of the net that a configuration begins with."""
    made = load_configs([config], {"train.seed": str(seed)})[""]
    torch.manual_seed(seed)
    body = make_network(made, make_tasks(made)).body
    assert isinstance(body, ThalNet)
    slots = {name: slot.stop - slot.start for name, slot in body.slots.items()}
    return strengths(body.reading_weights(), slots)


def shares(net: Strengths) -> Float[np.ndarray, "reader source"]:
    """Strengths as parts of what a reader would give to all sources alike: 1 is an equal one."""
    of = np.array([[net[reader][source] for source in net] for reader in net])
    return of / np.sqrt((of**2).mean(1, keepdims=True))


def paths(nets: Mapping[str, Sequence[Strengths]]) -> str:
    """Who reads whom, the way past the sides, and the way back from the end, in Markdown."""
    lines = []
    for task, of in nets.items():
        names, all_ = [*of[0]], np.array([shares(net) for net in of])
        first, last = names.index("input"), names.index("output")
        lines += [f"| {task}: reader | {' | '.join(names)} |", "|" + "---|" * (len(names) + 1)]
        for k, name in enumerate(names):
            lines.append(f"| {name} | {' | '.join(f'{x:.2f}' for x in all_[:, k].mean(0))} |")
        ways = {
            "skip, output reads input": all_[:, last, first],
            "feedback, the others read output": np.delete(all_, last, 1)[:, :, last].mean(1),
        }
        for way, values in ways.items():
            low, high = bootstrap_interval([*values])
            p = sign_flip_test([*(values - 1)])
            lines.append(
                f"| {way} | {values.mean():.2f} [{low:.2f}, {high:.2f}] | p = {p:.4f} | | |"
            )
        lines.append("")
    return "\n".join(lines[:-1])


def compare(nets: Mapping[str, Sequence[Strengths]]) -> str:
    """Nets of two tasks, trained and as they began, in Markdown."""
    everyone = [net for of in nets.values() for net in of]
    ends = np.cumsum([len(of) for of in nets.values()])
    places = np.split(np.arange(len(everyone)), ends[:-1])
    groups = {name: [int(k) for k in at] for name, at in zip(nets, places, strict=True)}
    of = np.array([[similarity(one, other) for other in everyone] for one in everyone])
    lines = [f"| mean similarity | {' | '.join(groups)} |", "|" + "---|" * (len(groups) + 1)]
    for name, one in groups.items():
        cells = [f"{means(of, one, other):+.2f}" for other in groups.values()]
        lines.append(f"| {name} ({len(one)}) | {' | '.join(cells)} |")
    (first, second), started = [*groups.values()][:2], [*groups.values()][2:]
    tested = within(of, [first, second]), shuffled(of, [first, second])
    lines += [
        "",
        f"Trained nets of the same task are more alike than those of different tasks by "
        f"{tested[0]:+.3f} (p = {tested[1]:.4f}, {SHUFFLES:,} shuffles of the labels).",
    ]
    for name, now, then in zip(nets, (first, second), started, strict=False):
        gained = means(of, now, now) - means(of, then, then)
        lines.append(f"Training made those of {name} more alike by {gained:+.3f}.")
    return "\n".join(lines)
