"""Readings: how a module reads the center (poster, section 3; equations as we recall the paper).

Every reading is a matrix R that turns what a module may see of the center Φ into its context,
``c = R Φ``. Static readings learn R itself, or keep it; dynamic ones compute it anew at every step
from the module's own features φ. Registered as ``reading``; a reading of your own is a ``Reading``,
with the same three arguments and its own ``weights``, ``dynamic`` and ``columns``.
"""

import itertools
import math
from collections.abc import Sequence

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from thalnet_mtl.models.readings.base import Dynamic, DynamicReading, IndexMap
from thalnet_mtl.registry import register

MINIMUM_VARIANCE = 1e-3


@register("reading", "fast_gaussian")
class FastGaussianReading(DynamicReading):
    """R_jk = N(k; (W φ + b)_j, v_j): a density over the center's positions k = 1 … center.

    The variance v = softplus(U φ + d) + 0.001. The means start spread over the positions, the
    deviations at an eighth of the center. Slots that are opened later lie behind all others;
    with gates, column k has the factor g_k.
    """

    kernel = "fast_gaussian"
    positions: Tensor

    def __init__(self, features: int, center: int, context: int):
        super().__init__(features, center, context)
        self.mean = nn.Linear(features, context)
        self.variance = nn.Linear(features, context)
        self.register_buffer("positions", torch.arange(1.0, center + 1))
        with torch.no_grad():
            self.mean.bias.copy_((torch.arange(context) + 0.5) * center / context + 0.5)
            wide = max(1.0, center / 8) ** 2
            self.variance.bias.fill_(wide + math.log(-math.expm1(-wide)))  # inverse of softplus

    def weights(self, features: Float[Tensor, "batch features"] | None = None) -> Dynamic:
        mean = rearrange(self.mean(features), "batch context -> batch context 1")
        spread = rearrange(self.variance(features), "batch context -> batch context 1")
        variance = F.softplus(spread) + MINIMUM_VARIANCE
        exponent = (self.positions - mean).square() / (2 * variance)
        density = torch.exp(-exponent) / (2 * torch.pi * variance).sqrt()
        gates = self.gates()
        return density if gates is None else density * gates

    def resize(self, source: Sequence[int | None], opened: Sequence[int]) -> dict[str, IndexMap]:
        """As ``DynamicReading.resize``; positions that stay keep their numbers."""
        places = [None if k is None else self.positions[k].item() for k in source]
        behind = itertools.count(max([k for k in places if k is not None], default=0.0) + 1)
        numbers = [next(behind) if k is None else k for k in places]
        self.positions = self.positions.new_tensor(numbers)
        return super().resize(source, opened)
