"""Readings: how a module reads the center (poster, section 3; equations as we recall the paper).

Every reading is a matrix R that turns what a module may see of the center Φ into its context,
``c = R Φ``. Static readings learn R itself; dynamic ones compute it anew at every step from the
module's own features φ. Registered as ``reading``; a reading of your own is a ``Reading``, with
the same three arguments and its own ``weights`` and ``dynamic``.
"""

import math
from typing import ClassVar

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from thalnet_mtl.registry import register

MINIMUM_VARIANCE = 1e-3

Static = Float[Tensor, "context center"]
Dynamic = Float[Tensor, "batch context center"]


class Reading(nn.Module):
    """The contract: ``Reading(features, center, context)`` and ``weights``.

    ``features`` is the width of the module's own slot, ``center`` that of what it may see,
    ``context`` that of what it gets.
    """

    dynamic: ClassVar[bool] = False

    def __init__(self, features: int, center: int, context: int):
        super().__init__()
        self.features, self.center, self.context = features, center, context

    def weights(self, features: Float[Tensor, "batch features"] | None = None) -> Static | Dynamic:
        """R: one matrix if the reading is static, one for each row of the batch if dynamic."""
        raise NotImplementedError


@register("reading", "linear")
class LinearReading(Reading):
    """R = W. Can be unstable, say the authors."""

    def __init__(self, features: int, center: int, context: int):
        super().__init__(features, center, context)
        self.weight = nn.Parameter(torch.randn(context, center) * center**-0.5)

    def weights(self, features: Float[Tensor, "batch features"] | None = None) -> Static:
        return self.weight


@register("reading", "weight_norm")
class WeightNormReading(LinearReading):
    """R = β W / ‖W‖, with one Euclidean norm of the whole matrix and a scalar β, as printed.

    β starts at √context, so that the rows begin with unit norm on average.
    """

    def __init__(self, features: int, center: int, context: int):
        super().__init__(features, center, context)
        self.scale = nn.Parameter(torch.tensor(context**0.5))

    def weights(self, features: Float[Tensor, "batch features"] | None = None) -> Static:
        return self.weight * (self.scale / torch.linalg.vector_norm(self.weight))


@register("reading", "weight_norm_rows")
class WeightNormRowsReading(LinearReading):
    """R_j = g_j W_j / ‖W_j‖: a norm and a scale for each row, as common libraries do it."""

    def __init__(self, features: int, center: int, context: int):
        super().__init__(features, center, context)
        self.scale = nn.Parameter(torch.ones(context, 1))

    def weights(self, features: Float[Tensor, "batch features"] | None = None) -> Static:
        return F.normalize(self.weight, dim=1, eps=0.0) * self.scale


@register("reading", "fast_softmax")
class FastSoftmaxReading(Reading):
    """R_j = softmax over the center's positions k of (W φ + b)_jk."""

    dynamic = True

    def __init__(self, features: int, center: int, context: int):
        super().__init__(features, center, context)
        self.logits = nn.Linear(features, context * center)

    def weights(self, features: Float[Tensor, "batch features"] | None = None) -> Dynamic:
        pattern = "batch (context center) -> batch context center"
        return rearrange(self.logits(features), pattern, context=self.context).softmax(-1)


@register("reading", "fast_gaussian")
class FastGaussianReading(Reading):
    """R_jk = N(k; (W φ + b)_j, v_j): a density over the center's positions k = 1 … center.

    The variance v = softplus(U φ + d) + 0.001. The means start spread over the positions, the
    deviations at an eighth of the center.
    """

    dynamic = True

    def __init__(self, features: int, center: int, context: int):
        super().__init__(features, center, context)
        self.mean = nn.Linear(features, context)
        self.variance = nn.Linear(features, context)
        self.register_buffer("positions", torch.arange(1.0, center + 1), persistent=False)
        with torch.no_grad():
            self.mean.bias.copy_((torch.arange(context) + 0.5) * center / context + 0.5)
            wide = max(1.0, center / 8) ** 2
            self.variance.bias.fill_(wide + math.log(-math.expm1(-wide)))  # inverse of softplus

    def weights(self, features: Float[Tensor, "batch features"] | None = None) -> Dynamic:
        mean = rearrange(self.mean(features), "batch context -> batch context 1")
        spread = rearrange(self.variance(features), "batch context -> batch context 1")
        variance = F.softplus(spread) + MINIMUM_VARIANCE
        exponent = (self.positions - mean).square() / (2 * variance)
        return torch.exp(-exponent) / (2 * torch.pi * variance).sqrt()
