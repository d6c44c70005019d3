"""Scores of a task: its metrics, built by name and computed over the batches of a split.

A metric is registered as a function that returns the value of every target, whose mean is the
score, or as a class with ``update(outputs, targets)`` and ``compute()``::

    @register("metric", "within_one", higher_is_better=True, perfect=1.0, unit="%",
              targets=("numbers",))
    def within_one(outputs, targets):
        return (outputs - targets).abs() < 1

Its keyword arguments are its options. What ``register`` is given beside the name is set as
attributes, which a class may also have itself: those of ``Metric``; ``targets``, the kinds of
target that it fits (default: all); ``guess``, the score of guessing, where constant answers have
none (default: it is computed); ``main=False``, if it cannot be the main metric.

Outputs are those of the head, (N, outputs); targets are (N,) classes, or (N, outputs) labels or
numbers. Targets that are missing do not count: a function is called with 0 in their place, and its
values there are dropped; a class is called without the rows that lack one, or, if it has
``keeps_missing``, with NaN.
"""

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from thalnet_mtl.config.options import check_options
from thalnet_mtl.errors import UserError
from thalnet_mtl.metrics.metric import Metric
from thalnet_mtl.registry import lookup
from thalnet_mtl.tasks.metrics import UndefinedScore
from thalnet_mtl.tasks.targets import Target

FINISH: Mapping[str, Callable[[float], float]] = {
    "": lambda mean: mean,
    "sqrt": math.sqrt,
    "bits": lambda nats: nats / math.log(2),
    "exp": lambda nats: math.exp(nats) if nats < 709 else math.inf,
}


@dataclass(frozen=True)
class ScoredMetric:
    """A metric of a task: its description, and what computes it."""

    metric: Metric
    start: "Callable[[], MeanOfValues | Collected]"  # of a new evaluation
    guess: float | None = None  # score of guessing, if it is not computed from constant answers
    main: bool = True  # whether it can be the main metric


def find_metrics(
    choices: Iterable[str | Mapping[str, Any]], target: Target, where: str
) -> tuple[ScoredMetric, ...]:
    """Return metrics by name, the main one first.

    Args:
        choices: names, or mappings of a ``name`` and options: ``{"name": "top_k_accuracy",
            "k": 3}``.
        target: the kind of target.
        where: names the task in errors.

    Raises:
        UserError: a metric is unknown, listed twice, does not fit the kind of target, or lacks an
            attribute, or an option does not exist.
    """
    metrics: dict[str, ScoredMetric] = {}
    for choice in choices:
        options = {"name": choice} if isinstance(choice, str) else dict(choice)
        if "name" not in options:
            raise UserError(f"{where}: a metric needs a name: {choice}.")
        scored = _find(str(options.pop("name")), options, target, where)
        if scored.metric.name in metrics:
            raise UserError(f"{where}: metric '{scored.metric.name}' is listed twice.")
        metrics[scored.metric.name] = scored
    if not metrics:
        raise UserError(f"{where} has no metric.")
    main = next(iter(metrics.values()))
    if not main.main:
        raise UserError(
            f"{where}: '{main.metric.name}' cannot be the main metric, because guessing the "
            f"frequencies is already perfect in it. List another metric first."
        )
    return tuple(metrics.values())


class Scorer:
    """The metrics of a task over the batches of an evaluation.

    >>> from thalnet_mtl.tasks.targets import target_of
    >>> target = target_of("class")
    >>> scorer = Scorer(find_metrics(["accuracy"], target, "task 'a'"), target)
    >>> scorer.update(torch.tensor([[2.0, 1.0], [2.0, 1.0]]), torch.tensor([0, 1]))
    >>> scorer.compute()
    {'accuracy': 0.5}
    """

    def __init__(self, metrics: Sequence[ScoredMetric], target: Target):
        self.metrics, self.target = metrics, target
        self.reset()

    @property
    def may_be_undefined(self) -> bool:
        """True if a metric is not a mean, and may have no value for some targets."""
        return any(isinstance(part, Collected) for part in self._parts.values())

    def reset(self) -> None:
        """Start a new evaluation."""
        self._parts = {scored.metric.name: scored.start() for scored in self.metrics}

    def update(self, outputs: Tensor, ys: Tensor) -> None:
        """Add a batch.

        Args:
            outputs: (…, outputs), of the head.
            ys: targets, of shape (…) for classes and (…, outputs) for labels and numbers.
        """
        outputs = outputs.detach().flatten(0, -2).float()
        targets = ys.flatten() if self.target.name == "class" else ys.flatten(0, -2).float()
        present = self.target.present(targets)
        for part in self._parts.values():
            part.update(outputs, targets, present)

    def compute(self, fixed: Mapping[str, float | None] | None = None) -> dict[str, float]:
        """Return the scores by the names of the metrics, the main one first.

        Args:
            fixed: scores that are given, by metric; None for those to compute.

        Raises:
            UndefinedScore: a metric has no value for these targets.
        """
        scores = {}
        for name, part in self._parts.items():
            value = (fixed or {}).get(name)
            scores[name] = part.compute() if value is None else value
        return scores


