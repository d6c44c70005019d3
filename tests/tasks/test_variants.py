"""A variant of a task differs from it in what is asked, and in nothing else."""

import numpy as np
import pytest
import torch

from thalnet_mtl import SequenceTask, TaskSpec, UserError
from thalnet_mtl.registry import lookup, registered
from thalnet_mtl.tasks.splits.sequences import SPLITS


def variant(of="digits_rows", **options):
    return lookup("task", "variant")(of, **options).load("cpu")


DIGITS = lookup("task", "digits_rows")().load("cpu")


def test_without_options_it_is_the_task_itself():
    same = variant()
    assert same.spec == DIGITS.spec
    for split in SPLITS:
        for ours, theirs in zip(
            same.iterate(split, 99, 1), DIGITS.iterate(split, 99, 1), strict=True
        ):
            assert torch.equal(ours.xs, theirs.xs) and torch.equal(ours.ys, theirs.ys)


def test_sequences_are_chosen_by_class_and_seed():
    task = variant(train_per_class=40, validation_per_class=3)
    for split, count in (("train", 40), ("validation", 3)):
        assert torch.bincount(task.split(split).ys.long()).tolist() == [count] * 10
    assert len(task.split("test")) == len(DIGITS.split("test"))
    again = variant(train_per_class=40)
    other = variant(train_per_class=40, sample_seed=1)
    assert torch.equal(task.split("train").xs, again.split("train").xs)
    assert not torch.equal(task.split("train").xs, other.split("train").xs)
    rows = {image.tobytes() for image in DIGITS.split("train").xs.numpy()}
    assert {image.tobytes() for image in task.split("train").xs.numpy()} <= rows


def test_labels_are_permuted_in_all_splits_alike():
    task = variant(label_order=5)
    permutation = np.random.RandomState(5).permutation(10)
    for split in SPLITS:
        expected = permutation[DIGITS.split(split).ys.numpy()]
        np.testing.assert_array_equal(task.split(split).ys.numpy(), expected)
        assert torch.equal(task.split(split).xs, DIGITS.split(split).xs)


def test_random_labels_are_independent_of_the_classes():
    ys = variant(random_labels=1).split("train").ys
    table = torch.zeros(10, 10).index_put_(
        (ys.long(), DIGITS.split("train").ys.long()), torch.tensor(1.0), accumulate=True
    )
    expected = table.sum(1, keepdim=True) * table.sum(0) / table.sum()
    assert ((table - expected) ** 2 / expected).sum() < 126  # chi-squared, 81 degrees, p = 0.001


def test_inputs_are_permuted_within_a_step_and_steps_are_joined():
    images = DIGITS.split("test").xs
    permutation = np.random.RandomState(2).permutation(8)
    assert torch.equal(variant(input_order=2).split("test").xs, images[:, :, permutation])
    joined = variant(steps_joined=2)
    assert joined.spec == TaskSpec(16, 10, steps=4)
    assert torch.equal(joined.split("test").xs[:, 1, 8:], images[:, 3])


def test_gains_change_every_number_of_a_step_alike_in_all_splits():
    task = variant(gains=3)
    random = np.random.RandomState(3)
    gains, offsets = 2 ** random.uniform(-2, 2, 8), 16 * random.uniform(-1, 1, 8)
    for split in SPLITS:
        expected = gains * DIGITS.split(split).xs.numpy() + offsets
        np.testing.assert_allclose(task.split(split).xs.numpy(), expected, rtol=1e-6, atol=1e-5)


def test_neighboring_inputs_are_averaged():
    task = variant(inputs_averaged=2)
    assert task.spec == TaskSpec(4, 10, steps=8)
    xs = DIGITS.split("test").xs.double()
    expected = (xs[..., ::2] + xs[..., 1::2]) / 2
    assert torch.equal(task.split("test").xs.double(), expected)


def test_an_order_of_pixels_comes_before_the_changes():
    def ordered():
        order = torch.arange(64).flip(0)
        return SequenceTask("o", DIGITS.splits, DIGITS.spec, scale=16.0, order=order)

    with registered("task", {"ordered": ordered}):
        xs = variant("ordered", input_order=2).split("test").xs
    flipped = DIGITS.split("test").xs.flatten(1).flip(1).view(-1, 8, 8)
    assert torch.equal(xs, flipped[:, :, np.random.RandomState(2).permutation(8)])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"of": "digit_rows"}, "Did you mean 'digits_rows'"),
        ({"of": {"permutation": 3}}, "of needs the name of a task"),
        ({"of": {"name": "permuted_mnist", "permuation": 1}}, "Did you mean 'permutation'"),
        ({"of": "text8"}, "expected a task with one class a sequence"),
        ({"of": "digits_stream"}, "expected a task with one class a sequence"),
        ({"of": "digits_labels"}, "expected a task with one class a sequence"),
        ({"train_per_class": 500}, r"train: class 0 has \d+ sequences; expected 500"),
        ({"steps_joined": 3}, "steps_joined 3 does not divide its 8 steps"),
        ({"steps_joined": 0}, "steps_joined is 0; expected 1 or more"),
        ({"label_order": -1}, "label_order is -1; expected 0 or more"),
    ],
)
def test_what_cannot_be_varied_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        variant(**options)


def test_a_variant_of_a_standardized_task_is_standardized(tmp_path):
    xs = np.random.default_rng(0).normal(500, 20, (60, 4, 2)).astype("float32")
    np.savez(tmp_path / "a.npz", xs=xs, ys=np.arange(60) % 2)
    of = {"name": "npz", "path": str(tmp_path / "a.npz"), "standardize": True}
    task = variant(of, steps_joined=2)
    batch = next(task.iterate("train", 100, 0))
    assert batch.xs.shape[1:] == (2, 4) and abs(batch.xs.mean()) < 1e-4
