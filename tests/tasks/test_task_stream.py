"""Streams with hidden boundaries: each sequence once, in the shares of its step."""

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from thalnet_mtl.errors import UserError
from thalnet_mtl.tasks.sequences import SequenceTask
from thalnet_mtl.tasks.stream import Experience
from thalnet_mtl.tasks.task_stream import TaskStream, count_sequences, task_shares

LENGTHS = {"a": 90, "b": 60, "c": 40}


def numbered(name, first, count, transform=None):
    """Return a task whose sequences hold their numbers."""
    xs = (first + torch.arange(count, dtype=torch.float32))[:, None, None].expand(-1, 2, 1)
    ys = torch.arange(count) % 2
    splits = {"train": (xs, ys), "validation": (xs[:9], ys[:9]), "test": (xs[:9], ys[:9])}
    return SequenceTask(name, splits, transform=transform).named(name, "head").load("cpu")


def stream_of(*entries, blur=0):
    stream, start = [], 0
    for number, (names, steps, shares) in enumerate(entries, 1):
        width = blur if number > 1 else 0
        stream.append(Experience(number, names, start, start + steps, shares, width))
        start += steps
    return stream


def numbers_of(mixed, seed=0):
    """Return the numbers of the sequences of every batch."""
    return [
        mixed.training_batch(step, mixed.size, 1, seed).xs[:, 0, 0].int().tolist()
        for step in range(len(mixed.counts))
    ]


TASKS = {name: (1000 * k, LENGTHS[name]) for k, name in enumerate(LENGTHS)}


def mixed_of(stream, size, **options):
    tasks = {name: numbered(name, *numbers, **options) for name, numbers in TASKS.items()}
    return TaskStream(tasks, stream, size)


def test_every_training_sequence_is_used_at_most_once_also_when_a_task_returns():
    a, b = (("a",), 4, (1.0,)), (("b",), 6, (1.0,))
    mixed = mixed_of(stream_of(a, b, (("a",), 5, (1.0,)), blur=3), size=10)
    batches = numbers_of(mixed)
    counts = Counter(number for batch in batches for number in batch)
    assert set(counts.values()) == {1} and len(counts) == 150
    assert sum(number < 1000 for number in counts) == 90  # all of a, to the last one
    assert all(len(batch) == 10 for batch in batches)
    assert numbers_of(mixed) == batches != numbers_of(mixed, seed=1)


def test_an_abrupt_boundary_is_where_the_stream_says_and_a_blurry_one_around_it():
    entries = (("a",), 5, (1.0,)), (("c",), 4, (1.0,))
    abrupt = mixed_of(stream_of(*entries), size=8)
    assert abrupt.counts.tolist() == [[8, 0]] * 5 + [[0, 8]] * 4
    assert [abrupt.tasks_at(step) for step in (4, 5)] == [["a"], ["c"]]
    blurry = mixed_of(stream_of(*entries, blur=4), size=8)
    # Shares of the next task: 1/8, 3/8, 5/8, 7/8, two steps before the boundary and two after it.
    assert blurry.counts.tolist() == [[8, 0]] * 3 + [[7, 1], [5, 3], [3, 5], [1, 7]] + [[0, 8]] * 2
    assert [blurry.tasks_at(step) for step in (4, 5)] == [["a", "c"], ["c", "a"]]


def test_shares_hold_over_steps_where_they_are_no_whole_numbers():
    mixed = mixed_of(stream_of((("a", "b", "c"), 9, (0.5, 0.3, 0.2))), size=7)
    assert mixed.counts.sum(0).tolist() == [31, 19, 13]  # of 31.5, 18.9 and 12.6
    assert (mixed.counts.sum(1) == 7).all()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "b", "ab", "bca"]), st.integers(3, 9)),
        min_size=1,
        max_size=5,
    ),
    st.integers(1, 9),
    st.integers(0, 3),
)
def test_batches_are_full_and_follow_the_shares(entries, size, blur):
    stream = stream_of(
        *((tuple(n), steps, (1 / len(n),) * len(n)) for n, steps in entries), blur=blur
    )
    shares = task_shares(stream)
    torch.testing.assert_close(shares.sum(1), torch.ones(len(shares), dtype=torch.float64))
    counts = count_sequences(shares, size)
    assert (counts >= 0).all() and (counts.sum(1) == size).all()
    assert not counts[shares == 0].any()
    error = (counts - size * shares).cumsum(0).abs().max()
    assert error < (1 if shares.shape[1] == 2 else 2) + 1e-6


def test_more_steps_than_sequences_are_refused():
    message = r"task 'b' has 60 training sequences, and its steps take 70.*Lower the steps"
    with pytest.raises(UserError, match=message):
        mixed_of(stream_of((("a",), 9, (1.0,)), (("b",), 7, (1.0,))), size=10)


def test_a_transform_draws_by_seed_and_step_not_by_the_name_of_a_task():
    def noise(batch, generator):
        return batch._replace(xs=batch.xs + torch.rand(batch.xs.shape, generator=generator))

    stream = stream_of((("a",), 2, (1.0,)), (("b",), 2, (1.0,)))
    mixed = mixed_of(stream, size=4, transform=noise)
    for task in mixed.parts:
        task.name = "another"
    batches = [mixed.training_batch(step, 4, 1, 0).xs for step in range(4)]
    fractions = torch.stack([xs - xs.floor() for xs in batches])
    assert (fractions.flatten(1).std(1) > 0.1).all()
    again = mixed_of(stream, size=4, transform=noise)
    assert all(
        torch.equal(xs, again.training_batch(step, 4, 1, 0).xs) for step, xs in enumerate(batches)
    )
