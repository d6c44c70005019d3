"""The built-in image tasks: MNIST and CIFAR-10, read row by row.

The last 5,000 training images of MNIST and CIFAR-10 are the validation split. All tasks of a
process read the same copy of a data set, whatever the order of their pixels.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Self
from weakref import WeakValueDictionary

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from thalnet_mtl.data import datasets
from thalnet_mtl.errors import UserError
from thalnet_mtl.registry import lookup, register
from thalnet_mtl.tasks.classes_of import ClassesOf
from thalnet_mtl.tasks.sequences import SequenceTask
from thalnet_mtl.tasks.splits.checks import InputSummary
from thalnet_mtl.tasks.splits.sequences import Split
from thalnet_mtl.topology.spec import TaskSpec

VALIDATION = 5_000

Splits = dict[str, tuple[np.ndarray, np.ndarray]]  # images by rows, and labels, of each split


class ImageTask(SequenceTask):
    """A classification of the images of a data set, which are bytes, read row by row.

    Args:
        name: name of the task.
        source: data set of ``thalnet data ls``.
        spec: shapes of its rows and classes.
        order: order of the pixels, if it is another; see ``SequenceTask``.
    """

    def __init__(self, name: str, source: str, spec: TaskSpec, order: Tensor | None = None):
        read_splits = partial(_read_splits, source)
        super().__init__(name, read_splits, spec, scale=255, order=order, source=source)
        self.meaning = f"classes of {source}"

    def load(self, device: torch.device | str) -> Self:
        self._images = images = _images_on(torch.device(device), self.source)
        self.read_splits = lambda: images  # keeps them in memory for as long as the task
        return super().load(device)

    def _summarize(self, split: str, data: Split, where: str) -> Mapping[str, InputSummary]:
        known = self._images.summaries
        if split not in known:
            known[split] = super()._summarize(split, data, where)
        return known[split]


@register("task", "permuted_mnist")
def permuted_mnist(permutation: int = 0) -> ImageTask:
    """MNIST under a fixed permutation of its pixels, 28 rows of 28.

    Args:
        permutation: seed of the permutation.
    """
    if not 0 <= permutation < 2**32:
        raise UserError(f"permutation must be between 0 and {2**32 - 1}, got {permutation}.")
    # NumPy's compatibility policy freezes RandomState: the order of a seed never changes.
    order = torch.from_numpy(np.random.RandomState(permutation).permutation(28 * 28))
    return ImageTask("permuted_mnist", "mnist", TaskSpec(28, 10, steps=28), order)


@register("task", "mnist_rows")
def mnist_rows() -> ImageTask:
    """MNIST from top to bottom, 28 rows of 28 pixels."""
    return ImageTask("mnist_rows", "mnist", TaskSpec(28, 10, steps=28))


@register("task", "cifar10_rows")
def cifar10_rows() -> ImageTask:
    """CIFAR-10 from top to bottom, 32 rows of 32 pixels in 3 colors."""
    return ImageTask("cifar10_rows", "cifar10", TaskSpec(96, 10, steps=32))


def pair_task(name: str, whole: str, part: int) -> Callable[[], ClassesOf]:
    """Return the function that makes a task of two of the ten classes of another task."""
    classes = [2 * part, 2 * part + 1]

    def make_task() -> ClassesOf:
        return ClassesOf(name, lookup("task", whole)(), classes)

    make_task.__doc__ = (
        f"Classes {classes[0]} and {classes[1]} of {whole}; with a shared head, of ten."
    )
    return make_task


for _part in range(5):
    for _stream, _whole in (("split_mnist", "mnist_rows"), ("split_cifar10", "cifar10_rows")):
        _name = f"{_stream}_{_part}"
        register("task", _name)(pair_task(_name, _whole, _part))


class _Images(dict[str, tuple[Tensor, Tensor]]):
    """Images and labels of each split; unlike a plain dict it can be referred to weakly."""

    def __init__(self) -> None:
        super().__init__()
        self.summaries: dict[str, Mapping[str, InputSummary]] = {}  # of the images of a split


# Loaded images by store, device and data set, until no task needs them any longer.
_loaded: WeakValueDictionary[tuple[Path, torch.device, str], _Images] = WeakValueDictionary()


def _images_on(device: torch.device, source: str) -> _Images:
    """Return the images of a data set on a device, where they are loaded once."""
    key = datasets.root(), device, source
    if (images := _loaded.get(key)) is None:
        images = _Images()
        for split, arrays in _read_splits(source).items():
            xs, ys = (torch.from_numpy(array).to(device) for array in arrays)
            images[split] = xs, ys
        _loaded[key] = images
    return images


def _read_splits(source: str) -> Splits:
    """Return the splits of an image data set, (N, rows, row) bytes and (N,) labels."""
    images, labels, test_images, test_labels = datasets.load_images(source)
    if images.ndim == 4:
        rows = "batch row column color -> batch row (column color)"
        images, test_images = (rearrange(part, rows) for part in (images, test_images))
    return {
        "train": (images[:-VALIDATION], labels[:-VALIDATION]),
        "validation": (images[-VALIDATION:], labels[-VALIDATION:]),
        "test": (test_images, test_labels),
    }
