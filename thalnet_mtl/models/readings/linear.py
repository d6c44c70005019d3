"""Linear readings: R is a learned matrix, with or without weight normalization.

Source: ThalNet poster, section 3, and Hafner et al., NIPS 2017, as far as it is known.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from thalnet_mtl.models.readings.base import Reading, Static
from thalnet_mtl.registry import register


@register("reading", "linear")
class LinearReading(Reading):
    """A learned matrix: R = W, (context, center).

    The authors call it potentially unstable. W starts as N(0, 1 / center).
    """

    columns = ("weight",)
    kernel = "linear"

    def __init__(self, features: int, center: int, context: int):
        super().__init__(features, center, context)
        self.weight = nn.Parameter(torch.randn(context, center) * center**-0.5)

    def weights(self, features: Float[Tensor, "batch features"] | None = None) -> Static:
        return self.weight


@register("reading", "weight_norm")
class WeightNormReading(LinearReading):
    """A weight-normalized matrix: R = β W / ‖W‖, (context, center), as printed in the paper.

    ‖W‖ is the Euclidean norm of the full matrix and β a learned scalar, ``scale``. β starts at
    √context, so that the rows have unit norm on average.
    """

    kernel = "weight_norm"

    def __init__(self, features: int, center: int, context: int):
        super().__init__(features, center, context)
        self.scale = nn.Parameter(torch.tensor(context**0.5))

    def weights(self, features: Float[Tensor, "batch features"] | None = None) -> Static:
        return self.weight * (self.scale / torch.linalg.vector_norm(self.weight))


@register("reading", "weight_norm_rows")
class WeightNormRowsReading(LinearReading):
    """A matrix with weight-normalized rows: R_j = g_j W_j / ‖W_j‖, (context, center).

    Every row j has its own norm and learned ``scale`` g_j, (context, 1), as in
    ``torch.nn.utils.parametrizations.weight_norm``; the paper prints a single norm instead. g
    starts at 1.
    """

    kernel = "weight_norm_rows"

    def __init__(self, features: int, center: int, context: int):
        super().__init__(features, center, context)
        self.scale = nn.Parameter(torch.ones(context, 1))

    def weights(self, features: Float[Tensor, "batch features"] | None = None) -> Static:
        return F.normalize(self.weight, dim=1, eps=0.0) * self.scale
