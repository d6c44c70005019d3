"""A random reading: R is drawn once and never trained."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from thalnet_mtl.models.readings.base import IndexMap, Reading, Static
from thalnet_mtl.registry import register


@register("reading", "random")
class RandomReading(Reading):
    """A fixed random matrix: R = W, (context, center), drawn as in ``linear``; an ablation.

    W is a buffer, not a parameter: it is saved, but not counted as trainable. Slots that are opened
    later are never read, since their columns stay zero.
    """

    columns = ("weight",)
    weight: Tensor

    def __init__(self, features: int, center: int, context: int):
        super().__init__(features, center, context)
        self.register_buffer("weight", torch.randn(context, center) * center**-0.5)

    def weights(self, features: Float[Tensor, "batch features"] | None = None) -> Static:
        return self.weight

    def resize(self, source: Sequence[int | None], opened: Sequence[int]) -> dict[str, IndexMap]:
        """Change which positions are read; see ``Reading.resize``. No parameter changes."""
        self.weight = IndexMap(1, tuple(source))(self.weight)
        self.center = len(source)
        return {}
