"""Random masks that depend on one number drawn a call, a name and a position, and on nothing else.

Modules that come and go, or that another backend runs in another order, leave each other's masks
as they are.
"""

import math
import zlib
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from thalnet_mtl.ops.batch_rows import draw_rows

Seed = Int[Tensor, ""]


def draw_seed(device: torch.device) -> Seed:
    """Return a number drawn from PyTorch's random state of a device, which stays there."""
    return torch.randint(2**62, (), device=device)


def random_mask(seed: Seed, name: str, shape: Sequence[int], rate: float) -> Bool[Tensor, "*shape"]:
    """Return a mask whose elements are true with a probability, independently of each other.

    Args:
        seed: drawn once for all masks of a call.
        name: of the mask; masks of different names are independent.
        shape: of the mask.
        rate: the probability.
    """
    numbers = torch.arange(math.prod(shape), device=seed.device)
    numbers = _mixed(numbers + _mixed(seed + zlib.crc32(name.encode())))
    return ((numbers & (2**53 - 1)) < int(rate * 2**53)).view(tuple(shape))


def random_rows(seed: Seed, name: str, shape: Sequence[int], rate: float) -> Bool[Tensor, "*shape"]:
    """Return ``random_mask`` for the rows of a batch that are computed, on the first axis."""
    return draw_rows(lambda rows: random_mask(seed, name, (rows, *shape[1:]), rate), shape[0])


def _mixed(numbers: Int[Tensor, "*_"]) -> Int[Tensor, "*_"]:
    """Return whole numbers of 64 bits mixed by SplitMix64 (Steele, Lea, Flood, OOPSLA 2014)."""
    z = numbers * -7046029254386353131  # the golden ratio; products keep their last 64 bits
    z = (z ^ (z >> 30 & 2**34 - 1)) * -4658895280553007687
    z = (z ^ (z >> 27 & 2**37 - 1)) * -7723592293110705685
    return z ^ (z >> 31 & 2**33 - 1)
