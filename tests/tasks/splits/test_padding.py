"""What is past the end of a sequence matters nothing: as if each sequence were alone."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from properties import assert_close, examples, normal, seeds

from thalnet_mtl import SequenceTask, TaskSpec
from thalnet_mtl.tasks.batch import Batch, concatenate
from thalnet_mtl.tasks.splits.sequences import SPLITS

OUTPUTS = 3


@st.composite
def ragged_tasks(draw):
    """Draw a loaded task with sequences of random lengths, and its data as lists."""
    target, every_step = draw(st.sampled_from(["class", "labels", "numbers"])), draw(st.booleans())
    tokens, seed = draw(st.booleans()), draw(seeds)
    lengths = draw(st.lists(st.integers(1, 6), min_size=2, max_size=6))
    generator = torch.Generator().manual_seed(seed)
    xs = [
        torch.randint(4, (n,), generator=generator)
        if tokens
        else torch.rand(n, 2, generator=generator)
        for n in lengths
    ]
    ys = []
    for k, n in enumerate(lengths):
        shape = ((n,) if every_step else ()) + (() if target == "class" else (OUTPUTS,))
        if target == "numbers":
            y = torch.randn(shape, generator=generator)
        else:
            y = torch.randint(2, shape, generator=generator)
        if k < 2:
            y = torch.full_like(y, k)  # not constant
        elif draw(st.booleans()) and n > 1 and every_step:
            y = y.float() if target != "class" else y
            y[0] = -100 if target == "class" else torch.nan
        ys.append(y)
    ys = ys if every_step else torch.stack(ys)
    spec = TaskSpec(4 if tokens else 2, OUTPUTS, tokens, every_step, max(lengths))
    task = SequenceTask("own", dict.fromkeys(SPLITS, (xs, ys)), spec, target=target)
    return task.load("cpu"), xs, ys, seed


def outputs_of(task, batch, seed):
    steps = (batch.ys.shape[1],) if task.spec.every_step else ()
    return normal(len(batch.ys), *steps, OUTPUTS, seed=seed).requires_grad_()


def batches_alone(task, xs):
    """Return each sequence as a batch without padding, from the data as it is stored."""
    data = task.split("train")
    return [task.to_batch(data.slice(k, k + 1)) for k in range(len(xs))]


@examples(max_examples=60)
@given(ragged_tasks())
def test_a_sequence_alone_is_not_padded(drawn):
    task, xs, ys, _ = drawn
    for x, y, batch in zip(xs, ys, batches_alone(task, xs), strict=True):
        assert torch.equal(batch.xs[0], x) and batch.xs.shape[:2] == (1, len(x))
        torch.testing.assert_close(batch.ys[0], y.to(batch.ys.dtype), equal_nan=True)


@examples(max_examples=60)
@given(ragged_tasks())
def test_loss_and_gradient_of_a_batch_are_those_of_its_sequences_alone(drawn):
    task, xs, _, seed = drawn
    batch = next(task.iterate("train", 9, 1))
    outputs = outputs_of(task, batch, seed)
    loss, count = task.loss(outputs, batch), task.count(batch)
    (gradient,) = torch.autograd.grad(loss, outputs)
    alone = batches_alone(task, xs)
    counts = torch.stack([task.count(part) for part in alone])
    losses = []
    for k, part in enumerate(alone):
        own = outputs[k : k + 1, : part.xs.shape[1]] if task.spec.every_step else outputs[k : k + 1]
        losses.append(task.loss(own, part))
    assert count == counts.sum()
    assert_close(loss, (torch.stack(losses) * counts).sum() / counts.sum())
    if task.spec.every_step:
        past = batch.past_end()
        assert past is None or not gradient[past].any()


@examples(max_examples=60)
@given(ragged_tasks(), st.integers(1, 4))
def test_sequences_that_are_joined_again_are_the_batch(drawn, size):
    task, xs, _, _ = drawn
    whole = next(task.iterate("train", 9, 1))
    for joined in (
        task.concatenate(batches_alone(task, xs)),
        task.concatenate(list(task.iterate("train", size, 1))),
    ):
        assert torch.equal(joined.xs, whole.xs)
        torch.testing.assert_close(joined.ys, whole.ys, equal_nan=True)
        lengths = [len(x) for x in xs]
        if whole.lengths is None:
            assert set(lengths) == {whole.xs.shape[1]}
        else:
            assert joined.lengths.tolist() == lengths == whole.lengths.tolist()


@examples(max_examples=40)
@given(ragged_tasks(), st.data())
def test_what_stands_past_the_end_does_not_count(drawn, data):
    task, xs, ys, _ = drawn
    lengths, time = [len(x) for x in xs], max(len(x) for x in xs) + 2
    filler = {"class": [-1, 99], "labels": [7.0], "numbers": [torch.inf]}[task.target.name]
    shape = (len(xs), time, *xs[0].shape[1:])
    spoiled = torch.full(shape, -1) if task.spec.tokens else torch.full(shape, torch.nan)
    for row, x in zip(spoiled, xs, strict=True):
        row[: len(x)] = x
    targets = ys
    if task.spec.every_step:
        first = ys[0].float() if task.target.name != "class" else ys[0]
        value = data.draw(st.sampled_from(filler))
        targets = torch.full((len(xs), time, *first.shape[1:]), value, dtype=first.dtype)
        for row, y in zip(targets, ys, strict=True):
            row[: len(y)] = y
    spec = TaskSpec(task.spec.inputs, OUTPUTS, task.spec.tokens, task.spec.every_step, time)
    splits = dict.fromkeys(SPLITS, (spoiled, targets, lengths))
    other = SequenceTask("own", splits, spec, target=task.target.name).load("cpu")
    one, two = (next(t.iterate("train", 9, 1)) for t in (task, other))
    assert torch.equal(one.xs, two.xs)
    torch.testing.assert_close(one.ys, two.ys, equal_nan=True)
    assert two.lengths is not None and two.lengths.tolist() == lengths


def test_an_inferred_shape_ignores_what_stands_past_the_end():
    xs, ys = torch.zeros(6, 4, 2), torch.full((6, 4), 255)
    ys[:, :2] = torch.arange(6)[:, None] % 3
    task = SequenceTask("own", dict.fromkeys(SPLITS, (xs, ys, [2] * 6)))
    assert task.spec.outputs == 3 and task.spec.every_step


@pytest.mark.parametrize("length", [2, 3])
def test_splits_of_different_lengths_have_the_longest(length):
    xs, ys = torch.rand(6, 4, 2), torch.arange(6) % 2
    splits = {"train": (xs, ys), "validation": (xs[:, :length], ys), "test": (xs, ys)}
    task = SequenceTask("own", splits).load("cpu")
    batch = next(task.iterate("validation", 6, 1))
    assert task.spec.steps == 4 and torch.equal(batch.xs, xs[:, :length])


@pytest.mark.parametrize("every_step", [False, True])
def test_batches_of_other_lengths_are_put_together_with_the_length_of_each(every_step):
    """Batches may be of one length each, without a statement of lengths: buckets."""
    batches = []
    for time in (3, 5, 4):
        ys = torch.ones(2, time, dtype=torch.long) if every_step else torch.ones(2).long()
        batches.append(Batch(torch.ones(2, time, 1), ys, True))
    without = concatenate(batches, -100 if every_step else None)
    assert without.lengths.tolist() == [3, 3, 5, 5, 4, 4]
    batches.append(Batch(torch.ones(2, 5, 1), batches[1].ys, True, torch.tensor([5, 2])))
    whole = concatenate(batches, -100 if every_step else None)
    assert whole.lengths.tolist() == [3, 3, 5, 5, 4, 4, 5, 2]
    assert whole.xs.sum((1, 2)).tolist() == [3, 3, 5, 5, 4, 4, 5, 5]
    if every_step:
        assert (whole.ys[:6] == 1).sum(1).tolist() == [3, 3, 5, 5, 4, 4]
    assert concatenate(batches[1:2] * 2, None).lengths is None
