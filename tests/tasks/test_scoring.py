"""Metrics by name, with options, and of one's own: a function, a class, one of torchmetrics."""

import math

import pytest
import torch
import torchmetrics

from thalnet_mtl.errors import UserError
from thalnet_mtl.metrics.metric import Metric
from thalnet_mtl.registry import register
from thalnet_mtl.tasks.metrics import UndefinedScore
from thalnet_mtl.tasks.scoring import Scorer, find_metrics
from thalnet_mtl.tasks.targets import target_of

NAN, NUMBER = torch.nan, target_of("numbers")
OUTPUTS = torch.tensor([[1.0, 0.0], [2.0, 0.0], [3.0, 4.0]])
NUMBERS = torch.tensor([[0.5, NAN], [5.0, 0.5], [NAN, 4.0]])


@register("metric", "within", higher_is_better=True, perfect=1, unit="%", targets="numbers")
def within(outputs, targets, width: float = 1.0):
    """Part of numbers that are closer than ``width``."""
    return (outputs - targets).abs() < width


@register("metric", "distance", higher_is_better=False, perfect=0.0, targets=("numbers",))
def distance(outputs, targets):
    """Euclidean distance of all numbers of a row."""
    return (outputs - targets).square().sum(-1).sqrt()


@register("metric", "largest_error")
class LargestError:
    """Largest error of all rows without a missing number."""

    higher_is_better, perfect, targets = False, 0.0, ("numbers",)

    def __init__(self, start: float = 0.0):
        self.worst = start

    def update(self, outputs, targets):
        self.worst = max(self.worst, float((outputs - targets).abs().max()))

    def compute(self):
        return self.worst


@register("metric", "log_error", perfect=0.0, targets=("numbers",))
class LogError(torchmetrics.MeanSquaredLogError):
    """One of torchmetrics, which knows its direction."""


@register("metric", "correlation", perfect=1.0, guess=0.0, targets=("numbers",))
class Correlation(torchmetrics.PearsonCorrCoef):
    """One that is not defined for constant answers."""

    higher_is_better = True


@register("metric", "nameless")
def nameless(outputs, targets):
    return outputs[:, 0]


def scores(metrics, outputs=OUTPUTS, ys=NUMBERS, kind="numbers"):
    scorer = Scorer(find_metrics(metrics, target_of(kind), "task 'a'"), target_of(kind))
    for row, target in zip(outputs, ys, strict=True):
        scorer.update(row[None], target[None])
    return scorer.compute()


def test_the_values_of_a_function_are_averaged_over_what_is_there():
    assert scores(["within"]) == {"within": 3 / 4}  # errors 0.5, 3, 0.5, 0
    assert scores([{"name": "within", "width": 0.3}]) == {"within(width=0.3)": 1 / 4}
    assert list(scores([{"name": "within", "width": 1.0}])) == ["within"]  # its default


def test_a_value_for_a_whole_row_counts_only_rows_without_a_missing_number():
    assert scores(["distance"]) == {"distance": pytest.approx(math.hypot(3, 0.5))}


def test_a_class_gets_rows_without_a_missing_number():
    assert scores(["largest_error"]) == {"largest_error": 3.0}
    assert scores([{"name": "largest_error", "start": 7.0}]) == {"largest_error(start=7.0)": 7.0}


def test_a_metric_of_torchmetrics_needs_no_other_code():
    ys, outputs = torch.rand(9, 1), torch.rand(9, 1)
    found = scores(["log_error", "correlation"], outputs, ys)
    expected = torchmetrics.functional.mean_squared_log_error(outputs, ys).item()
    assert found["log_error"] == pytest.approx(expected, abs=1e-6)
    with_one = torch.cat([outputs, ys], 1).T
    assert found["correlation"] == pytest.approx(torch.corrcoef(with_one)[0, 1].item(), abs=1e-5)
    assert find_metrics(["log_error"], NUMBER, "")[0].metric == Metric("log_error", False, 0.0)


