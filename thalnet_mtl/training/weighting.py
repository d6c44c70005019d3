"""Loss weightings: how the losses of several tasks become one gradient for each parameter."""

import importlib.util
import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from thalnet_mtl.errors import UserError
from thalnet_mtl.registry import lookup, register
from thalnet_mtl.training.divergence import diverged

# Aggregators of TorchJD by their names here, with their arguments where there is no default.
AGGREGATORS: dict[str, tuple[str, dict[str, float]]] = {
    "aligned_mtl": ("AlignedMTL", {}),
    "cagrad": ("CAGrad", {"c": 0.4}),  # as in most experiments of the paper
    "config": ("ConFIG", {}),
    "dualproj": ("DualProj", {}),
    "graddrop": ("GradDrop", {}),
    "imtl_g": ("IMTLG", {}),
    "mgda": ("MGDA", {}),
    "nash_mtl": ("NashMTL", {}),
    "pcgrad": ("PCGrad", {}),
    "random": ("Random", {}),
    "upgrad": ("UPGrad", {}),
}
# What each makes of the gradients g_i of the tasks, with ḡ their mean; and where it is from.
_ABOUT = {
    "aligned_mtl": (
        "Gradients made orthogonal and equally long, then averaged.",
        'Senushkin et al., "Independent Component Alignment for Multi-Task Learning", CVPR 2023.',
    ),
    "cagrad": (
        "The d with ‖d − ḡ‖ ≤ 0.4 ‖ḡ‖ that maximizes min_i ⟨g_i, d⟩.",
        'Liu et al., "Conflict-Averse Gradient Descent for Multi-task Learning", NeurIPS 2021.',
    ),
    "config": (
        "The direction with the same cosine to all g_i, as long as the sum of their projections.",
        'Liu, Chu, Thuerey, "ConFIG: Towards Conflict-free Training of Physics Informed Neural '
        'Networks", ICLR 2025.',
    ),
    "dualproj": (
        "ḡ projected onto the d with ⟨g_i, d⟩ ≥ 0 for all i, as in GEM.",
        'Lopez-Paz, Ranzato, "Gradient Episodic Memory for Continual Learning", NIPS 2017.',
    ),
    "graddrop": (
        "Of every coordinate only the positive or only the negative g_i, drawn by their sizes.",
        'Chen et al., "Just Pick a Sign: Optimizing Deep Multitask Models with Gradient Sign '
        'Dropout", NeurIPS 2020.',
    ),
    "imtl_g": (
        "The Σ w_i g_i, Σ w_i = 1, with equal projections on all g_i / ‖g_i‖.",
        'Liu et al., "Towards Impartial Multi-task Learning", ICLR 2021.',
    ),
    "mgda": (
        "The shortest Σ w_i g_i, w_i ≥ 0, Σ w_i = 1: no loss rises.",
        'Sener, Koltun, "Multi-Task Learning as Multi-Objective Optimization", NeurIPS 2018.',
    ),
    "nash_mtl": (
        "The Nash bargaining solution: the d in a ball that maximizes Σ log ⟨g_i, d⟩.",
        'Navon et al., "Multi-Task Learning as a Bargaining Game", ICML 2022.',
    ),
    "pcgrad": (
        "The sum of the g_i, each projected in turn onto the normal planes of those it conflicts "
        "with.",
        'Yu et al., "Gradient Surgery for Multi-Task Learning", NeurIPS 2020.',
    ),
    "random": (
        "Σ w_i g_i, w drawn in each step as the softmax of normal numbers; a baseline.",
        'Lin et al., "Reasonable Effectiveness of Random Weighting: A Litmus Test for Multi-Task '
        'Learning", TMLR 2022.',
    ),
    "upgrad": (
        "The mean of the g_i, each projected onto the d with ⟨g_j, d⟩ ≥ 0 for all j.",
        'Quinton, Rey, "Jacobian Descent for Multi-Objective Optimization", 2024.',
    ),
}

TaskParameters = Callable[[str], Mapping[str, nn.Parameter]]  # of a task, by name


