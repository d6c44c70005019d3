"""The built-in metrics: how each is computed from outputs and targets.

A function returns the value of every target, and the score is their mean. A class collects
batches with ``update`` and returns the score from ``compute``. Outputs are those of the head:
logits of classes or labels, or numbers. ``tasks/scoring.py`` says which targets are missing.
"""

import warnings
from dataclasses import asdict
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from thalnet_mtl.compat import import_torchvision
from thalnet_mtl.errors import UserError
from thalnet_mtl.metrics import metric as plain
from thalnet_mtl.registry import register

IGNORED = -1  # marks a missing label for torchmetrics


class UndefinedScore(UserError):
    """A metric that has no value for the targets of a split, with the reason."""


@register("metric", **asdict(plain.ACCURACY), targets=("class", "labels"))
def accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Part of correct classes; of several labels, the part of correct labels."""
    if targets.is_floating_point():
        return (outputs > 0) == (targets > 0.5)
    return outputs.argmax(-1) == targets


@register("metric", **asdict(plain.TOP_K_ACCURACY), targets=("class",))
def top_k_accuracy(outputs: Tensor, targets: Tensor, k: int = 5) -> Tensor:
    """Part of targets among the k classes with the largest outputs.

    Args:
        outputs, targets: a score for each class, and the class.
        k: number of classes, fewer than there are.
    """
    if not 1 <= k < outputs.shape[-1]:
        raise UserError(
            f"top_k_accuracy: k = {k} must lie in 1 … {outputs.shape[-1] - 1}, below the number of "
            f"classes."
        )
    return (outputs.topk(k).indices == targets[:, None]).any(-1)


@register("metric", **asdict(plain.F1), targets=("class", "labels"))
class F1Score:
    """F1 score 2PR / (P + R) of precision P and recall R, mean over classes or labels.

    As in scikit-learn, a class that neither occurs nor is predicted is left out of the mean.

    Args:
        average: macro, the mean of the classes; weighted, by how often they occur; or micro, of
            all targets together.
    """

    keeps_missing = True

    def __init__(self, average: Literal["macro", "micro", "weighted"] = "macro"):
        if average not in ("macro", "micro", "weighted"):
            raise UserError(f"f1: average '{average}'. Allowed: macro, micro, weighted.")
        self.average = average
        self.metric: Any = None

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Count the true and false predictions of a batch."""
        predictions = outputs > 0 if targets.is_floating_point() else outputs.argmax(-1)
        if self.metric is None:
            average = {} if _binary(outputs, targets) else {"average": self.average}
            self.metric = _torchmetric("F1Score", outputs, targets, **average)
        self.metric.update(*_matched(predictions.long(), targets))

    def compute(self) -> Tensor:
        """Return the score."""
        value: Tensor = self.metric.compute()
        return value


class _Curve:
    """A mean over classes, or over labels, of the area under a curve.

    All outputs and targets are kept, because the curve depends on the order of all outputs.
    """

    keeps_missing = True
    name, torchmetric, least = "", "", 2

    def __init__(self) -> None:
        self.metric: Any = None
        self.seen = torch.zeros(())  # by class or label: numbers of targets yes, and of no
        self.labels = False

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Keep a batch."""
        self.labels = targets.is_floating_point()
        if self.metric is None:
            average = {} if _binary(outputs, targets) else {"average": None}
            self.metric = _torchmetric(self.torchmetric, outputs, targets, **average)
            self.seen = torch.zeros(2, outputs.shape[-1], dtype=torch.int64, device=outputs.device)
        if self.labels:
            counts = [(targets == 1).sum(0), (targets == 0).sum(0)]
        else:
            yes = torch.bincount(targets, minlength=outputs.shape[-1])
            counts = [yes, len(targets) - yes]
        self.seen += torch.stack(counts)
        outputs = outputs.double()  # float32 makes unequal outputs equal probabilities
        probabilities = outputs.sigmoid() if self.labels else outputs.softmax(-1)
        self.metric.update(*_matched(probabilities, targets))

    def compute(self) -> Tensor:
        """Return the score; raise ``UndefinedScore`` if a curve that it needs has no points."""
        yes, no = self.seen.tolist()
        if self.labels:
            for label, (ones, zeros) in enumerate(zip(yes, no, strict=True)):
                if not ones or (self.least > 1 and not zeros):
                    raise UndefinedScore(f"{self.name}: label {label} is never {int(not ones)}")
        elif sum(map(bool, yes)) < self.least:
            raise UndefinedScore(f"{self.name}: all targets are of class {yes.index(max(yes))}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on classes that do not occur, which are left out
            values = self.metric.compute()
        return values.reshape(-1)[self.seen[0] > 0].mean()


@register("metric", **asdict(plain.AUROC), targets=("class", "labels"))
class AreaUnderROC(_Curve):
    """Area under the ROC curve: each class against the rest, mean over the classes that occur."""

    name, torchmetric = "auroc", "AUROC"


@register("metric", **asdict(plain.AVERAGE_PRECISION), targets=("class", "labels"))
class AveragePrecision(_Curve):
    """Average precision Σ (R_n − R_(n−1)) P_n, mean over the classes that occur, or over labels."""

    name, torchmetric, least = "average_precision", "AveragePrecision", 1


@register("metric", **asdict(plain.CALIBRATION_ERROR), targets=("class", "labels"), main=False)
class CalibrationError:
    """Expected calibration error, Σ over bins of |accuracy − confidence| · part of the targets.

    The bins are of equal width (Guo et al., ICML 2017). Of labels, it compares the
    probability of yes with how often yes is right.

    Args:
        bins: number of bins of confidence.
    """

    keeps_missing = True

    def __init__(self, bins: int = 15):
        if bins < 1:
            raise UserError(f"calibration_error: bins must be at least 1, got {bins}.")
        self.bins = bins
        self.metric: Any = None

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Keep the confidences of a batch."""
        if targets.is_floating_point():
            outputs, targets = outputs.reshape(-1, 1), targets.reshape(-1, 1)
        if self.metric is None:
            self.metric = _torchmetric("CalibrationError", outputs, targets, n_bins=self.bins)
        labels = targets.is_floating_point()
        probabilities = outputs.double().sigmoid() if labels else outputs.double().softmax(-1)
        self.metric.update(*_matched(probabilities, targets))

    def compute(self) -> Tensor:
        """Return the error."""
        value: Tensor = self.metric.compute()
        return value


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return −log p of every target, in nats."""
    return F.cross_entropy(outputs, targets, reduction="none")


@register("metric", **asdict(plain.BITS_PER_CHARACTER), targets=("class",), finish="bits")
def bits_per_character(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean of −log2 p of the targets."""
    return cross_entropy(outputs, targets)


