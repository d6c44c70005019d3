"""The built-in image tasks: MNIST and CIFAR-10, read row by row.

The last 5,000 training images of MNIST and CIFAR-10 are the validation split.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Self, cast

import numpy as np
from einops import rearrange

from thalnet_mtl.errors import UserError
from thalnet_mtl.registry import lookup, register
from thalnet_mtl.tasks import datasets
from thalnet_mtl.tasks.sequences import SequenceTask
from thalnet_mtl.topology.spec import TaskSpec

VALIDATION = 5_000

Splits = dict[str, tuple[np.ndarray, np.ndarray]]  # images and labels of each split


@register("task", "permuted_mnist")
def permuted_mnist(permutation: int = 0) -> SequenceTask:
    """MNIST under a fixed permutation of its pixels (its seed: permutation), 28 rows of 28."""
    if not 0 <= permutation < 2**32:
        raise UserError(f"permutation must be between 0 and {2**32 - 1}, got {permutation}.")
    # NumPy's compatibility policy freezes RandomState: the order of a seed never changes.
    order = np.random.RandomState(permutation).permutation(28 * 28)

    def permute(images: np.ndarray) -> np.ndarray:
        return images.reshape(len(images), -1)[:, order].reshape(images.shape)

    read_splits = partial(_read_splits, "mnist", permute)
    return SequenceTask(
        "permuted_mnist", read_splits, TaskSpec(28, 10, steps=28), scale=255, source="mnist"
    )


@register("task", "mnist_rows")
def mnist_rows() -> SequenceTask:
    """MNIST from top to bottom, 28 rows of 28 pixels."""
    read_splits = partial(_read_splits, "mnist", lambda images: images)
    return SequenceTask(
        "mnist_rows", read_splits, TaskSpec(28, 10, steps=28), scale=255, source="mnist"
    )


@register("task", "cifar10_rows")
def cifar10_rows() -> SequenceTask:
    """CIFAR-10 from top to bottom, 32 rows of 32 pixels in 3 colors."""

    def to_rows(images: np.ndarray) -> np.ndarray:
        return rearrange(images, "batch row column color -> batch row (column color)")

    read_splits = partial(_read_splits, "cifar10", to_rows)
    return SequenceTask(
        "cifar10_rows", read_splits, TaskSpec(96, 10, steps=32), scale=255, source="cifar10"
    )


class ClassPair(SequenceTask):
    """A task of two of the classes of another task.

    With a head of its own it has the classes 0 and 1; with a head that it shares, the two classes
    keep their numbers among all classes of the other task.

    Args:
        name: name of the task.
        whole: task with all classes, before its data is loaded.
        classes: the two classes.
    """

    def __init__(self, name: str, whole: SequenceTask, classes: tuple[int, int]):
        spec = replace(whole.spec, outputs=2)
        read_splits = partial(_read_pair, whole, classes, first=classes[0])
        super().__init__(name, read_splits, spec, scale=whole.scale, source=whole.source)
        self._whole, self._pair = whole, classes

    def named(self, name: str, head: str = "") -> Self:
        task = super().named(name, head)
        if head:
            task.spec = self._whole.spec
            task.read_splits = partial(_read_pair, self._whole, self._pair)
        return task


def split_task(name: str, whole: str, part: int) -> Callable[[], ClassPair]:
    """Return the function that makes a task of two of the ten classes of another task."""
    classes = (2 * part, 2 * part + 1)

    def make_task() -> ClassPair:
        return ClassPair(name, lookup("task", whole)(), classes)

    make_task.__doc__ = (
        f"Classes {classes[0]} and {classes[1]} of {whole}; with a shared head, of ten."
    )
    return make_task


for _part in range(5):
    for _stream, _whole in (("split_mnist", "mnist_rows"), ("split_cifar10", "cifar10_rows")):
        _name = f"{_stream}_{_part}"
        register("task", _name)(split_task(_name, _whole, _part))


def _images(
    name: str, read_splits: Callable[[], Splits], spec: TaskSpec, source: str
) -> SequenceTask:
    """Return a task on images of bytes, which it reads in [0, 1]."""
    return SequenceTask(name, read_splits, spec, scale=255, source=source)


def _read_splits(source: str, transform: Callable[[np.ndarray], np.ndarray]) -> Splits:
    """Return the splits of an image data set, with every image transformed."""
    images, labels, test_images, test_labels = datasets.load_images(source)
    images, test_images = transform(images), transform(test_images)
    return {
        "train": (images[:-VALIDATION], labels[:-VALIDATION]),
        "validation": (images[-VALIDATION:], labels[-VALIDATION:]),
        "test": (test_images, test_labels),
    }


def _read_pair(whole: SequenceTask, classes: tuple[int, int], first: int = 0) -> Splits:
    """Return the sequences of two classes, which are counted from ``first``."""
    splits: Splits = {}
    for split, data in whole.read_splits().items():
        xs, ys = cast(tuple[np.ndarray, np.ndarray], data)
        chosen = np.isin(ys, classes)
        splits[split] = xs[chosen], ys[chosen] - first
    return splits