class MeanOfValues:
    """A score that is the mean of a function over all targets that are present."""

    def __init__(self, name: str, values: Callable[[Tensor, Tensor], Tensor], finish: str):
        self.name, self.values, self.finish = name, values, FINISH[finish]
        self.total: Tensor | float = 0.0
        self.count: Tensor | int = 0

    def update(self, outputs: Tensor, targets: Tensor, present: Tensor) -> None:
        """Add the values of a batch; ``present`` says which targets are not missing."""
        values = self.values(outputs, torch.where(present, targets, 0))
        if values.shape == present.shape[:1] != present.shape:
            present = present.all(-1)
        if values.shape != present.shape:
            raise UserError(
                f"metric '{self.name}' must return a value of every target, of shape "
                f"{tuple(present.shape)} or ({len(targets)},); it has returned "
                f"{tuple(values.shape)}."
            )
        self.total = self.total + torch.where(present, values, 0).sum(dtype=torch.float64)
        self.count = self.count + present.sum()

    def compute(self) -> float:
        """Return the score."""
        if not int(self.count):
            raise UndefinedScore(f"{self.name}: every target is missing")
        return self.finish(float(self.total) / int(self.count))


class Collected:
    """A score of a metric that collects batches by itself."""

    def __init__(self, name: str, metric: Any):
        self.name, self.metric = name, metric
        self.count: Tensor | int = 0
        self.finite: Tensor | bool = True

    def update(self, outputs: Tensor, targets: Tensor, present: Tensor) -> None:
        """Hand on a batch, without what is missing; ``present`` says what is not."""
        self.count = self.count + present.sum()
        self.finite = self.finite & outputs.isfinite().all()
        keeps = getattr(self.metric, "keeps_missing", False) and targets.is_floating_point()
        rows = present.any(-1) if keeps else present if present.ndim == 1 else present.all(-1)
        if isinstance(self.metric, nn.Module):
            self.metric.to(outputs.device)
        if bool(rows.any()) and bool(self.finite):
            self.metric.update(outputs[rows], targets[rows])

    def compute(self) -> float:
        """Return the score; NaN if an output was not finite."""
        if not int(self.count):
            raise UndefinedScore(f"{self.name}: every target is missing")
        if not bool(self.finite):
            return math.nan
        value = torch.as_tensor(self.metric.compute())
        if value.numel() != 1:
            raise UserError(
                f"metric '{self.name}' must compute one number, not {tuple(value.shape)}."
            )
        return float(value)


def describe_metric(name: str, entry: Any, options: Mapping[str, Any], where: str) -> Metric:
    """Return the description of a registered metric.

    Its name includes the options that are not at their default: ``top_k_accuracy(k=3)``.
    """
    facts = {f.name: getattr(entry, f.name) for f in fields(Metric)[1:] if hasattr(entry, f.name)}
    for needed, example in (("higher_is_better", True), ("perfect", 1.0)):
        value = facts.get(needed)
        if not isinstance(value, bool if needed == "higher_is_better" else int | float):
            raise UserError(
                f"{where}: metric '{name}' does not say {needed}: give it where the metric is "
                f'registered, as in @register("metric", "{name}", {needed}={example}, …).'
            )
    label, parameters = str(facts.pop("label", "")), inspect.signature(entry).parameters
    changed = ", ".join(
        f"{key}={value}"
        for key, value in options.items()
        if key not in parameters or value != parameters[key].default
    )
    if changed:
        name, label = f"{name}({changed})", label and f"{label}, {changed}"
    return Metric(name, label=label, **facts)


def _find(name: str, options: dict[str, Any], target: Target, where: str) -> ScoredMetric:
    """Return a metric by its registered name."""
    try:
        entry = lookup("metric", name)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    kinds = _kinds(entry)
    if kinds and target.name not in kinds:
        raise UserError(
            f"{where}: metric '{name}' is for targets of kind {' or '.join(kinds)}, not "
            f"{target.name}."
        )
    metric = describe_metric(name, entry, options, where)
    options = check_options("metric", name, options, f"{where}: metrics")
    if inspect.isclass(entry):
        _check_built(name, entry, options, where)

        def start() -> MeanOfValues | Collected:
            return Collected(metric.name, entry(**options))
    else:

        def start() -> MeanOfValues | Collected:
            finish = getattr(entry, "finish", "")
            return MeanOfValues(
                metric.name, lambda outputs, ys: entry(outputs, ys, **options), finish
            )

    return ScoredMetric(metric, start, getattr(entry, "guess", None), getattr(entry, "main", True))


def _check_built(name: str, entry: Any, options: Mapping[str, Any], where: str) -> None:
    """Raise ``UserError`` if a metric cannot be built, or lacks ``update`` or ``compute``."""
    try:
        metric = entry(**options)
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: metric '{name}' cannot be built: {error}") from error
    missing = [method for method in ("update", "compute") if not hasattr(metric, method)]
    if missing:
        raise UserError(f"{where}: metric '{name}' is a class without {' and '.join(missing)}.")


def _kinds(entry: Any) -> tuple[str, ...]:
    """Return the kinds of target that a metric fits; () for all."""
    kinds = getattr(entry, "targets", ())
    return (kinds,) if isinstance(kinds, str) else tuple(kinds)
