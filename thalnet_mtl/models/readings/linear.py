"""Readings: how a module reads the center (poster, section 3; equations as we recall the paper).

Every reading is a matrix R that turns what a module may see of the center Φ into its context,
``c = R Φ``. Static readings learn R itself, or keep it; dynamic ones compute it anew at every step
from the module's own features φ. Registered as ``reading``; a reading of your own is a ``Reading``,
with the same three arguments and its own ``weights``, ``dynamic`` and ``columns``.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from thalnet_mtl.models.readings.base import Reading, Static
from thalnet_mtl.registry import register


@register("reading", "linear")
class LinearReading(Reading):
    """R = W. Can be unstable, say the authors."""

    columns = ("weight",)
    kernel = "linear"

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

    kernel = "weight_norm"

    def __init__(self, features: int, center: int, context: int):
        super().__init__(features, center, context)
        self.scale = nn.Parameter(torch.tensor(context**0.5))

    def weights(self, features: Float[Tensor, "batch features"] | None = None) -> Static:
        return self.weight * (self.scale / torch.linalg.vector_norm(self.weight))


@register("reading", "weight_norm_rows")
class WeightNormRowsReading(LinearReading):
    """R_j = g_j W_j / ‖W_j‖: a norm and a scale for each row, as common libraries do it."""

    kernel = "weight_norm_rows"

    def __init__(self, features: int, center: int, context: int):
        super().__init__(features, center, context)
        self.scale = nn.Parameter(torch.ones(context, 1))

    def weights(self, features: Float[Tensor, "batch features"] | None = None) -> Static:
        return F.normalize(self.weight, dim=1, eps=0.0) * self.scale
