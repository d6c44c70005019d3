"""The built-in streams: a task again and again with another option, or class by class.

Options have the words of Avalanche's benchmarks: ``n_experiences``, ``seed``,
``fixed_class_order``.
"""

from typing import Annotated, Any

import numpy as np

from thalnet_mtl.config.options import task_options
from thalnet_mtl.config.values import Range
from thalnet_mtl.errors import UserError
from thalnet_mtl.registry import lookup, register

Experiences = list[dict[str, dict[str, Any]]]  # in order: the entries in ``tasks``, by their names
Start = Annotated[int, Range(low=0)]
Count = Annotated[int, Range(low=1, high=100_000)]
Seed = Annotated[int, Range(low=0, high=2**32 - 1)]

CLASSES = 10  # of MNIST and CIFAR-10


@register("stream", "permuted_mnist")
def permuted_mnist(n_experiences: Count = 10, first: Start = 0) -> Experiences:
    """MNIST under another permutation of its pixels in each experience.

    Args:
        n_experiences: number of experiences.
        first: seed of the first permutation; the next ones count on from there.
    """
    seeds = range(first, first + n_experiences)
    return [{f"p{seed}": {"name": "permuted_mnist", "permutation": seed}} for seed in seeds]


@register("stream", "split_mnist")
def split_mnist(
    n_experiences: Count = 5, seed: Seed | None = None, fixed_class_order: list[int] | None = None
) -> Experiences:
    """MNIST by rows, class by class: by default two digits in each experience, in order.

    Args:
        n_experiences: number of experiences, each with equally many classes.
        seed: of a random order of the classes; without one they come in order.
        fixed_class_order: their order as a list, instead of a seed.
    """
    order = class_order(CLASSES, n_experiences, seed, fixed_class_order)
    return _split("split_mnist", "mnist_rows", order, n_experiences, built_in=True)


@register("stream", "split_cifar10")
def split_cifar10(
    n_experiences: Count = 5, seed: Seed | None = None, fixed_class_order: list[int] | None = None
) -> Experiences:
    """CIFAR-10 by rows, class by class: by default two classes in each experience, in order.

    Args:
        n_experiences: number of experiences, each with equally many classes.
        seed: of a random order of the classes; without one they come in order.
        fixed_class_order: their order as a list, instead of a seed.
    """
    order = class_order(CLASSES, n_experiences, seed, fixed_class_order)
    return _split("split_cifar10", "cifar10_rows", order, n_experiences, built_in=True)


@register("stream", "split")
def split(
    of: str | dict[str, Any],
    n_experiences: Count = 5,
    seed: Seed | None = None,
    fixed_class_order: list[int] | None = None,
) -> Experiences:
    """A task that has one class for each sequence, class by class.

    Args:
        of: the task: its name, or a mapping of its ``name`` and options.
        n_experiences: number of experiences, each with equally many classes.
        seed: of a random order of the classes; without one they come in order.
        fixed_class_order: their order as a list, instead of a seed.
    """
    name, options = task_options(of, "stream split")
    classes = lookup("task", name)(**options).spec.outputs
    order = class_order(classes, n_experiences, seed, fixed_class_order)
    return _split(f"split_{name}", of, order, n_experiences)


@register("stream", "varied")
def varied(
    of: str | dict[str, Any],
    option: str,
    n_experiences: Count = 10,
    first: Start = 0,
) -> Experiences:
    """A task again and again, with another value of one of its options in each experience.

    Args:
        of: the task: its name, or a mapping of its ``name`` and options.
        option: the option that counts from ``first``, as ``label_order`` of the task ``variant``.
        n_experiences: number of experiences.
        first: its value in the first experience.
    """
    name, _ = task_options(of, "stream varied", {option: first})
    entry = dict(of) if isinstance(of, dict) else {"name": name}
    values = range(first, first + n_experiences)
    return [{f"{name}_{value}": entry | {option: value}} for value in values]


def class_order(
    classes: int, experiences: int, seed: int | None, fixed: list[int] | None
) -> list[int]:
    """Return the order of the classes of a split.

    That of a seed is ``torch.randperm`` after ``torch.manual_seed``, and so that of Avalanche. It
    is computed from the same generator, the Mersenne Twister, since configurations need no torch.
    """
    if seed is not None and fixed:
        raise UserError("stream: seed and fixed_class_order: give one of them.")
    if classes % experiences:
        fitting = [n for n in range(1, classes + 1) if classes % n == 0]
        raise UserError(
            f"stream: n_experiences is {experiences}; {classes} classes split equally into "
            f"{', '.join(map(str, fitting))}."
        )
    order = fixed or list(range(classes))
    if sorted(order) != list(range(classes)):
        raise UserError(
            f"stream: fixed_class_order must have each of 0 … {classes - 1} once, got {order}."
        )
    if seed is not None:
        draws = np.random.RandomState(seed).randint(2**32, size=classes, dtype=np.uint64)
        for k, draw in enumerate(draws.tolist()[:-1]):
            other = k + draw % (classes - k)
            order[k], order[other] = order[other], order[k]
    return order


def _split(
    name: str, of: str | dict[str, Any], order: list[int], experiences: int, built_in: bool = False
) -> Experiences:
    """Return the parts of a task in an order of its classes.

    Two neighboring classes of a built-in split are a task of their own, which has its name.
    """
    size = len(order) // experiences
    parts = [order[k : k + size] for k in range(0, len(order), size)]
    usual = built_in and parts == [[k, k + 1] for k in range(0, CLASSES, 2)]
    return [
        {f"{name}_{k}": {} if usual else {"name": "classes_of", "of": of, "classes": classes}}
        for k, classes in enumerate(parts)
    ]
