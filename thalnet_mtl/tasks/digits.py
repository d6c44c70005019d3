"""Tasks on scikit-learn's 1,797 digits: a class, several labels, or a class at every step.

They need no download. All have 1,297 training, 250 validation and 250 test digits.
"""

from importlib.metadata import distribution

import numpy as np
from einops import rearrange

from thalnet_mtl.errors import UserError
from thalnet_mtl.registry import register
from thalnet_mtl.tasks.sequences import SequenceTask
from thalnet_mtl.topology.spec import TaskSpec

Splits = dict[str, tuple[np.ndarray, np.ndarray]]  # sequences and targets of each split

# By label, the digits that have it. Most people write an open 4, so only four digits have a loop.
LABELS = {"odd": (1, 3, 5, 7, 9), "above four": (5, 6, 7, 8, 9), "prime": (2, 3, 5, 7)}
LABELS["loop"] = (0, 6, 8, 9)
ROUNDS = 4  # times that digits_stream reads each training digit in an epoch, in other orders


@register("task", "digits_rows")
def digits_rows() -> SequenceTask:
    """The 1,797 digits that come with scikit-learn, 8 rows of 8 pixels; no download."""
    task = SequenceTask("digits_rows", read_digits, TaskSpec(8, 10, steps=8), scale=16.0)
    task.meaning = "digits"
    return task


@register("task", "digits_parity")
def digits_parity() -> SequenceTask:
    """Odd or even? The 1,797 digits of digits_rows two rows at a time, 4 rows of 16."""

    def read_splits() -> Splits:
        pairs = "digit (row two) column -> digit row (two column)"
        return {
            name: (rearrange(xs, pairs, two=2), ys % 2) for name, (xs, ys) in read_digits().items()
        }

    return SequenceTask("digits_parity", read_splits, TaskSpec(16, 2, steps=4), scale=16.0)


@register("task", "digits_labels")
def digits_labels() -> SequenceTask:
    """Odd, above four, prime, with a loop: four labels of a digit at once, 8 rows of 8 pixels."""

    def read_splits() -> Splits:
        columns = [np.isin(np.arange(10), digits) for digits in LABELS.values()]
        table = np.stack(columns, axis=1)
        return {name: (xs, table[ys]) for name, (xs, ys) in read_digits().items()}

    spec = TaskSpec(8, len(LABELS), steps=8)
    return SequenceTask("digits_labels", read_splits, spec, target="labels", scale=16.0)


@register("task", "digits_stream")
def digits_stream(digits: int = 5) -> SequenceTask:
    """The digit that a row belongs to, at every row of five digits in a sequence.

    Rows of the next digit follow at once, so that the network has to notice where one begins; the
    upper rows of a digit say little. Training sequences read every digit four times, in random
    orders that never change. With five digits there are 1,036 training, 50 validation and 50 test
    sequences of 40 rows.

    Args:
        digits: number of digits in a sequence, up to 250.
    """
    if not 1 <= digits <= 250:
        raise UserError(f"digits is {digits}, expected 1 … 250 digits in a sequence.")

    def read_splits() -> Splits:
        splits = {}
        for name, (xs, ys) in read_digits().items():
            order = np.arange(len(ys)).reshape(1, -1)
            if name == "train":
                orders = np.random.RandomState(1)
                order = np.stack([orders.permutation(len(ys)) for _ in range(ROUNDS)])
            whole = order[:, : len(ys) // digits * digits].reshape(-1, digits)
            splits[name] = xs[whole].reshape(-1, 8 * digits, 8), np.repeat(ys[whole], 8, axis=1)
        return splits

    spec = TaskSpec(8, 10, every_step=True, steps=8 * digits)
    return SequenceTask("digits_stream", read_splits, spec, scale=16.0)


def read_digits() -> Splits:
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
