"""Readings: how a module reads the center (poster, section 3; equations as we recall the paper).

Every reading is a matrix R that turns what a module may see of the center Φ into its context,
``c = R Φ``. Static readings learn R itself, or keep it; dynamic ones compute it anew at every step
from the module's own features φ. Registered as ``reading``; a reading of your own is a ``Reading``,
with the same three arguments and its own ``weights``, ``dynamic`` and ``columns``.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from thalnet_mtl.models.readings.base import IndexMap, Reading, Static
from thalnet_mtl.registry import register


@register("reading", "random")
class RandomReading(Reading):
    """R = W as ``linear`` begins, and never learned: an ablation.

    W is a buffer, no parameter: it is saved, and in no count of what a network learns. Slots that
    are opened later stay unread, as their columns are zero for ever.
    """

    columns = ("weight",)
    weight: Tensor

    def __init__(self, features: int, center: int, context: int):
        super().__init__(features, center, context)
        self.register_buffer("weight", torch.randn(context, center) * center**-0.5)

    def weights(self, features: Float[Tensor, "batch features"] | None = None) -> Static:
        return self.weight

    def resize(self, source: Sequence[int | None], opened: Sequence[int]) -> dict[str, IndexMap]:
        """As ``Reading.resize``; no parameter changes."""
        self.weight = IndexMap(1, tuple(source))(self.weight)
        self.center = len(source)
        return {}
