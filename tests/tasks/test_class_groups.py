"""Groups of sequences by class: the rarest one counts, whatever the shape of the targets."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from thalnet_mtl.tasks.class_groups import ClassGroups
from thalnet_mtl.tasks.sequences import SequenceTask
from thalnet_mtl.tasks.text import TextTask
from thalnet_mtl.topology.spec import TaskSpec

SPLITS = ("train", "validation", "test")


def groups_of(ys, target="class", outputs=3, every_step=False):
    """Return the groups of a task with these targets, and the group of each sequence."""
    xs, spec = torch.rand(len(ys), 4, 2), TaskSpec(2, outputs, every_step=every_step, steps=4)
    task = SequenceTask("t", lambda: dict.fromkeys(SPLITS, (xs, ys)), spec, target=target)
    task.shares_head = True  # so that any targets are accepted
    groups = ClassGroups(task.load("cpu"), 4)
    return groups, groups.of(ys).tolist()


def test_with_one_class_a_sequence_it_is_that_class():
    groups, numbers = groups_of(torch.tensor([2, 0, 0, -100, 2, 2]))
    assert groups.sizes == {0: 2, 2: 3} and [numbers[k] for k in (0, 1, 2, 4, 5)] == [2, 0, 0, 2, 2]


def test_of_the_classes_at_every_step_the_rarest_counts():
    ys = torch.tensor([[0, 0, 1, 0], [0, 1, 1, 1], [0, 0, 0, 0], [1, 2, 0, 0], [0, -100, 1, 0]])
    groups, numbers = groups_of(ys, every_step=True)
    assert numbers == [1, 1, 0, 2, 1] and groups.sizes == {0: 1, 1: 3, 2: 1}


def test_of_several_labels_the_rarest_that_is_1_counts_and_none_is_a_group():
    nan = torch.nan
    ys = torch.tensor([[1, 0, 1.0], [0, 0, 0], [0, 0, 1], [1, 1, 1], [nan, 0, 1], [nan, nan, nan]])
    groups, numbers = groups_of(ys, target="labels")
    assert numbers[:5] == [0, 3, 2, 1, 2] and groups.sizes == {0: 1, 1: 1, 2: 2, 3: 1}
    at_steps = ys[:, None].expand(-1, 4, -1).clone()
    at_steps[:, 1:] = 0
    assert groups_of(at_steps, "labels", every_step=True)[1] == numbers


@pytest.mark.parametrize("kind", ["numbers", "text"])
def test_numbers_and_texts_are_one_group(kind):
    if kind == "text":
        text = TextTask("t", lambda: dict.fromkeys(SPLITS, torch.arange(41) % 5), vocabulary=5)
        groups = ClassGroups(text.load("cpu"), 8)
        assert groups.sizes == {0: 5}
    else:
        groups, numbers = groups_of(torch.rand(6, 1), target="numbers", outputs=1)
        assert numbers == [0] * 6 and groups.sizes == {0: 6}
    assert not groups.has_classes


@given(data=st.data())
def test_every_class_that_occurs_is_the_group_of_some_sequence_unless_a_rarer_one_is_there(data):
    shape = data.draw(st.tuples(st.integers(1, 12), st.just(4)))
    ys = torch.tensor(
        data.draw(st.lists(st.lists(st.integers(0, 2), min_size=4, max_size=4),
                           min_size=shape[0], max_size=shape[0]))
    )  # fmt: skip
    groups, numbers = groups_of(ys, every_step=True)
    counts = [int((ys == c).any(1).sum()) for c in range(3)]
    for row, number in zip(ys, numbers, strict=True):
        assert number in row.tolist()
        assert counts[number] == min(counts[c] for c in row.tolist())
    rarest = min((c for c in range(3) if counts[c]), key=lambda c: counts[c])
    assert groups.sizes[min(numbers, key=lambda c: (counts[c], c))] and counts[rarest] >= 1
    assert sum(groups.sizes.values()) == len(ys)
