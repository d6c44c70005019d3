import gc
import inspect

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from toy_tasks import toy_rows, toy_text

from thalnet_mtl.data import datasets as data
from thalnet_mtl.errors import UserError
from thalnet_mtl.ops.inputs import first_input, inputs_by_name
from thalnet_mtl.registry import entries, lookup
from thalnet_mtl.tasks import images
from thalnet_mtl.tasks.images import VALIDATION
from thalnet_mtl.tasks.sequences import SequenceTask
from thalnet_mtl.tasks.text import TextTask
from thalnet_mtl.topology.spec import TaskSpec

SIZES = {"mnist": (28, 28), "cifar10": (32, 32, 3)}


@pytest.fixture(autouse=True)
def counted_data(monkeypatch):
    """Replace the data sets by some of the same length in which all images differ."""

    def images(name):
        train, test = {"mnist": (60_000, 10_000), "cifar10": (50_000, 10_000)}[name]
        xs = np.zeros((train + test, *SIZES[name]), np.uint8)
        numbers = np.arange(train + test)
        for k in range(3):
            xs.reshape(len(xs), -1)[:, k] = numbers >> (8 * k) & 255
        ys = (numbers % 10).astype(np.uint8)
        return xs[:train], ys[:train], xs[train:], ys[train:]

    monkeypatch.setattr(data, "load_images", images)
    monkeypatch.setattr(data, "load_text", lambda name: (np.arange(100_000) % 251).astype(np.uint8))
    label = data.text_label
    texts = ("text8", "enwik8")
    monkeypatch.setattr(
        data, "text_label", lambda name: f"{name} (some)" if name in texts else label(name)
    )


def ready_tasks():
    """Return the names of the tasks that need no options, such as the path of a file."""
    return [
        name
        for name, entry in entries("task").items()
        if all(p.default is not p.empty for p in inspect.signature(entry).parameters.values())
    ]


@pytest.mark.parametrize("name", ready_tasks())
def test_every_task_keeps_its_contract(name):
    task = lookup("task", name)()
    spec, kind = task.spec, task.target.name
    assert task.name == name and spec.outputs > (kind == "class")
    task.load("cpu")
    for split in ("train", "validation", "test"):
        assert task.batches_per_epoch(split, 5, 3) > 0
        batch = next(task.iterate(split, 5, 3))
        assert len(first_input(batch.xs)) == len(batch.ys) == min(5, len(task.sequences(split, 3)))
        assert batch.starts_sequence and task.count(batch) > 0
    batch = task.training_batch(3, 5, 3, seed=0)
    again = inputs_by_name(task.training_batch(3, 5, 3, seed=0).xs)
    parts = inputs_by_name(batch.xs)
    assert parts.keys() == again.keys()
    assert all(torch.equal(xs, again[name]) for name, xs in parts.items())
    time = first_input(batch.xs).shape[1]
    steps = [time] if spec.every_step else []
    assert list(batch.ys.shape) == [5, *steps, *([] if kind == "class" else [spec.outputs])]
    values = batch.ys[task.target.present(batch.ys)]
    assert batch.ys.dtype == (torch.int64 if kind == "class" else torch.float32)
    if kind != "numbers":
        assert values.min() >= 0 and values.max() <= (1 if kind == "labels" else spec.outputs - 1)
    if spec.tokens:
        assert batch.xs.shape == (5, 3)
        return
    if batch.lengths is None:
        assert spec.steps in (0, time)
    else:  # cut after the longest of the batch, which the longest of the task may exceed
        assert batch.lengths.max() == time and (spec.steps == 0 or time <= spec.steps)
    low, high = (-20, 20) if task.scale == 1 else (0, 1)  # standardized numbers, or pixels
    for input_name, xs in parts.items():
        assert xs.shape == (5, time, spec.input_width(input_name))
        assert low <= xs.min() and xs.max() <= high


