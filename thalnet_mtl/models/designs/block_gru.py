"""The block GRU of DreamerV3's recurrent model, of which each module is one block.

It is ``RSSM._core`` of the code of DreamerV3, github.com/danijar/dreamerv3, with one dense layer
(``dynlayers: 1``).
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from thalnet_mtl.models.designs.base import Design, zone_out
from thalnet_mtl.models.initialization import chrono_bias
from thalnet_mtl.models.norms import RMSNorm
from thalnet_mtl.registry import register


@register("module", "block_gru")
class BlockGRU(Design):
    """A GRU block with normed projections and an update bias, as in DreamerV3; `batched` only.

    With x the context and the task input, h the memory, N(a) = γ ⊙ a / √(mean(a²) + 1e-4)
    (RMSNorm) and s(a) = a σ(a) (SiLU)::

        e = s(N(A x + a))             what the module reads, ``hidden`` wide
        j = s(N(B [h, e] + b))        joined with its memory
        r, c, u = C j + d             reset, candidate and update
        h' = z ⊙ tanh(σ(r) ⊙ c) + (1 − z) ⊙ h,   z = σ(u − 1)

    The features are h'. The −1 lets a new block keep about three quarters of its memory a step.
    DreamerV3 norms j over all blocks together, a module over its own units alone.

    Hafner et al., "Mastering diverse control tasks through world models", Nature 2025.
    """

    def __init__(self, inputs: int, features: int, hidden: int):
        nn.Module.__init__(self)
        self.memory = features
        self.read = nn.Linear(inputs, hidden)
        self.read_norm = RMSNorm(hidden)
        self.join = nn.Linear(features + hidden, features)
        self.join_norm = RMSNorm(features)
        self.gates = nn.Linear(features, 3 * features)

    def forward(
        self,
        x: Float[Tensor, "batch inputs"],
        memory: Float[Tensor, "batch memory"],
        keep: Float[Tensor, "batch memory"] | None = None,
    ) -> tuple[Float[Tensor, "batch features"], Float[Tensor, "batch memory"]]:
        """Return h' as features and memory after one step."""
        read = F.silu(self.read_norm(self.read(x)))
        joined = F.silu(self.join_norm(self.join(torch.cat([memory.to(read.dtype), read], -1))))
        reset, candidate, update = self.gates(joined).to(memory.dtype).chunk(3, -1)
        candidate = torch.tanh(torch.sigmoid(reset) * candidate)
        state = torch.lerp(memory, candidate, torch.sigmoid(update - 1))
        state = zone_out(memory, state, keep)
        return state, state

    def recurrent_weights(self) -> list[Tensor]:
        """Return the part of B that belongs to the memory."""
        return [self.join.weight[:, : self.memory]]

    @torch.no_grad()
    def set_time_scales(self, steps: int) -> bool:
        """Set d so that z = 1/(1 + u); see ``chrono_bias``."""
        self.gates.bias[2 * self.memory :] = 1 - chrono_bias(self.memory, steps)
        return True
