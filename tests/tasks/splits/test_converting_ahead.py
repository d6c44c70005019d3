"""Training batches that are converted several at a time are those converted one by one."""

import pytest
import torch

from thalnet_mtl.tasks.batch import Batch
from thalnet_mtl.tasks.sequences import SequenceTask
from thalnet_mtl.tasks.splits import reader
from thalnet_mtl.tasks.splits.reader import ShuffledReader

COUNT = 103


def a_task(width: int = 16, **options):
    generator = torch.Generator().manual_seed(3)
    xs = torch.randint(256, (COUNT, 4, width), generator=generator, dtype=torch.uint8)
    order = torch.randperm(4 * width, generator=generator)
    data = xs, torch.arange(COUNT) % 3
    splits = dict.fromkeys(("train", "validation", "test"), data)
    return SequenceTask("a", splits, scale=255, order=order, **options).load("cpu")


def conversions(task: SequenceTask, monkeypatch) -> list[int]:
    """Return a list that gets the number of sequences of each conversion from now on."""
    counts: list[int] = []
    convert = task._reader.convert

    def counted(data):
        counts.append(len(data))
        return convert(data)

    monkeypatch.setattr(task._reader, "convert", counted)
    return counts


@pytest.mark.parametrize("size", [1, 8, 10, 50, COUNT])
@pytest.mark.parametrize("most", [1, 2 * 8 * 256, 2**21])
def test_batches_do_not_depend_on_how_many_are_converted_at_once(size, most, monkeypatch):
    task, alone = a_task(), a_task()
    monkeypatch.setattr(reader, "CONVERTED_BYTES", most)
    alone._reader = ShuffledReader(alone.split("train"), alone.to_batch, alike=False)
    steps = [*range(2 * COUNT // size + 2), 0, 3, 1]  # over the end of an epoch, and back
    for step in steps:
        for seed in (0, 1):
            batch, expected = (t.training_batch(step, size, 0, seed) for t in (task, alone))
            assert len(batch.ys) == size
            torch.testing.assert_close(batch.xs, expected.xs, rtol=0, atol=0)
            assert torch.equal(batch.ys, expected.ys)


def test_several_batches_are_converted_at_once(monkeypatch):
    task = a_task()
    counts = conversions(task, monkeypatch)
    for step in range(COUNT // 10):
        task.training_batch(step, 10, 0, 0)
    assert counts == [1, COUNT]  # one to know the size, then all


@pytest.mark.parametrize("options", [{"width": 5}, {"transform": lambda batch, generator: batch}])
def test_batches_are_converted_one_by_one_where_it_might_show(options, monkeypatch):
    """Where they would begin within a vector, or where a transform may write to them."""
    task = a_task(**options)
    counts = conversions(task, monkeypatch)
    for step in range(4):
        task.training_batch(step, 10, 0, 0)
    assert [count for count in counts if count > 1] == [10] * 4


def test_a_transform_that_writes_to_a_batch_leaves_no_trace():
    def brighten(batch: Batch, generator: torch.Generator) -> Batch:
        batch.xs.add_(1)
        return batch

    task = a_task(transform=brighten)
    first, again = (task.training_batch(0, 10, 0, 0).xs.clone() for _ in range(2))
    assert torch.equal(first, again)
