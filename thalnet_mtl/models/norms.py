"""The root mean square norm of what modules and layers read, write and compute gates from."""

from torch import Tensor, nn


class RMSNorm(nn.RMSNorm):
    """γ ⊙ x / √(mean(x²) + 1e-4) over the last axis, in the precision of γ also under autocast.

    1e-4 is that of DreamerV3. Zhang, Sennrich, "Root Mean Square Layer Normalization", 2019.
    """

    def __init__(self, width: int):
        super().__init__(width, 1e-4)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(self.weight.dtype))
