"""A dynamic reading by fast weights: every row of R is a softmax over the center.

Source: ThalNet poster, section 3, and Hafner et al., NIPS 2017, as far as it is known.
"""

import math

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from thalnet_mtl.models.readings.base import Dynamic, DynamicReading
from thalnet_mtl.registry import register


@register("reading", "fast_softmax")
class FastSoftmaxReading(DynamicReading):
    """Softmax rows: R_j = softmax_k(l_jk) over positions k of the center, with l = W φ + b.

    W is (context, center, features), b is (context, center). With gates g,
    R_jk = g_k exp(l_jk) / Σ_m |g_m| exp(l_jm), which is the softmax if all gates are 1.
    """

    columns = ("weight", "bias")
    kernel = "fast_softmax"

    def __init__(self, features: int, center: int, context: int):
        super().__init__(features, center, context)
        logits = nn.Linear(features, context * center)
        shape = "(context center) ... -> context center ..."
        self.weight = nn.Parameter(rearrange(logits.weight.detach(), shape, context=context))
        self.bias = nn.Parameter(rearrange(logits.bias.detach(), shape, context=context))

    def weights(self, features: Float[Tensor, "batch features"] | None = None) -> Dynamic:
        pattern = "context center features -> (context center) features"
        assert features is not None
        logits = F.linear(features, rearrange(self.weight, pattern), self.bias.flatten())
        pattern = "batch (context center) -> batch context center"
        logits = rearrange(logits, pattern, context=self.context)
        gates = self.gates()
        if gates is None:
            return logits.softmax(-1)
        largest = logits.masked_fill(gates == 0, -math.inf).amax(-1, keepdim=True)
        powers = torch.exp(logits - largest.detach())
        return gates * powers / (gates.abs() * powers).sum(-1, keepdim=True)
