"""Losses: how wrong the outputs of a head are, averaged over the targets that are there.

A loss is a function ``(outputs, targets) -> loss of every target``, without a mean, registered as
``loss``; its options are further keyword arguments. The outputs are (…, outputs); the result has
the shape of the targets. Where a target is missing the function gets 0, and its result there does
not count. A subclass of ``Loss`` can do more: weigh targets, or use the training part.
"""

import copy
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from thalnet_mtl.errors import UserError, unknown
from thalnet_mtl.registry import lookup, register
from thalnet_mtl.tasks.targets import MISSING_CLASS, Target


class Loss:
    """A loss: a mean over targets, Σ l_k / Σ w_k over those that are not missing.

    A loss of your own implements ``each``, and ``weights`` if targets do not count equally.
    """

    targets: ClassVar[tuple[str, ...]] = ()  # the kinds of target that it is for; () for all

    def each(self, outputs: Tensor, ys: Tensor) -> Tensor:
        """Return the loss l of every target, in the shape of ``ys``, whose entries are valid."""
        raise NotImplementedError

    def weights(self, ys: Tensor) -> Tensor:
        """Return what every target counts, w, in the shape of ``ys`` or as a scalar."""
        return ys.new_ones((), dtype=torch.get_default_dtype())

    def prepare(self, ys: Tensor, outputs: int) -> None:
        """Called with the training targets of a task before the first loss."""

    def mean(self, target: Target, outputs: Tensor, ys: Tensor) -> Tensor:
        """Return the mean, a scalar; 0 with a gradient of 0 if all targets are missing."""
        present = target.present(ys)
        filled = torch.where(present, ys, 0)
        each = self.each(outputs, filled)
        if each.shape != ys.shape:
            raise UserError(
                f"a loss has shape {tuple(each.shape)}; expected that of the targets, "
                f"{tuple(ys.shape)}, without a mean."
            )
        total = (self.weights(filled) * present).sum()
        return (each * present).sum() / torch.where(total > 0, total, 1)

    def total_weight(self, target: Target, ys: Tensor) -> Tensor:
        """Return Σ w, a scalar: the number of targets that are there, if all count equally."""
        present = target.present(ys)
        return (self.weights(torch.where(present, ys, 0)) * present).sum()

    def complete_mean(self, target: Target, outputs: Tensor, ys: Tensor) -> Tensor:
        """Return ``mean`` where at least one target is there; may be faster."""
        return self.mean(target, outputs, ys)


class FunctionLoss(Loss):
    """A loss that is a function of outputs and targets, with its options."""

    def __init__(self, function: Callable[..., Tensor], options: Mapping[str, Any]):
        self.function, self.options = function, dict(options)

    def each(self, outputs: Tensor, ys: Tensor) -> Tensor:
        return self.function(outputs, ys, **self.options)


