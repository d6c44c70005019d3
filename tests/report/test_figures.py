import re
from base64 import b64decode

import numpy as np
import pytest

from thalnet_mtl.metrics.metric import ACCURACY
from thalnet_mtl.report.figures.accuracy_matrix import stream_figure
from thalnet_mtl.report.figures.style import numbered


def test_numbers_stand_over_their_marks_where_there_is_room():
    assert numbered([0.1, 0.2, 0.9]) == [(0.1, "1"), (0.2, "2"), (0.9, "3")]
    assert numbered([]) == []


def test_numbers_without_room_become_a_range_in_their_middle():
    labels = numbered([0.10, 0.12, 0.13, 0.5, 0.51])
    assert [label for _, label in labels] == ["1–3", "4–5"]
    assert [place for place, _ in labels] == pytest.approx([0.115, 0.505])


@pytest.mark.parametrize("count", [7, 20, 60, 500])
def test_labels_never_overlap_and_none_is_left_out(count):
    labels = numbered([n / count for n in range(count)], digit=0.02)
    ends = [label.split("–") for _, label in labels]
    assert [int(end[0]) for end in ends] == [1, *(int(end[-1]) + 1 for end in ends[:-1])]
    assert int(ends[-1][-1]) == count
    edges = [edge for x, label in labels for edge in (x - 0.01 * len(label), x + 0.01 * len(label))]
    assert edges == sorted(edges)


@pytest.mark.parametrize(
    ("tasks", "rounds", "numbers"), [(3, 4, True), (3, 20, False), (30, 1, False)]
)
def test_a_matrix_with_too_many_cells_for_numbers_has_a_scale(tasks, rounds, numbers):
    names = [f"t{k}" for k in range(tasks)]
    trained = [[name] for name in names] * rounds
    scores = [[0.8765] * tasks for _ in range(len(trained) + 1)]
    ends = list(range(10, 10 * len(trained) + 1, 10))
    curves = {name: np.array([(end, 0.0, 0.9) for end in ends]) for name in names}
    metrics, guesses = dict.fromkeys(names, ACCURACY), dict.fromkeys(names, 0.5)
    image = stream_figure(metrics, trained, scores, curves, ends, guesses)
    texts = re.findall(r"<!-- (.*?) -->", b64decode(image.partition(",")[2]).decode())
    assert ("87.6" in texts) == numbers and ("guessing" in texts) != numbers
    assert len(texts) < 100
