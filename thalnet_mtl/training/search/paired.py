"""Paired tests on losses of the same validation sequences, without assumptions on their size.

The null hypothesis is that a difference is as often positive as negative. Under it every choice of
signs is as likely as the one that was seen (Fisher, "The Design of Experiments", 1935, section 21).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

DRAWS = 1 << 15  # signs; with up to 16 values these are all that differ by more than one factor −1


def sign_flip(differences: Tensor) -> float:
    """Return the p-value of a test that the mean of some differences is above zero.

    It is the share of signs with which the mean is at least as large: of all signs if there are at
    most 15 differences, else of random ones. It is 1 if a difference is not finite.
    """
    values = differences.double().cpu()
    if not len(values) or not torch.isfinite(values).all():
        return 1.0
    flipped = signs(len(values)) @ values
    seen = values.sum()
    return float((flipped >= seen - 1e-12 * values.abs().sum()).double().mean())


def sign_flip_norm(vectors: Tensor) -> float:
    """Return the p-value of a test that the mean of some vectors (number, size) is not zero.

    It is the share of signs with which the mean is at least as long, as in ``sign_flip``.
    """
    vectors = vectors.double().cpu()
    if not torch.isfinite(vectors).all():
        return 1.0
    products, flips = vectors @ vectors.T, signs(len(vectors))
    lengths = ((flips @ products) * flips).sum(1)
    return float((lengths >= products.sum() - 1e-12 * products.diagonal().sum()).double().mean())


def signs(count: int) -> Tensor:
    """Return rows of signs, the first all 1: all rows up to 15 signs, else random ones."""
    if count <= 15:
        numbers = torch.arange(1 << count).unsqueeze(1) >> torch.arange(count)
        return 1.0 - 2.0 * (numbers & 1).double()
    generator = torch.Generator().manual_seed(count)
    rows = 1.0 - 2.0 * torch.randint(2, (DRAWS, count), generator=generator).double()
    rows[0] = 1.0
    return rows


def rejected(p_values: Sequence[float], level: float) -> list[bool]:
    """Return which null hypotheses are rejected by Holm's procedure, at a level for all together.

    Holm, "A Simple Sequentially Rejective Multiple Test Procedure", 1979.
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    result = [False] * len(p_values)
    for rank, k in enumerate(order):
        if p_values[k] > level / (len(p_values) - rank):
            break
        result[k] = True
    return result