@pytest.mark.parametrize("name", ["permuted_mnist", "mnist_rows", "cifar10_rows", "digits_rows"])
def test_parts_are_disjoint_and_fixed(name):
    task = lookup("task", name)().load("cpu")
    again = lookup("task", name)().load("cpu")
    images = {}
    for split in ("train", "validation", "test"):
        rows = task.split(split)
        assert torch.equal(rows.xs, again.split(split).xs)
        images[split] = {image.tobytes() for image in rows.xs.numpy()}
        assert rows.xs.dtype == torch.uint8
    if name != "digits_rows":  # scikit-learn's digits hold a few identical images
        assert not images["train"] & images["validation"]
        assert not images["train"] & images["test"]
        assert len(images["validation"]) == VALIDATION
    assert sum(len(task.split(split).ys) for split in images) == {
        "cifar10_rows": 60_000,
        "digits_rows": 1797,
    }.get(name, 70_000)


def test_the_digits_are_those_of_scikit_learn():
    digits = load_digits()
    splits = lookup("task", "digits_rows")().read_splits()
    xs, ys = (np.concatenate(parts) for parts in zip(*splits.values(), strict=True))
    order = np.random.RandomState(0).permutation(len(ys))
    np.testing.assert_array_equal(xs, digits.images[order])
    np.testing.assert_array_equal(ys, digits.target[order])


def read_test_images(name, **options):
    """Return the inputs of all test images as a network reads them: (N, pixels)."""
    task = lookup("task", name)(**options).load("cpu")
    return torch.cat([batch.xs.flatten(1) for batch in task.iterate("test", 999, 1)])


def test_a_permutation_moves_whole_pixels_the_same_way_in_every_image():
    plain, first = read_test_images("mnist_rows"), read_test_images("permuted_mnist")
    second = read_test_images("permuted_mnist", permutation=1)
    order = np.random.RandomState(0).permutation(784)
    assert torch.equal(first, plain[:, order])
    assert not torch.equal(first, second)
    assert sorted(order) == list(range(784)) and list(order[:4]) == [693, 85, 647, 392]


def test_all_permutations_share_the_images_until_no_task_needs_them(monkeypatch):
    read, loaded = data.load_images, []
    monkeypatch.setattr(data, "load_images", lambda name: loaded.append(name) or read(name))
    images._loaded.clear()  # of earlier tests
    tasks = [lookup("task", "permuted_mnist")(permutation=k).load("cpu") for k in range(5)]
    tasks.append(lookup("task", "mnist_rows")().named("rows").load("cpu"))
    for split in ("train", "validation", "test"):
        assert len({task.split(split).xs.data_ptr() for task in tasks}) == 1
    assert loaded == ["mnist"] and len(images._loaded) == 1
    del tasks
    gc.collect()
    assert not images._loaded


def test_cifar_rows_are_the_pixels_of_a_row_with_their_colors_together():
    task = lookup("task", "cifar10_rows")().load("cpu")
    image = data.load_images("cifar10")[2][300]
    row = task.split("test").xs[300][0]
    assert row[:3].tolist() == image[0, 0].tolist() and row[3:6].tolist() == image[0, 1].tolist()


def test_an_epoch_shows_every_sequence_once_and_the_next_in_another_order():
    task = toy_rows().load("cpu")
    epochs = []
    for epoch in range(2):
        xs = torch.cat([task.training_batch(30 * epoch + k, 10, 1, seed=3).xs for k in range(30)])
        epochs.append(xs.flatten(1))
    everything = task.split("train").xs.flatten(1) / 255
    for xs in epochs:
        assert torch.equal(torch.unique(xs, dim=0), torch.unique(everything, dim=0))
    assert not torch.equal(*epochs)
    assert not torch.equal(epochs[0][:10], task.training_batch(0, 10, 1, seed=4).xs.flatten(1))


