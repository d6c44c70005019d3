"""A linear reading whose context passes a gate."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from thalnet_mtl.models.readings.base import Dynamic, Reading
from thalnet_mtl.registry import register


@register("reading", "gated")
class GatedReading(Reading):
    """A linear reading, every element of whose context passes a gate; `batched` only.

    R_j = σ(U φ + b)_j W_j, so that c = σ(U φ + b) ⊙ (W Φ): the module's own features φ decide how
    much of its context it lets in, as the gates between layers of Chung et al., "Gated Feedback
    Recurrent Neural Networks", ICML 2015. W is (context, center) and starts as N(0, 1 / center), U
    is (context, features), and b starts at 1, so that the gates begin open.
    """

    dynamic = True
    columns = ("weight",)

    def __init__(self, features: int, center: int, context: int):
        super().__init__(features, center, context)
        self.weight = nn.Parameter(torch.randn(context, center) * center**-0.5)
        self.gate = nn.Linear(features, context)
        nn.init.ones_(self.gate.bias)

    def weights(self, features: Float[Tensor, "batch features"] | None = None) -> Dynamic:
        assert features is not None
        return torch.sigmoid(self.gate(features))[..., None] * self.weight
