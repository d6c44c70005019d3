"""Tests of the labels and of the streams of scikit-learn's digits."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from thalnet_mtl.errors import UserError
from thalnet_mtl.tasks.digits import ROUNDS, digits_labels, digits_stream, read_digits


def test_every_label_of_every_digit():
    task = digits_labels().load("cpu")
    expected = {0: "0001", 1: "1000", 2: "0010", 3: "1010", 4: "0000"}
    expected |= {5: "1110", 6: "0101", 7: "1110", 8: "0101", 9: "1101"}  # odd, above 4, prime, loop
    for name, (_, classes) in read_digits().items():
        labels = task.split(name).ys
        rows = ["".join(str(int(label)) for label in row) for row in labels]
        assert rows == [expected[digit] for digit in classes]


def test_the_digits_are_all_of_those_of_scikit_learn():
    images, classes = load_digits(return_X_y=True)
    parts = read_digits().values()
    pairs = zip(*(np.concatenate(part) for part in zip(*parts, strict=True)), strict=True)
    stored = sorted((*image.flatten().tolist(), digit) for image, digit in pairs)
    assert stored == sorted(
        (*image, digit) for image, digit in zip(images.tolist(), classes, strict=True)
    )


@pytest.mark.parametrize("digits", [1, 5])
def test_a_stream_has_the_class_of_the_digit_at_each_of_its_rows(digits):
    task = digits_stream(digits).load("cpu")
    for name, (images, classes) in read_digits().items():
        stream, count = task.split(name), len(classes) // digits
        assert stream.xs.shape == ((ROUNDS if name == "train" else 1) * count, 8 * digits, 8)
        seen = stream.xs.reshape(-1, 64), stream.ys.reshape(-1, 8)
        assert (seen[1] == seen[1][:, :1]).all()
        known = {image.tobytes(): label for image, label in zip(images, classes, strict=True)}
        labels = [known[image.numpy().tobytes()] for image in seen[0]]
        assert labels == seen[1][:, 0].tolist()
        _, uses = torch.unique(seen[0], dim=0, return_counts=True)
        assert uses.max() == (ROUNDS if name == "train" else 1)


def test_the_number_of_digits_in_a_stream_is_checked():
    with pytest.raises(UserError, match="digits is 251, expected 1 … 250"):
        digits_stream(251)
