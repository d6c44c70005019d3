"""Images read row by row. The last 5,000 training images are the validation part."""

from collections.abc import Callable

import numpy as np
from einops import rearrange

from thalnet_mtl.config.schema import TaskConfig
from thalnet_mtl.registry import lookup, register
from thalnet_mtl.tasks import datasets as data
from thalnet_mtl.tasks.rows import RowsTask

VALIDATION = 5_000

Arrays = tuple[np.ndarray, np.ndarray]


@register("task", "permuted_mnist")
def permuted_mnist(config: TaskConfig) -> RowsTask:
    """28 rows of 28 out of one fixed permutation of the 784 pixels (its seed: task.permutation)."""
    # RandomState is frozen by NumPy's compatibility policy: a seed means this order for ever.
    order = np.random.RandomState(config.permutation).permutation(28 * 28)

    def permute(images: np.ndarray) -> np.ndarray:
        return images.reshape(len(images), -1)[:, order].reshape(images.shape)

    return _task("permuted_mnist", (28, 28), "mnist", permute)


@register("task", "mnist_rows")
def mnist_rows(config: TaskConfig) -> RowsTask:
    """28 rows of 28 pixels, from top to bottom."""
    return _task("mnist_rows", (28, 28), "mnist", lambda images: images)


@register("task", "cifar10_rows")
def cifar10_rows(config: TaskConfig) -> RowsTask:
    """32 rows of 32 pixels of 3 colors."""

    def rows(images: np.ndarray) -> np.ndarray:
        return rearrange(images, "batch row column color -> batch row (column color)")

    return _task("cifar10_rows", (32, 96), "cifar10", rows)


@register("task", "digits_rows")
def digits_rows(config: TaskConfig) -> RowsTask:
    """8 rows of 8 pixels: 1,797 digits that come with scikit-learn, no download."""
    return RowsTask("digits_rows", (8, 8), 10, _digits, scale=16.0)


@register("task", "digits_parity")
def digits_parity(config: TaskConfig) -> RowsTask:
    """Whether a digit is odd: the same 1,797 digits two rows at a time, 4 rows of 16."""

    def load() -> dict[str, Arrays]:
        pairs = "digit (row two) column -> digit row (two column)"
        return {name: (rearrange(xs, pairs, two=2), ys % 2) for name, (xs, ys) in _digits().items()}

    return RowsTask("digits_parity", (4, 16), 2, load, scale=16.0)


def split(kind: str, whole: str, part: int) -> Callable[[TaskConfig], RowsTask]:
    """Two of the ten classes of a task: classes 0 and 1 of a head of its own, or of a shared one
    what they are there."""
    classes = (2 * part, 2 * part + 1)

    def make(config: TaskConfig) -> RowsTask:
        own = not getattr(config, "head", "")
        task = lookup("task", whole)(config)
        load_all = task._load

        def load() -> dict[str, Arrays]:
            parts = {}
            for name, (xs, ys) in load_all().items():
                mine = np.isin(ys, classes)
                parts[name] = xs[mine], ys[mine] - classes[0] * own
            return parts

        made = RowsTask(
            f"{kind}_{part}", (task.spec.steps, task.spec.inputs), 2 if own else 10, load
        )
        made.source = task.source
        made.classes_seen = () if own else classes
        return made

    make.__doc__ = f"Classes {classes[0]} and {classes[1]} of {whole}; with a shared head, of ten."
    return make


for _part in range(5):
    for _kind, _whole in (("split_mnist", "mnist_rows"), ("split_cifar10", "cifar10_rows")):
        register("task", f"{_kind}_{_part}")(split(_kind, _whole, _part))


def _digits() -> dict[str, Arrays]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.RandomState(0).permutation(len(digits.target))
    parts = np.split(order, [1297, 1547])
    return {
        name: (digits.images[part].astype(np.uint8), digits.target[part].astype(np.uint8))
        for name, part in zip(("train", "validation", "test"), parts, strict=True)
    }


def _task(
    name: str, rows: tuple[int, int], source: str, transform: Callable[[np.ndarray], np.ndarray]
) -> RowsTask:
    def load() -> dict[str, Arrays]:
        images, labels, test_images, test_labels = data.load_images(source)
        images, test_images = transform(images), transform(test_images)
        return {
            "train": (images[:-VALIDATION], labels[:-VALIDATION]),
            "validation": (images[-VALIDATION:], labels[-VALIDATION:]),
            "test": (test_images, test_labels),
        }

    task = RowsTask(name, rows, 10, load)
    task.source = source
    return task
