"""How the losses of several tasks make one step: weights, or an aggregation of their gradients."""

import importlib.util
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from thalnet_mtl.errors import UserError, unknown

# Names of TorchJD's aggregators, with the arguments that it wants.
AGGREGATORS: dict[str, tuple[str, dict[str, float]]] = {
    "aligned_mtl": ("AlignedMTL", {}),
    "cagrad": ("CAGrad", {"c": 0.4}),  # as its authors on most of their data
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
WEIGHTINGS = ("fixed", "uncertainty", *AGGREGATORS)

Used = Callable[[str], Mapping[str, nn.Parameter]]  # the parameters of a task by name


class LossWeighting(nn.Module):
    """Fixed weights: the gradient of Σ w_i L_i. The base of the others."""

    def __init__(self, weights: Mapping[str, float]):
        super().__init__()
        self.weights = dict(weights)

    def backward(self, losses: Mapping[str, Tensor], used: Used) -> None:
        """Fill the gradients of all parameters from the losses of the tasks of a step."""
        self.total(losses).backward()

    def total(self, losses: Mapping[str, Tensor]) -> Tensor:
        """The one loss that is lowered."""
        return torch.stack([self.weights[task] * loss for task, loss in losses.items()]).sum()

    def get_extra_state(self) -> dict[str, Any]:
        """What it carries from step to step beside its parameters."""
        return {}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Go on from there."""


class UncertaintyWeighting(LossWeighting):
    """Σ w_i (exp(-s_i) L_i + s_i / 2), with a learned s_i = log σ_i² for every task.

    Kendall, Gal, Cipolla, "Multi-Task Learning Using Uncertainty to Weigh Losses", CVPR 2018, in
    the form for classification. s starts at 0.
    """

    def __init__(self, weights: Mapping[str, float]):
        super().__init__(weights)
        self.log_variance = nn.ParameterDict(
            {task: nn.Parameter(torch.zeros(())) for task in weights}
        )

    def total(self, losses: Mapping[str, Tensor]) -> Tensor:
        s = self.log_variance
        return super().total({t: (-s[t]).exp() * loss + s[t] / 2 for t, loss in losses.items()})


class GradientAggregation(LossWeighting):
    """An aggregator of TorchJD on the parameters that several tasks use.

    Row i of its matrix is the gradient of w_i L_i by all of them. Parameters of one task alone
    get the plain gradient.
    """

    def __init__(self, weights: Mapping[str, float], name: str):
        super().__init__(weights)
        import torchjd.aggregation

        kind, self.options = AGGREGATORS[name]
        self.kind = getattr(torchjd.aggregation, kind)
        self.aggregator: Any = None
        self.rows = 0
        self.prepare(len(weights))

    def prepare(self, rows: int) -> None:
        """An aggregator for so many tasks; one with a memory begins anew when they change."""
        if rows != self.rows:
            several = {"n_tasks": rows} if self.kind.__name__ == "NashMTL" else {}
            self.aggregator, self.rows = self.kind(**self.options, **several), rows

    def backward(self, losses: Mapping[str, Tensor], used: Used) -> None:
        """As ``Combination.backward``."""
        self.prepare(len(losses))
        rows: dict[str, dict[str, Tensor]] = {}
        everything: dict[str, nn.Parameter] = {}
        for task, loss in losses.items():
            own = {name: p for name, p in used(task).items() if p.requires_grad}
            everything |= own
            found = torch.autograd.grad(
                self.weights[task] * loss, list(own.values()), materialize_grads=True
            )
            rows[task] = dict(zip(own, found, strict=True))
        shared = [name for name in everything if sum(name in row for row in rows.values()) > 1]
        gradients = {n: g for row in rows.values() for n, g in row.items() if n not in shared}
        if shared:
            zeros = {name: torch.zeros_like(everything[name]) for name in shared}
            matrix = torch.stack(
                [torch.cat([(zeros | row)[n].flatten() for n in shared]) for row in rows.values()]
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what the solvers say of their own numerics
                parts = self.aggregator(matrix).split([everything[n].numel() for n in shared])
            for name, part in zip(shared, parts, strict=True):
                gradients[name] = part.view_as(everything[name])
        for name, gradient in gradients.items():
            before = everything[name].grad
            everything[name].grad = gradient if before is None else before.add_(gradient)

    def get_extra_state(self) -> dict[str, Any]:
        """Nash-MTL begins each step at the weights of the one before."""
        alpha = getattr(getattr(self.aggregator, "weighting", None), "prvs_alpha", None)
        return {} if alpha is None else {"rows": self.rows, "alpha": torch.as_tensor(alpha)}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        if state:
            self.prepare(state["rows"])
            self.aggregator.weighting.prvs_alpha = state["alpha"].numpy()


def make_weighting(name: str, weights: Mapping[str, float]) -> LossWeighting:
    """The combination of that name.

    Raises:
        UserError: there is none, or it needs a package that is not installed.
    """
    if name not in WEIGHTINGS:
        raise UserError(f"train.combine: {unknown('combination', name, WEIGHTINGS)}")
    if name == "fixed":
        return LossWeighting(weights)
    if name == "uncertainty":
        return UncertaintyWeighting(weights)
    hint = f"train.combine {name} needs TorchJD: pip install 'thalnet-mtl[mtl]'."
    if importlib.util.find_spec("torchjd") is None:
        raise UserError(hint)
    try:
        return GradientAggregation(weights, name)
    except ImportError as error:  # of a solver that only some of its aggregators need
        raise UserError(hint) from error
