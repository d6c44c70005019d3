"""Losses: how wrong the outputs of a head are, averaged over the targets that are there.

A loss is a function ``(outputs, targets) -> loss of every target``, without a mean, registered as
``loss``; its options are further keyword arguments::

    @register("loss", "relative")
    def relative(outputs, targets, least=1e-3):
        return (outputs - targets).abs() / targets.abs().clamp(min=least)

Outputs are (N, outputs), where N counts sequences, or all their steps. Targets are (N,) classes, or
(N, outputs) labels or numbers; the result has their shape. Where a target is missing the function
gets class 0 or the number 1, and its result there does not count. A subclass of ``Loss`` can do
more: weigh targets, or use the training part.
"""

import copy
from collections.abc import Callable, Mapping
from typing import Any

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

    targets: tuple[str, ...] = ()  # the kinds of target that it is for; () for all

    def each(self, outputs: Tensor, ys: Tensor) -> Tensor:
        """Return the loss l of every target times its weight, in the shape of ``ys``.

        Args:
            outputs: (N, outputs), for N sequences or steps.
            ys: (N,) classes, or (N, outputs) labels or numbers; all are valid.
        """
        raise NotImplementedError

    def weights(self, ys: Tensor) -> Tensor:
        """Return what every target counts, w ≥ 0, in the shape of ``ys`` or as a scalar."""
        return ys.new_ones((), dtype=torch.get_default_dtype())

    def prepare(self, ys: Tensor, outputs: int) -> None:
        """Called with the training targets of a task before the first loss."""

    def mean(self, target: Target, outputs: Tensor, ys: Tensor) -> Tensor:
        """Return the mean, a scalar; 0 with a gradient of 0 if all targets are missing."""
        outputs, ys = outputs.flatten(0, -2), flat_targets(target, ys)
        present, filled = fill_missing(target, ys)
        each = self.each(outputs, filled)
        if not isinstance(each, Tensor) or each.shape != ys.shape:
            shape = tuple(each.shape) if isinstance(each, Tensor) else type(each).__name__
            raise UserError(
                f"a loss must return the loss of every target, of shape {tuple(ys.shape)}, without "
                f"a mean; it has returned {shape}."
            )
        total = (self.weights(filled) * present).sum()
        return torch.where(present, each, 0).sum() / torch.where(total > 0, total, 1)

    def total_weight(self, target: Target, ys: Tensor) -> Tensor:
        """Return Σ w, a scalar: the number of targets that are there, if all count equally."""
        present, filled = fill_missing(target, flat_targets(target, ys))
        return (self.weights(filled) * present).sum()

    def check(self, target: Target, ys: Tensor, outputs: int, where: str) -> None:
        """Compute the loss of some training targets, for outputs of 0.

        Raises:
            UserError: the loss fails, or has no gradient; the message begins with ``where``.
        """
        zeros = torch.zeros(*ys.shape[: ys.ndim - (target.name != "class")], outputs)
        zeros = zeros.to(ys.device).requires_grad_()
        try:
            loss = self.mean(target, zeros, ys)
        except Exception as error:  # of a function that is not ours
            reason = str(error).partition("\n")[0]
            raise UserError(f"{where}: the loss fails: {reason}") from error
        if not loss.requires_grad:
            raise UserError(f"{where}: the loss has no gradient with respect to the outputs.")

    def complete_mean(self, target: Target, outputs: Tensor, ys: Tensor) -> Tensor:
        """Return ``mean`` where at least one target is there; may be faster."""
        return self.mean(target, outputs, ys)


def flat_targets(target: Target, ys: Tensor) -> Tensor:
    """Return the targets of all sequences and steps in one axis: (N,) or (N, outputs)."""
    return ys.flatten() if target.name == "class" else ys.flatten(0, -2)


def fill_missing(target: Target, ys: Tensor) -> tuple[Tensor, Tensor]:
    """Return which targets are there, and all targets with valid ones in place of missing ones.

    A missing number becomes 1, because logarithms and quotients, and their gradients, exist there.
    """
    present = target.present(ys)
    return present, torch.where(present, ys, 0 if target.name == "class" else 1)


class FunctionLoss(Loss):
    """A loss that is a function of outputs and targets, with its options."""

    def __init__(self, function: Callable[..., Tensor], options: Mapping[str, Any]):
        self.function, self.options = function, dict(options)
        self.targets = getattr(function, "targets", ())

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
        return self._cross_entropy(outputs, ys, "none")

    def weights(self, ys: Tensor) -> Tensor:
        return super().weights(ys) if self._weights is None else self._weights[ys.long()]

    def complete_mean(self, target: Target, outputs: Tensor, ys: Tensor) -> Tensor:
        if self._weights is not None:  # the weights of a batch may add up to 0
            return self.mean(target, outputs, ys)
        return self._cross_entropy(outputs.flatten(0, -2), ys.flatten(), "mean")

    def _cross_entropy(self, outputs: Tensor, ys: Tensor, reduction: str) -> Tensor:
        return F.cross_entropy(
            outputs,
            ys.long(),
            weight=None if self._weights is None else self._weights.to(outputs),
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
            outputs,
            ys.to(outputs),
            pos_weight=None if self._weights is None else self._weights.to(outputs),
            reduction="none",
        )


@register("loss", "mse", targets=("numbers",))
def mse(outputs: Tensor, targets: Tensor) -> Tensor:
    """Squared error, (y − ŷ)²."""
    return (outputs - targets).square()


@register("loss", "mae", targets=("numbers",))
def mae(outputs: Tensor, targets: Tensor) -> Tensor:
    """Absolute error, |y − ŷ|."""
    return (outputs - targets).abs()


@register("loss", "huber", targets=("numbers",))
def huber(outputs: Tensor, targets: Tensor, delta: float = 1.0) -> Tensor:
    """Huber's loss: ½ (y − ŷ)² up to ``delta``, linear beyond: delta · (|y − ŷ| − ½ delta).

    Args:
        outputs, targets: ŷ and y.
        delta: the error from which on it is linear, in the unit of the targets, above 0.
    """
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