@given(size=st.integers(1, 9), chunk=st.integers(1, 20))
def test_text_is_read_in_order_each_place_on_its_own(size, chunk):
    task = TextTask(
        "t", lambda: dict.fromkeys(("train", "validation", "test"), torch.arange(200)), 200
    )
    task.load("cpu")
    batches = list(task.iterate("test", size, chunk))
    xs, ys = (torch.cat([batch[k] for batch in batches], dim=1) for k in (0, 1))
    assert torch.equal(ys, xs + 1)
    assert torch.equal(xs, xs[:, :1] + torch.arange(xs.shape[1]))
    length = 199 // size
    assert xs[:, 0].tolist() == [place * length for place in range(size)]
    assert xs.shape[1] == length  # the last chunk of an evaluation may be shorter
    trained = task.batches_per_epoch("train", size, chunk) * chunk
    assert trained == length - length % chunk
    assert [batch.starts_sequence for batch in batches] == [True] + [False] * (len(batches) - 1)
    epoch = task.batches_per_epoch("train", size, chunk)
    assert torch.equal(
        task.training_batch(epoch + 1, size, chunk, 0).xs, task.training_batch(1, size, chunk, 0).xs
    )


def test_text_is_cut_90_5_5_and_carries_the_label_of_its_data():
    task = lookup("task", "text8")().load("cpu")
    lengths = [len(task.split(split)) for split in ("train", "validation", "test")]
    assert lengths == [90_000, 5_000, 5_000]
    whole = torch.cat([task.split(split) for split in ("train", "validation", "test")])
    assert torch.equal(whole, torch.from_numpy(data.load_text("text8")))
    assert task.label == "text8 (some)" and task.name == "text8"


@pytest.mark.parametrize(
    ("xs", "ys", "message"),
    [
        (
            torch.zeros(5, 4, 2),
            torch.zeros(5),
            r"sequences have shape \(5, 4, 2\); expected \(5, 4, 3\)",
        ),
        (torch.zeros(6, 4, 3), torch.zeros(5), "6 sequences but 5 targets"),
        (torch.zeros(5, 4, 3), torch.full((5,), 2), r"classes must lie in 0 … 1"),
        (torch.full((5, 4, 3), torch.inf), torch.zeros(5), "row 0 holds NaN or an infinite"),
    ],
)
def test_rows_of_a_user_are_checked(xs, ys, message):
    def load():
        return dict.fromkeys(("train", "validation", "test"), (xs, ys))

    with pytest.raises(UserError, match=message):
        SequenceTask("mine", load, TaskSpec(3, 2, steps=4), scale=255).load("cpu")


def test_text_of_a_user_is_checked():
    def load():
        return dict.fromkeys(("train", "validation", "test"), torch.tensor([1, 9]))

    with pytest.raises(UserError, match="token 9 at place 1 is not below 5"):
        TextTask("mine", load, 5).load("cpu")
    with pytest.raises(UserError, match="has no split 'validation'"):
        TextTask("mine", lambda: {"train": torch.tensor([1, 2])}, 5).load("cpu")


def test_an_unknown_split_names_the_closest():
    with pytest.raises(UserError, match=r"unknown split 'tests'.*Did you mean 'test'"):
        list(toy_text().load("cpu").iterate("tests", 2, 2))


@pytest.mark.parametrize("kind", ["split_mnist", "split_cifar10"])
def test_split_tasks_hold_two_classes_each_and_all_ten_together(kind):
    seen = []
    for part in range(5):
        separate = lookup("task", f"{kind}_{part}")()
        shared = lookup("task", f"{kind}_{part}")().named("part", "all")
        assert (separate.spec.outputs, shared.spec.outputs) == (2, 10)
        classes = shared.load("cpu").split("test").ys
        assert classes.unique().tolist() == list(shared.classes_seen)
        assert (separate.load("cpu").split("test").ys + 2 * part == classes).all()
        seen += shared.classes_seen
    assert seen == list(range(10))
