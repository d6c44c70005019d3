"""A linear recurrence as a module: the minGRU."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from thalnet_mtl.models.designs.base import Design, zone_out
from thalnet_mtl.models.initialization import chrono_bias
from thalnet_mtl.registry import register


@register("module", "min_gru")
class MinGRU(Design):
    """A minGRU: gate and candidate depend on the input alone; `batched` only.

    With x the context and the task input, and h the memory, which is linear in itself::

        z, c = A x + a
        h' = (1 − σ(z)) ⊙ h + σ(z) ⊙ c

    The features are tanh(h'): h' is not bounded, and other modules read it. The steps go one after
    another, since the context of each depends on the one before. ``hidden`` has no effect.

    Feng et al., "Were RNNs All We Needed?", 2024, arXiv 2410.01201, section 3.1.
    """

    def __init__(self, inputs: int, features: int, hidden: int):
        nn.Module.__init__(self)
        self.memory = features
        self.gates = nn.Linear(inputs, 2 * features)

    def forward(
        self,
        x: Float[Tensor, "batch inputs"],
        memory: Float[Tensor, "batch memory"],
        keep: Float[Tensor, "batch memory"] | None = None,
    ) -> tuple[Float[Tensor, "batch features"], Float[Tensor, "batch memory"]]:
        """Return tanh(h') as features, and h', after one step."""
        update, candidate = self.gates(x).to(memory.dtype).chunk(2, -1)
        state = torch.lerp(memory, candidate, torch.sigmoid(update))
        state = zone_out(memory, state, keep)
        return torch.tanh(state), state

    @torch.no_grad()
    def set_time_scales(self, steps: int) -> bool:
        """Set the bias of z so that σ(z) = 1/(1 + u); see ``chrono_bias``."""
        self.gates.bias[: self.memory] = -chrono_bias(self.memory, steps)
        return True