def test_several_metrics_are_in_their_order_and_start_anew_after_a_reset():
    scorer = Scorer(find_metrics(["rmse", "mae", "within"], NUMBER, "task 'a'"), NUMBER)
    for _ in range(2):
        scorer.update(OUTPUTS, NUMBERS)
        assert list(scorer.compute().items()) == [
            ("rmse", pytest.approx(math.sqrt(9.5 / 4))), ("mae", 1.0), ("within", 0.75)
        ]  # fmt: skip
        scorer.reset()
    with pytest.raises(UndefinedScore, match="rmse: every target is missing"):
        scorer.compute()


def test_only_a_metric_that_is_no_mean_may_be_undefined():
    def may_be_undefined(*metrics):
        return Scorer(find_metrics(metrics, NUMBER, ""), NUMBER).may_be_undefined

    assert may_be_undefined("mae", "r2") and not may_be_undefined("mae", "rmse", "within")


def test_targets_at_every_step_are_scored_like_as_many_rows():
    outputs, ys = torch.rand(3, 5, 2), torch.rand(3, 5, 2)
    for metric in ("mae", "r2"):
        scorer = Scorer(find_metrics([metric], NUMBER, ""), NUMBER)
        scorer.update(outputs, ys)
        expected = scores([metric], outputs.flatten(0, 1), ys.flatten(0, 1))
        assert scorer.compute() == pytest.approx(expected)


def test_an_own_metric_is_described_by_what_it_is_registered_with():
    [scored] = find_metrics([{"name": "within", "width": 2}], NUMBER, "")
    assert scored.metric == Metric("within(width=2)", True, 1, "%", 100.0, 2)
    assert find_metrics(["correlation"], NUMBER, "")[0].guess == 0.0


@pytest.mark.parametrize(
    ("metrics", "kind", "message"),
    [
        (["acuracy"], "class", "task 'a': unknown metric 'acuracy'.*Did you mean 'accuracy'"),
        (["mae"], "class", "metric 'mae' is for targets of kind numbers, not class"),
        (["auroc"], "numbers", "metric 'auroc' is for targets of kind class or labels, not num"),
        (["accuracy", "accuracy"], "class", "metric 'accuracy' is listed twice"),
        (
            [{"name": "within", "widht": 1}],
            "numbers",
            "unknown field 'widht'.*Did you mean 'width'",
        ),
        ([{"name": "mae", "k": 1}], "numbers", "metric 'mae' has no option 'k'"),
        ([{"k": 1}], "numbers", "a metric needs a name"),
        (
            [{"name": "f1", "average": "makro"}],
            "class",
            "average: unknown value 'makro'. Allowed: macro",
        ),
        ([{"name": "log_error", "nothing": 1}], "numbers", "'log_error' cannot be built"),
        (["nameless"], "class", "metric 'nameless' does not say higher_is_better: give it where"),
        ([], "class", "task 'a' has no metric"),
    ],
)
def test_a_metric_that_cannot_be_used_is_one_line(metrics, kind, message):
    with pytest.raises(UserError, match=message) as error:
        find_metrics(metrics, target_of(kind), "task 'a'")
    assert "\n" not in str(error.value)


def test_too_large_a_k_and_a_wrong_shape_are_one_line():
    outputs, ys = torch.rand(4, 3), torch.tensor([0, 1, 2, 0])
    with pytest.raises(UserError, match=r"top_k_accuracy: k = 5 must lie in 1 … 2"):
        scores(["top_k_accuracy"], outputs, ys, "class")

    @register("metric", "mean_alone", higher_is_better=True, perfect=1.0)
    def mean_alone(outputs, targets):
        return outputs.mean()

    with pytest.raises(UserError, match=r"'mean_alone' must return a value of every target"):
        scores(["mean_alone"], outputs, ys, "class")


def test_outputs_that_are_not_finite_have_no_score():
    outputs = torch.full((3, 2), NAN)
    assert math.isnan(scores(["mae"], outputs)["mae"])
    assert math.isnan(scores(["f1"], outputs, torch.tensor([0, 1, 0]), "class")["f1"])
