"""The similarity of the connectivity of networks."""

import json

import numpy as np
import pytest

from benchmarks.quality import connectivity, experiments


def test_the_untrained_networks_are_those_of_the_configs():
    recorded = json.loads((experiments.RESULTS / "initial.json").read_text())
    strengths = connectivity.initial_strengths("paper/cifar10_thalnet", 7)
    for reader, sources in recorded["cifar10"][7].items():
        assert strengths[reader] == pytest.approx(sources, abs=1e-5)


def test_similarity_of_networks_is_worked_by_hand():
    def net(a, b, c, d):
        names = ("input", "side1", "side2", "output")
        rows = ([a, b, b, a], [b, c, d, a], [b, d, c, a], [d, d, d, c])
        return {
            reader: dict(zip(names, row, strict=True))
            for reader, row in zip(names, rows, strict=True)
        }

    def swapped(net):
        turn = {"side1": "side2", "side2": "side1"}
        return {
            turn.get(r, r): {turn.get(s, s): x for s, x in row.items()} for r, row in net.items()
        }

    first, second = net(1.0, 2.0, 3.0, 5.0), net(4.0, 2.0, 1.0, 1.5)
    lopsided = {**first, "side1": dict.fromkeys(first, 1.0) | {"side2": 9.0}}
    assert connectivity.similarity(lopsided, swapped(lopsided)) == pytest.approx(1)
    assert connectivity.similarity(first, second) < 0.9
    louder = {r: {s: 7 * x for s, x in row.items()} for r, row in first.items()}
    assert connectivity.similarity(first, louder) == pytest.approx(1)
    even = {r: dict.fromkeys(first, 0.3) for r in first}
    assert connectivity.relative_strengths(even) == pytest.approx(np.ones((4, 4)))
    assert connectivity.relative_strengths(first)[0] == pytest.approx(
        np.array([1, 2, 2, 1]) / 2.5**0.5
    )
    # Two pairs of equal nets: 1 within, x across; half of all ways to pair them do as well.
    alike = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]])
    assert connectivity.excess_similarity(alike, [[0, 1], [2, 3]]) == 1
    assert connectivity.permutation_test(alike, [[0, 1], [2, 3]]) == pytest.approx(1 / 3, abs=0.02)
