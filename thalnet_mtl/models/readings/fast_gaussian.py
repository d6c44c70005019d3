"""A dynamic reading by fast weights: every row of R is a Gaussian density over the center.

Source: ThalNet poster, section 3, and Hafner et al., NIPS 2017, as far as it is known.
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
    """Gaussian rows: R_jk = N(k; m_j, v_j), the density at positions k = 1 … center.

    Mean m = W φ + b and variance v = softplus(U φ + d) + 0.001; W and U are (context, features), b
    and d (context). At the start the means are spread evenly over the center, and the standard
    deviations are an eighth of its width. Slots that are opened later get positions after all
    existing ones; with gates g, column k is multiplied by g_k.
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
            variance = max(1.0, center / 8) ** 2
            self.variance.bias.fill_(
                variance + math.log(-math.expm1(-variance))
            )  # inverse of softplus

    def weights(self, features: Float[Tensor, "batch features"] | None = None) -> Dynamic:
        mean = rearrange(self.mean(features), "batch context -> batch context 1")
        spread = rearrange(self.variance(features), "batch context -> batch context 1")
        variance = F.softplus(spread) + MINIMUM_VARIANCE
        exponent = (self.positions - mean).square() / (2 * variance)
        density = torch.exp(-exponent) / (2 * torch.pi * variance).sqrt()
        gates = self.gates()
        return density if gates is None else density * gates

    def resize(self, source: Sequence[int | None], opened: Sequence[int]) -> dict[str, IndexMap]:
        """Change which slots are read; see ``DynamicReading.resize``.

        Columns that remain keep their position k, and new ones follow the largest of those.
        """
        if self.positions.is_meta:  # no numbers: a network that is built to be loaded
            self.positions = self.positions.new_empty(len(source))
            return super().resize(source, opened)
        old = [None if k is None else self.positions[k].item() for k in source]
        new = itertools.count(max([k for k in old if k is not None], default=0.0) + 1)
        self.positions = self.positions.new_tensor([next(new) if k is None else k for k in old])
        return super().resize(source, opened)
