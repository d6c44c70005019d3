"""Gradient episodic memory (GEM) and A-GEM: updates that do not raise the loss of old tasks."""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from thalnet_mtl.registry import register
from thalnet_mtl.strategies.base import trainable_parameters
from thalnet_mtl.strategies.memory import ReplayMemory

MARGIN = 0.5  # γ of GEM, as in the code of its authors
RIDGE = 1e-10  # added to the diagonal of GGᵀ in GEM, after it is scaled to 1


class GradientProjection(ReplayMemory):
    """The base of GEM and A-GEM: g ← g + Σ_k v_k g_k, with gradients g_k of stored sequences.

    The gradient g of a step is one vector over all trainable parameters; parameters that a task
    does not use have zeros in its g_k. The heads of older tasks are included and may therefore
    move: they are part of what raises or lowers the loss of those tasks.
    """

    def task_groups(self, older: list[str]) -> list[list[str]]:
        """Return the groups of older tasks that have a gradient g_k together."""
        raise NotImplementedError

    def coefficients(
        self, dots: Float[Tensor, " k"], gram: Float[Tensor, "k k"]
    ) -> Float[Tensor, " k"]:
        """Return v from the dot products ⟨g, g_k⟩, some of them negative, and ⟨g_j, g_k⟩."""
        raise NotImplementedError

    def before_update(self) -> None:
        parameters = [
            p for p in trainable_parameters(self.context.network).values() if p.grad is not None
        ]
        gradients = [p.grad for p in parameters if p.grad is not None]
        rows = [
            flatten(
                torch.autograd.grad(self.replay_loss(tasks), parameters, materialize_grads=True)
            )
            for tasks in self.task_groups(self.older_tasks())
        ]
        rows = [row for row in rows if row.any()]  # zero at a minimum: no constraint
        if not rows:
            return
        references = torch.stack(rows)
        dots = references @ flatten(gradients)
        if (dots < 0).any():
            correction = self.coefficients(dots, references @ references.T) @ references
            parts = correction.split([p.numel() for p in parameters])
            for gradient, part in zip(gradients, parts, strict=True):
                gradient += part.view_as(gradient)


def flatten(tensors: Iterable[Tensor]) -> Tensor:
    """Return tensors as one vector in float64, because squares of small gradients underflow."""
    return torch.cat([tensor.flatten() for tensor in tensors]).double()


@register("strategy", "agem")
class AGEM(GradientProjection):
    """A-GEM: the part of a gradient that would raise the loss of stored sequences is removed.

    g ← g − (gᵀg_ref / g_refᵀg_ref) g_ref where gᵀg_ref < 0. Chaudhry et al., "Efficient Lifelong
    Learning with A-GEM", ICLR 2019.

    Args:
        context: of the run.
        memory: number of stored sequences, over all tasks.
        choice: which sequences are stored: ``reservoir`` (all equally likely) or ``per_class``
            (equally many of each class of each task).
    """

    needs_boundaries = ""

    def task_groups(self, older: list[str]) -> list[list[str]]:
        return [older] if older else []

    def coefficients(
        self, dots: Float[Tensor, " k"], gram: Float[Tensor, "k k"]
    ) -> Float[Tensor, " k"]:
        return -dots / gram.diagonal()


@register("strategy", "gem")
class GEM(GradientProjection):
    """GEM: the nearest gradient that would raise the loss of no older task.

    g ← g + Gᵀv where some ⟨g, g_k⟩ < 0. The rows g_k of G are the gradients of the older tasks,
    each from up to ``train.batch`` of its stored sequences, newly chosen in each step. v solves
    min ½ vᵀGGᵀv + gᵀGᵀv, v ≥ γ: with γ = 0 this is a projection, with γ > 0 the old losses shall
    fall as well. Lopez-Paz, Ranzato, "Gradient Episodic Memory for Continual Learning", NIPS 2017.

    Args:
        context: of the run.
        memory: number of stored sequences, over all tasks.
        choice: which sequences are stored: ``reservoir`` (all equally likely) or ``per_class``
            (equally many of each class of each task).
    """

    needs_boundaries = (
        "it has a constraint for each earlier task, and nothing says of which one a stored "
        "sequence is"
    )

    def task_groups(self, older: list[str]) -> list[list[str]]:
        return [[task] for task in older]

    def coefficients(
        self, dots: Float[Tensor, " k"], gram: Float[Tensor, "k k"]
    ) -> Float[Tensor, " k"]:
        if not (dots.isfinite().all() and gram.isfinite().all()):
            return torch.zeros_like(dots)  # the trainer reports that the run diverged
        from quadprog import solve_qp

        # Solve for unit vectors: the solver's tolerances are absolute. The authors add 0.001 to
        # the diagonal of GGᵀ, whatever its scale.
        norms = gram.diagonal().sqrt()
        cosines = gram / torch.outer(norms, norms)
        cosines += RIDGE * torch.eye(len(dots)).to(cosines)  # two tasks may have the same gradient
        target, bound = -dots / norms, MARGIN * norms
        scale = torch.maximum(target.abs(), bound).max()
        problem = cosines, target / scale, torch.eye(len(dots)), bound / scale
        v, *_ = solve_qp(*(part.double().cpu().numpy() for part in problem))
        return torch.from_numpy(v).to(dots) * scale / norms
