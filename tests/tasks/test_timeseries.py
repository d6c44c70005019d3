"""Tests of the tasks on time series. The first use of a data set downloads 6 MB."""

from math import log, log10

import numpy as np
import pytest
import torch

from thalnet_mtl.errors import UserError
from thalnet_mtl.registry import lookup
from thalnet_mtl.tasks.timeseries import ts

# Cases of the published training and test files, channels, classes (0: a number), lengths.
PUBLISHED = {
    "japanese_vowels": (270, 370, 12, 9, (7, 29)),
    "pickup_gesture": (50, 50, 1, 10, (29, 361)),
    "basic_motions": (40, 40, 6, 4, (100, 100)),
    "gun_point": (50, 150, 1, 2, (150, 150)),
    "italy_power_demand": (67, 1029, 1, 2, (24, 24)),
    "covid3month": (140, 61, 1, 0, (84, 84)),
}
# Windows of each split, steps, inputs.
FORECASTS = {
    "solar": ((144, 2, 3), 48, 3),
    "airline": ((71, 2, 2), 24, 3),
    "lynx": ((56, 2, 2), 20, 1),
}


def load(name, **options):
    return lookup("task", name)(**options).load("cpu")


@pytest.mark.parametrize("name", PUBLISHED)
def test_cases_classes_and_lengths_are_as_published(name):
    training, test, channels, classes, (shortest, longest) = PUBLISHED[name]
    task = load(name)
    train, validation, last = (task.split(split) for split in ("train", "validation", "test"))
    assert len(train.ys) + len(validation.ys) == training and len(last.ys) == test
    assert 0.17 < len(validation.ys) / training <= 0.2
    assert (task.spec.inputs, task.spec.outputs) == (channels, classes or 1)
    lengths = [
        torch.full((len(part.ys),), part.xs.shape[1]) if part.lengths is None else part.lengths
        for part in (train, validation, last)
    ]
    assert (torch.cat(lengths).min(), torch.cat(lengths).max()) == (shortest, longest)
    assert task.spec.steps == (longest if shortest == longest else 0)
    if classes:
        assert task.classes_seen == tuple(range(classes))
        assert all(len(part.ys.unique()) == classes for part in (train, validation, last))


@pytest.mark.parametrize("name", FORECASTS)
def test_forecasts_have_windows_of_one_length(name):
    windows, steps, inputs = FORECASTS[name]
    task = load(name)
    for split, count in zip(("train", "validation", "test"), windows, strict=True):
        assert task.split(split).xs.shape == (count, steps, inputs)
        assert task.split(split).ys.shape == (count, steps, 1)
    assert load(name, steps=10, horizon=3).split("train").ys.shape[1:] == (10, 3)


def test_windows_that_do_not_fit_are_refused_before_anything_is_read():
    with pytest.raises(UserError, match="the train part has 95 steps; windows of 200 steps with h"):
        lookup("task", "airline")(steps=200)
    with pytest.raises(UserError, match="the validation part has 19 steps; windows of 20 steps wi"):
        lookup("task", "lynx")(horizon=25)
    with pytest.raises(UserError, match="horizon 0: expected at least 2 and 1"):
        lookup("task", "solar")(horizon=0)


def test_the_first_and_the_last_values_of_the_series_are_those_of_the_books():
    def ends(name):
        task = load(name)
        return task.split("train").ys[0, 0, 0].item(), task.split("test").ys[-1, -1, 0].item()

    # Box and Jenkins: 112, 118, 132 … 390, 432 thousand. Elton and Nicholson: 269, 321 … 3396.
    assert ends("airline") == pytest.approx((log(132 / 118), log(432 / 390)))
    first, last = ends("lynx")
    assert last - first == pytest.approx(log10(3396) - log10(321), rel=1e-5)
    shares = torch.cat([part.ys for part in load("solar").splits.values()])
    assert shares.nan_to_num().max().item() == pytest.approx(0.55863)


def test_deaths_are_per_hundred_cases():
    task = load("covid3month")
    shares = torch.cat([task.split(name).ys for name in ("train", "validation")])
    assert shares.max().item() == pytest.approx(100 * 0.17647058823529413)


@pytest.fixture
def write(tmp_path):
    """Write a file of cases and return its path."""

    def write(name, cases, header="@classLabel true a b"):
        lines = [header, "@data", *(":".join(case) for case in cases)]
        (tmp_path / name).write_text("\n".join(lines))
        return str(tmp_path / name)

    return write


def test_every_fifth_case_of_a_class_validates_and_training_alone_scales(write):
    # The values of the training cases but the fifth of each class are 1 and 3: mean 2, deviation 1.
    cases = [("1,3", "8,8", label) for label in "aababbaba"]
    fifth = {label: [k for k, case in enumerate(cases) if case[2] == label][4:5] for label in "ab"}
    assert fifth == {"a": [8], "b": []}
    cases[8] = ("100,2,100", "8,8,9", "a")
    test = [("4", "8", "b"), ("2,2", "7,8", "a")]
    task = ts(write("train.ts", cases), write("test.ts", test)).load("cpu")
    train, validation, last = (task.split(name) for name in ("train", "validation", "test"))
    assert train.ys.tolist() == [0, 0, 1, 0, 1, 1, 0, 1]
    assert validation.ys.tolist() == [0] and last.ys.tolist() == [1, 0]
    # A channel that is constant in the training part keeps its deviation of 1.
    np.testing.assert_array_equal(train.xs[0], [[-1, 0], [1, 0]])
    np.testing.assert_array_equal(validation.xs[0], [[98, 0], [0, 0], [98, 1]])
    np.testing.assert_array_equal(last.xs, [[[2, 0], [0, 0]], [[0, -1], [0, 0]]])
    assert last.lengths.tolist() == [1, 2]


def test_numbers_of_a_file_are_left_as_they_are(write):
    header = "@targetLabel true"
    cases = [("1,3", str(number)) for number in range(6)]
    path = write("numbers.ts", cases, header)
    task = ts(path, path).load("cpu")
    assert task.split("train").ys.flatten().tolist() == [0, 1, 2, 3, 5]
    assert task.split("validation").ys.flatten().tolist() == [4]


def test_files_that_do_not_belong_together_are_refused(write):
    train = write("train.ts", [("1,3", "a")])
    channels = write("channels.ts", [("1", "2", "a")])
    numbers = write("numbers.ts", [("1", "2")], "@targetLabel true")
    for test in (channels, numbers):
        with pytest.raises(UserError, match="differ in their channels or classes"):
            ts(train, test)


def test_a_series_that_lacks_a_value_is_named_by_its_case(write):
    train = write("train.ts", [("1,3", "a"), ("1,2,?", "b")])
    with pytest.raises(UserError, match=r"train.ts: case 2 lacks a value at step 3"):
        ts(train, train)
