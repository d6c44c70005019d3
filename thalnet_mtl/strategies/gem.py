"""Strategies that keep sequences of earlier experiences and see them again."""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from thalnet_mtl.registry import register
from thalnet_mtl.strategies.base import learning
from thalnet_mtl.strategies.memory import ReplayMemory
from thalnet_mtl.training.state import Run

MARGIN = 0.5  # γ of GEM, as its authors' code
RIDGE = 1e-10  # added to the diagonal of GGᵀ in GEM, where that is 1


class GradientProjection(ReplayMemory):
    """The gradient g of a step, and what of the gradients g_k of kept sequences is added to it.

    All that learns is one vector; what a task does not use has a gradient of zero in it. So may
    heads of older tasks move: they are part of what raises or lowers their loss.
    """

    def together(self, older: list[str]) -> list[list[str]]:
        """Older tasks, by the gradient that they are in."""
        raise NotImplementedError

    def factors(
        self, along: Float[Tensor, " k"], products: Float[Tensor, "k k"]
    ) -> Float[Tensor, " k"]:
        """v, of g ← g + Σ_k v_k g_k, from ⟨g, g_k⟩ and ⟨g_j, g_k⟩, some of which are below 0."""
        raise NotImplementedError

    def before_update(self, run: Run) -> None:
        pairs = [(p, p.grad) for p in learning(run.network).values() if p.grad is not None]
        mine, gradients = [p for p, _ in pairs], [gradient for _, gradient in pairs]
        found = [
            flat(torch.autograd.grad(self.recalled(run, tasks), mine, materialize_grads=True))
            for tasks in self.together(self.older(run))
        ]
        # A loss at its very minimum asks for nothing.
        found = [reference for reference in found if reference.any()]
        if not found:
            return
        references = torch.stack(found)
        along = references @ flat(gradients)
        if (along < 0).any():
            added = self.factors(along, references @ references.T) @ references
            parts = added.split([p.numel() for p in mine])
            for gradient, part in zip(gradients, parts, strict=True):
                gradient += part.view_as(gradient)


def flat(tensors: Iterable[Tensor]) -> Tensor:
    """As one row, in float64: of small gradients squares are very small."""
    return torch.cat([tensor.flatten() for tensor in tensors]).double()


@register("strategy", "agem")
class AGEM(GradientProjection):
    """A-GEM: a gradient that would raise the loss of kept sequences loses that part of it.

    g ← g − (gᵀg_ref / g_refᵀg_ref) g_ref where gᵀg_ref < 0. Chaudhry et al., "Efficient Lifelong
    Learning with A-GEM", ICLR 2019.
    """

    def together(self, older: list[str]) -> list[list[str]]:
        return [older] if older else []

    def factors(
        self, along: Float[Tensor, " k"], products: Float[Tensor, "k k"]
    ) -> Float[Tensor, " k"]:
        return -along / products.diagonal()


@register("strategy", "gem")
class GEM(GradientProjection):
    """GEM: the nearest gradient that would raise the loss of no older task.

    g ← g + Gᵀv where some ⟨g, g_k⟩ < 0; the g_k are the rows of G, one for every older task, of at
    most ``train.batch`` of its kept sequences, others at every step. v is the solution of
    min ½ vᵀGGᵀv + gᵀGᵀv, v ≥ γ: with γ = 0 a projection, above it old losses shall fall as well.
    Lopez-Paz, Ranzato, "Gradient Episodic Memory for Continual Learning", NIPS 2017.
    """

    def together(self, older: list[str]) -> list[list[str]]:
        return [[task] for task in older]

    def factors(
        self, along: Float[Tensor, " k"], products: Float[Tensor, "k k"]
    ) -> Float[Tensor, " k"]:
        if not (along.isfinite().all() and products.isfinite().all()):
            return torch.zeros_like(along)  # the loop says that the run diverged
        from quadprog import solve_qp

        # Of unit vectors, as the solver knows no other sizes; the authors add 0.001 to any GGᵀ.
        length = products.diagonal().sqrt()
        square = products / torch.outer(length, length)
        square += RIDGE * torch.eye(len(along)).to(square)  # two tasks may ask for the same
        sought, least = -along / length, MARGIN * length
        size = torch.maximum(sought.abs(), least).max()
        numbers = square, sought / size, torch.eye(len(along)), least / size
        v, *_ = solve_qp(*(part.double().cpu().numpy() for part in numbers))
        return torch.from_numpy(v).to(along) * size / length