@register("weighting", "fixed")
class LossWeighting(nn.Module):
    """Fixed weights: the gradient of Σ w_i L_i, with the ``weight`` w_i of each task.

    It is the base class of all weightings.

    Args:
        weights: w_i of each task.
        targets: kind of target of each task: ``class``, ``labels`` or ``numbers``.
    """

    def __init__(self, weights: Mapping[str, float], targets: Mapping[str, str]):
        super().__init__()
        self.weights, self.targets = dict(weights), dict(targets)

    def backward(self, losses: Mapping[str, Tensor], task_parameters: TaskParameters) -> None:
        """Fill the gradients of all parameters from the losses of the tasks of a step.

        A task that depends on no parameter, as one that is frozen, has no gradient.
        """
        terms = [term for term in self.terms(losses) if term.requires_grad]
        torch.autograd.backward(terms, [torch.ones_like(term) for term in terms])

    def terms(self, losses: Mapping[str, Tensor]) -> list[Tensor]:
        """Return the terms of the loss that is minimized, one for each task; their sum is it."""
        weights = [self.weights[task] for task in losses]
        pairs = zip(weights, losses.values(), strict=True)
        return [loss if weight == 1 else weight * loss for weight, loss in pairs]

    def get_extra_state(self) -> dict[str, Any]:
        """Return the state, beside the parameters, that carries over from step to step."""
        return {}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore ``get_extra_state``."""


@register("weighting", "uncertainty")
class UncertaintyWeighting(LossWeighting):
    """Σ w_i (c_i exp(-s_i) L_i + s_i / 2), with a learned s_i = log σ_i² for each task.

    Kendall, Gal, Cipolla, "Multi-Task Learning Using Uncertainty to Weigh Losses", CVPR 2018. For
    numbers c = 1/2: with the squared error as L this is −log N(y; ŷ, σ²), up to a constant
    (equation 5). For classes and labels c = 1: −log p(y) of logits that are divided by σ², as the
    paper approximates it (equation 10). s starts at 0, and stays as it is in a step in which L is
    exactly 0 because no target of the task is there.
    """

    def __init__(self, weights: Mapping[str, float], targets: Mapping[str, str]):
        super().__init__(weights, targets)
        self.log_variance = nn.ParameterDict(
            {task: nn.Parameter(torch.zeros(())) for task in weights}
        )

    def terms(self, losses: Mapping[str, Tensor]) -> list[Tensor]:
        return super().terms({task: self.term(task, loss) for task, loss in losses.items()})

    def term(self, task: str, loss: Tensor) -> Tensor:
        """Return c exp(-s) L + s / 2 of a task."""
        s, factor = self.log_variance[task], 0.5 if self.targets[task] == "numbers" else 1.0
        return factor * (-s).exp() * loss + s / 2 * (loss.detach() != 0)


class GradientAggregation(LossWeighting):
    """An aggregator of TorchJD, applied to the parameters that several tasks use.

    Row i of its matrix is the gradient of w_i L_i w.r.t. all of them. Parameters that one task
    uses alone get the plain gradient. A task without a gradient, or with one that is exactly zero,
    as without any target in its batch, takes no part: MGDA and CAGrad would let it stop all others.

    Args:
        weights: w_i of each task.
        targets: kind of target of each task.
        name: a key of ``AGGREGATORS``.

    Raises:
        UserError: TorchJD, or a solver that this aggregator needs, is not installed.
    """

    def __init__(self, weights: Mapping[str, float], targets: Mapping[str, str], name: str):
        super().__init__(weights, targets)
        hint = f"train.combine {name} needs TorchJD: pip install 'thalnet-mtl[mtl]'."
        if importlib.util.find_spec("torchjd") is None:
            raise UserError(hint)
        class_name, self.options = AGGREGATORS[name]
        self.aggregator: Any = None
        self.rows = 0
        try:
            import torchjd.aggregation

            self.aggregator_class = getattr(torchjd.aggregation, class_name)
            self.prepare(len(weights))
        except ImportError as error:
            raise UserError(hint) from error

    def prepare(self, rows: int) -> None:
        """Build an aggregator for a number of tasks; if the number changes, its state is reset."""
        if rows != self.rows:
            needs_rows = self.aggregator_class.__name__ == "NashMTL"
            options = self.options | ({"n_tasks": rows} if needs_rows else {})
            self.aggregator, self.rows = self.aggregator_class(**options), rows

    def backward(self, losses: Mapping[str, Tensor], task_parameters: TaskParameters) -> None:
        """Fill the gradients of all parameters: aggregated ones where tasks share a parameter.

        Raises:
            Diverged: the gradient of a task is not finite.
        """
        rows: dict[str, dict[str, Tensor]] = {}
        parameters: dict[str, nn.Parameter] = {}
        *_, last = losses
        for task, loss in losses.items():
            used = {name: p for name, p in task_parameters(task).items() if p.requires_grad}
            if not (used and loss.requires_grad):
                continue
            parameters |= used
            row = torch.autograd.grad(
                self.weights[task] * loss,
                list(used.values()),
                retain_graph=task != last,  # tasks with the same inputs share a pass of the body
                materialize_grads=True,
            )
            rows[task] = dict(zip(used, row, strict=True))
        gradients = {n: torch.zeros_like(p) for n, p in parameters.items()}
        largest = dict(zip(rows, largest_entries(rows.values()), strict=True))
        for task, value in largest.items():
            if not math.isfinite(value):
                raise diverged("a gradient that is not finite", task)
        rows = {task: row for task, row in rows.items() if largest[task]}
        shared = [name for name in parameters if sum(name in row for row in rows.values()) > 1]
        zeros = {name: gradients[name] for name in shared}
        gradients |= {n: g for row in rows.values() for n, g in row.items() if n not in shared}
        if shared:
            self.prepare(len(rows))
            matrix = torch.stack(
                [torch.cat([(zeros | row)[n].flatten() for n in shared]) for row in rows.values()]
            )
            scale = max(largest[task] for task in rows)
            scale = scale if not 1e-12 < scale < 1e12 else 1.0  # their products must be numbers
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # solvers warn of their own numerics
                combined = self.aggregator(matrix / scale) * scale
            parts = combined.split([parameters[n].numel() for n in shared])
            for name, part in zip(shared, parts, strict=True):
                gradients[name] = part.view_as(parameters[name])
        for name, gradient in gradients.items():
            before = parameters[name].grad
            parameters[name].grad = gradient if before is None else before.add_(gradient)

    def get_extra_state(self) -> dict[str, Any]:
        """Return the weights of Nash-MTL's last step, from which the next one starts."""
        alpha = getattr(getattr(self.aggregator, "weighting", None), "prvs_alpha", None)
        return {} if alpha is None else {"rows": self.rows, "alpha": torch.as_tensor(alpha)}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        if state:
            self.prepare(state["rows"])
            self.aggregator.weighting.prvs_alpha = state["alpha"].numpy()


def largest_entries(rows: Iterable[Mapping[str, Tensor]]) -> list[float]:
    """Return the largest absolute entry of each group of tensors; NaN if one of them is NaN."""
    largest = [torch.stack([part.abs().max() for part in row.values()]).max() for row in rows]
    return torch.stack(largest).tolist() if largest else []


def _register_aggregator(name: str) -> None:
    def build(weights: Mapping[str, float], targets: Mapping[str, str]) -> LossWeighting:
        return GradientAggregation(weights, targets, name)

    line, source = _ABOUT[name]
    build.__doc__ = f"{line}\n\n{source} The aggregator {AGGREGATORS[name][0]} of TorchJD."
    register("weighting", name)(build)


for _name in AGGREGATORS:
    _register_aggregator(_name)


def make_weighting(
    name: str, weights: Mapping[str, float], targets: Mapping[str, str]
) -> LossWeighting:
    """Return the weighting with a name, for the weights and the kinds of target of the tasks.

    Raises:
        UserError: there is none, or it needs a package that is not installed.
    """
    try:
        build = lookup("weighting", name)
    except UserError as error:
        raise UserError(f"train.combine: {error}") from None
    return build(weights, targets)
