"""Initial values of recurrent weights and of the biases of update gates."""

import torch
from torch import Tensor


@torch.no_grad()
def orthogonalize(weights: Tensor) -> None:
    """Make square matrices, one below the other, orthogonal: QᵀQ = I for each.

    Saxe et al., "Exact solutions to the nonlinear dynamics of learning", 2014, as in the GRU of
    TensorFlow, but for each gate.
    """
    for gate in weights.split(weights.shape[1]):
        if not gate.is_meta:
            torch.nn.init.orthogonal_(gate)


def chrono_bias(width: int, steps: int) -> Tensor:
    """Return log u with u uniform in [1, T − 1]: a gate σ(log u) forgets 1/(1 + u) a step.

    So the time scales of the units are uniform in [2, T] steps. Tallec, Ollivier, "Can recurrent
    neural networks warp time?", 2018, equation 16.

    Args:
        width: number of units.
        steps: T.
    """
    return (1 + (steps - 2) * torch.rand(width)).log()
