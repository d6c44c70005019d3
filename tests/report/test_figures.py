import pytest

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