@register("loss", "cross_entropy")
class CrossEntropy(Loss):
    """Cross-entropy of a class, in nats: −log p(y).

    Args:
        label_smoothing: share of the target that is spread over all classes, as in PyTorch.
        class_weights: weight of each class; ``balanced`` for N / (classes · N_c), with the counts
            N_c of the training part, as in scikit-learn.
    """

    targets = ("class",)

    def __init__(
        self, label_smoothing: float = 0.0, class_weights: list[float] | str | None = None
    ):
        if not 0 <= label_smoothing < 1:
            raise UserError(f"label_smoothing {label_smoothing}: must be at least 0 and below 1.")
        if isinstance(class_weights, str) and class_weights != "balanced":
            raise unknown("class_weights", class_weights, ["balanced"])
        self.label_smoothing, self.class_weights = label_smoothing, class_weights
        self._weights: Tensor | None = None

    def prepare(self, ys: Tensor, outputs: int) -> None:
        if self.class_weights is None:
            return
        if isinstance(self.class_weights, str):
            counts = torch.bincount(ys[ys != MISSING_CLASS].flatten().long(), minlength=outputs)
            weights = counts.sum() / ((counts > 0).sum() * counts.clamp(min=1))
        else:
            weights = torch.tensor(self.class_weights)
            if weights.shape != (outputs,) or not (weights >= 0).all():
                raise UserError(
                    f"class_weights {list(self.class_weights)}: expected {outputs} numbers that "
                    f"are not negative."
                )
        self._weights = weights.to(ys.device, torch.get_default_dtype())

    def each(self, outputs: Tensor, ys: Tensor) -> Tensor:
        return self._cross_entropy(outputs, ys, "none").view(ys.shape)

    def weights(self, ys: Tensor) -> Tensor:
        return super().weights(ys) if self._weights is None else self._weights[ys.long()]

    def complete_mean(self, target: Target, outputs: Tensor, ys: Tensor) -> Tensor:
        return self._cross_entropy(outputs, ys, "mean")

    def _cross_entropy(self, outputs: Tensor, ys: Tensor, reduction: str) -> Tensor:
        return F.cross_entropy(
            outputs.flatten(0, -2),
            ys.flatten().long(),
            weight=self._weights,
            reduction=reduction,
            label_smoothing=self.label_smoothing,
        )


@register("loss", "binary_cross_entropy")
class BinaryCrossEntropy(Loss):
    """Cross-entropy of each label, in nats: −y log p − (1 − y) log (1 − p).

    Args:
        positive_weights: factor of the first term, one for each label; ``balanced`` for the number
            of zeros over that of ones in the training part.
    """

    targets = ("labels",)

    def __init__(self, positive_weights: list[float] | str | None = None):
        if isinstance(positive_weights, str) and positive_weights != "balanced":
            raise unknown("positive_weights", positive_weights, ["balanced"])
        self.positive_weights = positive_weights
        self._weights: Tensor | None = None

    def prepare(self, ys: Tensor, outputs: int) -> None:
        if self.positive_weights is None:
            return
        if isinstance(self.positive_weights, str):
            rows = ys.reshape(-1, outputs)
            positive = rows.nansum(0)
            negative = (~rows.isnan()).sum(0) - positive
            weights = negative.clamp(min=1) / positive.clamp(min=1)
        else:
            weights = torch.tensor(self.positive_weights)
            if weights.shape != (outputs,) or not (weights > 0).all():
                raise UserError(
                    f"positive_weights {list(self.positive_weights)}: expected {outputs} numbers "
                    f"above 0."
                )
        self._weights = weights.to(ys.device, torch.get_default_dtype())

    def each(self, outputs: Tensor, ys: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(
            outputs, ys, pos_weight=self._weights, reduction="none"
        )


@register("loss", "mse")
def mse(outputs: Tensor, targets: Tensor) -> Tensor:
    """Squared error, (y − ŷ)²."""
    return (outputs - targets).square()


@register("loss", "mae")
def mae(outputs: Tensor, targets: Tensor) -> Tensor:
    """Absolute error, |y − ŷ|."""
    return (outputs - targets).abs()


@register("loss", "huber")
def huber(outputs: Tensor, targets: Tensor, delta: float = 1.0) -> Tensor:
    """Huber's loss: half the squared error up to ``delta``, linear beyond."""
    if not delta > 0:
        raise UserError(f"huber: delta {delta} must be above 0.")
    return F.huber_loss(outputs, targets, reduction="none", delta=delta)


def make_loss(loss: "str | Loss | Callable[..., Tensor]", **options: Any) -> Loss:
    """Return a loss: that of a registered name with its options, a function, or itself."""
    entry: Any = lookup("loss", loss) if isinstance(loss, str) else loss
    if isinstance(entry, Loss):
        return copy.copy(entry)  # ``prepare`` changes it
    if isinstance(entry, type) and issubclass(entry, Loss):
        return entry(**options)
    return FunctionLoss(entry, options)