@register("metric", **asdict(plain.PERPLEXITY), targets=("class",), finish="exp")
def perplexity(outputs: Tensor, targets: Tensor) -> Tensor:
    """Exponential of the mean of −log p of the targets."""
    return cross_entropy(outputs, targets)


@register("metric", **asdict(plain.MAE), targets=("numbers",))
def mae(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean of |ŷ − y| over all numbers, in the unit of the targets."""
    return (outputs - targets).abs()


@register("metric", **asdict(plain.MSE), targets=("numbers",))
def mse(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean of (ŷ − y)² over all numbers, in the squared unit of the targets."""
    return (outputs - targets).square()


@register("metric", **asdict(plain.RMSE), targets=("numbers",), finish="sqrt")
def rmse(outputs: Tensor, targets: Tensor) -> Tensor:
    """Root of the mean of (ŷ − y)² over all numbers, in the unit of the targets."""
    return (outputs - targets).square()


@register("metric", **asdict(plain.R2), targets=("numbers",))
class R2Score:
    """R² = 1 − Σ (ŷ − y)² / Σ (y − mean of y)² of each number, mean over the numbers.

    The sums are kept around the mean (Chan et al., 1983), because differences of large sums, as in
    torchmetrics, lose all digits for targets far from 0.
    """

    keeps_missing = True

    def __init__(self) -> None:
        self.sums = torch.zeros(())  # by number: count, mean, Σ (y − mean)², Σ (ŷ − y)²

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Add the sums of a batch."""
        present = ~targets.isnan()
        ys = torch.where(present, targets, 0).double()
        errors = torch.where(present, outputs.double() - ys, 0).square().sum(0)
        count = present.sum(0).double()
        mean = ys.sum(0) / count.clamp(min=1)
        spread = torch.where(present, ys - mean, 0).square().sum(0)
        if not self.sums.ndim:
            self.sums = torch.stack([count, mean, spread, errors])
            return
        old_count, old_mean, old_spread, old_errors = self.sums
        total = count + old_count
        part = count / total.clamp(min=1)
        shift = mean - old_mean
        self.sums = torch.stack([
            total,
            old_mean + part * shift,
            old_spread + spread + part * old_count * shift.square(),
            old_errors + errors,
        ])  # fmt: skip

    def compute(self) -> Tensor:
        """Return the score; raise ``UndefinedScore`` if a number has the same target everywhere."""
        count, mean, spread, errors = self.sums
        constant = (spread <= 1e-12 * count * mean.square()) | (count < 2)
        if constant.any():
            column = int(constant.nonzero()[0])
            raise UndefinedScore(f"r2: all targets of number {column} are {float(mean[column]):g}")
        return (1 - errors / spread).mean()


def _binary(outputs: Tensor, targets: Tensor) -> bool:
    """Return whether there is a single label."""
    return targets.is_floating_point() and outputs.shape[-1] == 1


def _torchmetric(name: str, outputs: Tensor, targets: Tensor, **options: Any) -> Any:
    """Build a metric of torchmetrics, whose import takes seconds, for a kind of target."""
    import_torchvision()
    from torchmetrics import classification

    count = outputs.shape[-1]
    if _binary(outputs, targets):
        prefix, options = "Binary", options | {"ignore_index": IGNORED}
    elif targets.is_floating_point():
        prefix, options = "Multilabel", options | {"num_labels": count, "ignore_index": IGNORED}
    else:
        prefix, options = "Multiclass", options | {"num_classes": count}
    metric = getattr(classification, prefix + name)(**options)
    return metric.set_dtype(torch.float64).to(outputs.device)


def _matched(predictions: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return predictions and targets as torchmetrics takes them."""
    if not targets.is_floating_point():
        return predictions, targets
    labels = targets.nan_to_num(IGNORED).long()
    if predictions.shape[-1] == 1:
        return predictions.flatten(), labels.flatten()
    return predictions, labels
