"""The built-in image tasks: MNIST, CIFAR-10 and scikit-learn's digits, read row by row.

The last 5,000 training images of MNIST and CIFAR-10 are the validation split.
"""

from collections.abc import Callable
from functools import partial
from importlib.metadata import distribution

import numpy as np
from einops import rearrange

from thalnet_mtl.config.schema import TaskConfig
from thalnet_mtl.registry import lookup, register
from thalnet_mtl.tasks import datasets
from thalnet_mtl.tasks.rows import RowsTask

VALIDATION = 5_000

Splits = dict[str, tuple[np.ndarray, np.ndarray]]  # images and labels of each split


@register("task", "permuted_mnist")
def permuted_mnist(config: TaskConfig) -> RowsTask:
    """MNIST under a fixed permutation of its pixels (seed: task.permutation), 28 rows of 28."""
    # NumPy's compatibility policy freezes RandomState: the order of a seed never changes.
    order = np.random.RandomState(config.permutation).permutation(28 * 28)

    def permute(images: np.ndarray) -> np.ndarray:
        return images.reshape(len(images), -1)[:, order].reshape(images.shape)

    read_splits = partial(_read_splits, "mnist", permute)
    return RowsTask("permuted_mnist", (28, 28), 10, read_splits, source="mnist")


@register("task", "mnist_rows")
def mnist_rows(config: TaskConfig) -> RowsTask:
    """MNIST from top to bottom, 28 rows of 28 pixels."""
    read_splits = partial(_read_splits, "mnist", lambda images: images)
    return RowsTask("mnist_rows", (28, 28), 10, read_splits, source="mnist")


@register("task", "cifar10_rows")
def cifar10_rows(config: TaskConfig) -> RowsTask:
    """CIFAR-10 from top to bottom, 32 rows of 32 pixels in 3 colors."""

    def to_rows(images: np.ndarray) -> np.ndarray:
        return rearrange(images, "batch row column color -> batch row (column color)")

    read_splits = partial(_read_splits, "cifar10", to_rows)
    return RowsTask("cifar10_rows", (32, 96), 10, read_splits, source="cifar10")


@register("task", "digits_rows")
def digits_rows(config: TaskConfig) -> RowsTask:
    """The 1,797 digits that come with scikit-learn, 8 rows of 8 pixels; no download."""
    return RowsTask("digits_rows", (8, 8), 10, _read_digits, scale=16.0)


@register("task", "digits_parity")
def digits_parity(config: TaskConfig) -> RowsTask:
    """Odd or even? The 1,797 digits of digits_rows two rows at a time, 4 rows of 16."""

    def read_splits() -> Splits:
        pairs = "digit (row two) column -> digit row (two column)"
        return {
            name: (rearrange(xs, pairs, two=2), ys % 2) for name, (xs, ys) in _read_digits().items()
        }

    return RowsTask("digits_parity", (4, 16), 2, read_splits, scale=16.0)


def split_task(name: str, whole: str, part: int) -> Callable[[TaskConfig], RowsTask]:
    """Return the function that makes a task of two of the ten classes of another task.

    With a head of its own the task has the classes 0 and 1; with a head that it shares (``head``
    of its configuration) the two classes keep their numbers among the ten.
    """
    classes = (2 * part, 2 * part + 1)

    def make_task(config: TaskConfig) -> RowsTask:
        shared = bool(getattr(config, "head", ""))
        task = lookup("task", whole)(config)

        def read_splits() -> Splits:
            splits = {}
            for split, (xs, ys) in task.read_splits().items():
                chosen = np.isin(ys, classes)
                splits[split] = xs[chosen], ys[chosen] - (0 if shared else classes[0])
            return splits

        return RowsTask(
            name,
            (task.spec.steps, task.spec.inputs),
            10 if shared else 2,
            read_splits,
            source=task.source,
            classes_seen=classes if shared else (),
        )

    make_task.__doc__ = (
        f"Classes {classes[0]} and {classes[1]} of {whole}; with a shared head, of ten."
    )
    return make_task


for _part in range(5):
    for _stream, _whole in (("split_mnist", "mnist_rows"), ("split_cifar10", "cifar10_rows")):
        _name = f"{_stream}_{_part}"
        register("task", _name)(split_task(_name, _whole, _part))


def _read_splits(source: str, transform: Callable[[np.ndarray], np.ndarray]) -> Splits:
    """Return the splits of an image data set, with every image transformed."""
    images, labels, test_images, test_labels = datasets.load_images(source)
    images, test_images = transform(images), transform(test_images)
    return {
        "train": (images[:-VALIDATION], labels[:-VALIDATION]),
        "validation": (images[-VALIDATION:], labels[-VALIDATION:]),
        "test": (test_images, test_labels),
    }


def _read_digits() -> Splits:
    """Return scikit-learn's digits, shuffled: 1,297 train, 250 validate and 250 test.

    The file is read without scikit-learn, whose import takes longer than training on its digits.
    """
    path = distribution("scikit-learn").locate_file("sklearn/datasets/data/digits.csv.gz")
    table = np.loadtxt(str(path), np.uint8, delimiter=",")
    images, labels = table[:, :-1].reshape(-1, 8, 8), table[:, -1]
    order = np.random.RandomState(0).permutation(len(labels))
    parts = np.split(order, [1297, 1547])
    return {
        name: (images[part], labels[part])
        for name, part in zip(("train", "validation", "test"), parts, strict=True)
    }
