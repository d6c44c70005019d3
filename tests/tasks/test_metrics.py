"""Every built-in metric against scikit-learn and torchmetrics, used directly, and by hand."""

import math
import warnings

import numpy as np
import pytest
import sklearn.metrics as sk
import torch
import torchmetrics
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics import classification, regression
from torchmetrics.functional.text import perplexity

from thalnet_mtl.metrics.metric import METRICS
from thalnet_mtl.registry import entries
from thalnet_mtl.tasks.metrics import UndefinedScore
from thalnet_mtl.tasks.scoring import Scorer, find_metrics
from thalnet_mtl.tasks.targets import target_of

TOLERANCE = 1e-6
CLASSES, LABELS, NUMBERS, COUNT = 4, 3, 2, 240


def is_main(metric) -> bool:
    """Whether a metric can be the first of a task."""
    return (metric if isinstance(metric, str) else metric["name"]) != "calibration_error"


def score(metric, kind, outputs, ys, sizes=(7, 100, 400)) -> float:
    """The score in batches of unequal sizes."""
    first = {"class": "perplexity", "labels": "accuracy", "numbers": "mse"}[kind]
    metrics = find_metrics([metric] if is_main(metric) else [first, metric], target_of(kind), "")
    scorer = Scorer(metrics[-1:], target_of(kind))
    start = 0
    for size in sizes:
        if len(ys[start : start + size]):
            scorer.update(outputs[start : start + size], ys[start : start + size])
        start += size
    [value] = scorer.compute().values()
    return value


def data(kind, missing, seed=0):
    """Outputs and targets; the targets that are there; and the same without what is missing."""
    generator = torch.Generator().manual_seed(seed)
    width = {"class": CLASSES, "labels": LABELS, "numbers": NUMBERS}[kind]
    outputs = torch.randn(COUNT, width, generator=generator)
    if kind == "class":
        ys = torch.randint(CLASSES, (COUNT,), generator=generator)
        outputs[torch.arange(COUNT), ys] += 1
        gone = torch.rand(COUNT, generator=generator) < 0.3
    else:
        noise = torch.randn(COUNT, width, generator=generator)
        ys = (outputs + noise > 0).float() if kind == "labels" else outputs + noise
        gone = torch.rand(COUNT, width, generator=generator) < 0.3
    if missing:
        ys = torch.where(gone, -100 if kind == "class" else torch.nan, ys)
    there = ys != -100 if kind == "class" else ~ys.isnan()
    return outputs, ys, there


def of_classes(function):
    """What a library says of the classes that are there."""

    def expected(outputs, ys, there):
        return function(outputs[there].double(), ys[there])

    return expected


def of_each(function, pooled=False):
    """The mean over labels, or numbers, of what a library says of those that are there."""

    def expected(outputs, ys, there):
        outputs, ys = outputs.double(), ys.double()
        if pooled:
            return function(outputs[there], ys[there])
        columns = zip(outputs.T, ys.T, there.T, strict=True)
        return np.mean([float(function(o[t], y[t])) for o, y, t in columns])

    return expected


def binary(name, **options):
    return lambda o, y: getattr(classification, f"Binary{name}")(**options)(o.sigmoid(), y.long())


def classes(name, **options):
    return lambda o, y: getattr(classification, f"Multiclass{name}")(CLASSES, **options)(
        o.softmax(-1), y
    )


def one_hot(ys):
    return np.eye(CLASSES)[ys.numpy()]


# By kind of target and metric: what libraries compute.
EXPECTED = {
    ("class", "accuracy"): [
        of_classes(lambda o, y: sk.accuracy_score(y, o.argmax(-1))),
        of_classes(classes("Accuracy", average="micro")),
    ],
    ("class", "top_k_accuracy(k=2)"): [
        of_classes(lambda o, y: sk.top_k_accuracy_score(y, o, k=2)),
        of_classes(classes("Accuracy", average="micro", top_k=2)),
    ],
    ("class", "f1"): [
        of_classes(lambda o, y: sk.f1_score(y, o.argmax(-1), average="macro")),
        of_classes(classes("F1Score", average="macro")),
    ],
    ("class", "f1(average=weighted)"): [
        of_classes(lambda o, y: sk.f1_score(y, o.argmax(-1), average="weighted")),
        of_classes(classes("F1Score", average="weighted")),
    ],
    ("class", "f1(average=micro)"): [
        of_classes(lambda o, y: sk.f1_score(y, o.argmax(-1), average="micro")),
    ],
    ("class", "auroc"): [
        of_classes(lambda o, y: sk.roc_auc_score(y, o.softmax(-1), multi_class="ovr")),
        of_classes(classes("AUROC")),
    ],
    ("class", "average_precision"): [
        of_classes(lambda o, y: sk.average_precision_score(one_hot(y), o.softmax(-1))),
        of_classes(classes("AveragePrecision")),
    ],
    ("class", "calibration_error"): [of_classes(classes("CalibrationError", n_bins=15))],
    ("class", "calibration_error(bins=5)"): [of_classes(classes("CalibrationError", n_bins=5))],
    ("class", "bits_per_character"): [
        of_classes(lambda o, y: sk.log_loss(y, o.softmax(-1)) / math.log(2)),
        of_classes(lambda o, y: math.log2(perplexity(o[None], y[None]))),
    ],
    ("class", "perplexity"): [
        of_classes(lambda o, y: math.exp(sk.log_loss(y, o.softmax(-1)))),
        of_classes(lambda o, y: perplexity(o[None], y[None])),
    ],
    ("labels", "accuracy"): [
        of_each(lambda o, y: sk.accuracy_score(y, o > 0), pooled=True),
        of_each(binary("Accuracy"), pooled=True),
    ],
    ("labels", "f1"): [of_each(lambda o, y: sk.f1_score(y, o > 0)), of_each(binary("F1Score"))],
    ("labels", "f1(average=micro)"): [
        of_each(lambda o, y: sk.f1_score(y, o > 0), pooled=True),
        of_each(binary("F1Score"), pooled=True),
    ],
    ("labels", "auroc"): [
        of_each(lambda o, y: sk.roc_auc_score(y, o)),
        of_each(binary("AUROC")),
    ],
    ("labels", "average_precision"): [
        of_each(lambda o, y: sk.average_precision_score(y, o)),
        of_each(binary("AveragePrecision")),
    ],
    ("labels", "calibration_error"): [
        of_each(binary("CalibrationError", n_bins=15), pooled=True),
    ],
    ("numbers", "mae"): [
        of_each(lambda o, y: sk.mean_absolute_error(y, o), pooled=True),
        of_each(lambda o, y: regression.MeanAbsoluteError()(o, y), pooled=True),
    ],
    ("numbers", "mse"): [
        of_each(lambda o, y: sk.mean_squared_error(y, o), pooled=True),
        of_each(lambda o, y: regression.MeanSquaredError()(o, y), pooled=True),
    ],
    ("numbers", "rmse"): [
        of_each(lambda o, y: sk.root_mean_squared_error(y, o), pooled=True),
        of_each(lambda o, y: regression.MeanSquaredError(squared=False)(o, y), pooled=True),
    ],
    ("numbers", "r2"): [
        of_each(lambda o, y: sk.r2_score(y, o)),
        of_each(lambda o, y: torchmetrics.R2Score().set_dtype(torch.float64)(o, y)),
    ],
}


def choice(name):
    """The entry of a configuration for a metric with options in its name."""
    name, _, given = name.rstrip(")").partition("(")
    options = dict(part.split("=") for part in given.split(",") if part)
    return {"name": name} | {k: int(v) if v.isdigit() else v for k, v in options.items()}


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize(("kind", "name"), EXPECTED)
def test_a_metric_agrees_with_the_libraries(kind, name, missing):
    for seed in range(3):
        outputs, ys, there = data(kind, missing, seed)
        found = score(choice(name), kind, outputs, ys)
        for expected in EXPECTED[kind, name]:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of torchmetrics, on its memory
                assert found == pytest.approx(float(expected(outputs, ys, there)), abs=TOLERANCE)


def test_every_built_in_metric_is_compared_for_every_kind_of_target_that_it_fits():
    pairs = {(kind, name.partition("(")[0]) for kind, name in EXPECTED}
    registered = entries("metric")
    assert [*METRICS] == [name for name in registered if name in METRICS]
    assert {(k, n) for n in METRICS for k in registered[n].targets} == pairs


def test_values_by_hand():
    outputs = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0], [1.0, 0.0, 2.0], [5.0, 4.0, 3.0]])
    ys = torch.tensor([0, 1, 1, -100])
    assert score("accuracy", "class", outputs, ys) == 2 / 3
    assert score({"name": "top_k_accuracy", "k": 2}, "class", outputs, ys) == 2 / 3
    # Class 0: 1 of 1 predicted, 1 of 1 found. Class 1: 1 of 1, 1 of 2: 2/3. Class 2: 0.
    assert score("f1", "class", outputs, ys) == pytest.approx((1 + 2 / 3 + 0) / 3)
    even = torch.zeros(4, 8)
    assert score("bits_per_character", "class", even, torch.arange(4)) == pytest.approx(3)
    assert score("perplexity", "class", even, torch.arange(4)) == pytest.approx(8)
    numbers, nan = torch.tensor([[1.0, 0.0], [2.0, 0.0], [3.0, 4.0]]), torch.nan
    truth = torch.tensor([[0.0, nan], [2.0, 1.0], [nan, 2.0]])
    assert score("mae", "numbers", numbers, truth) == (1 + 0 + 1 + 2) / 4
    assert score("mse", "numbers", numbers, truth) == (1 + 0 + 1 + 4) / 4
    assert score("rmse", "numbers", numbers, truth) == math.sqrt(1.5)
    # Number 0: 1 − 1 / 2. Number 1: 1 − 5 / 0.5.
    assert score("r2", "numbers", numbers, truth) == pytest.approx((0.5 - 9) / 2)
    labels = torch.tensor([[1.0, nan], [0.0, 1.0], [nan, 0.0]])
    logits = torch.tensor([[1.0, -1.0], [-1.0, -2.0], [1.0, -3.0]])
    assert score("accuracy", "labels", logits, labels) == 3 / 4
    assert score("auroc", "labels", logits, labels) == 1


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), cut=st.integers(1, COUNT - 1), pair=st.sampled_from([*EXPECTED]))
def test_a_score_depends_neither_on_the_batches_nor_on_the_order(seed, cut, pair):
    kind, name = pair
    outputs, ys, _ = data(kind, True, seed)
    whole = score(choice(name), kind, outputs, ys, (COUNT,))
    order = torch.randperm(COUNT, generator=torch.Generator().manual_seed(seed))
    parts = score(choice(name), kind, outputs[order], ys[order], (cut, COUNT - cut))
    assert parts == pytest.approx(whole, rel=TOLERANCE, abs=TOLERANCE)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), name=st.sampled_from([n for n in METRICS if n != "r2"]))
def test_perfect_predictions_have_the_perfect_score(seed, name):
    kind = entries("metric")[name].targets[0]
    _, ys, _ = data(kind, False, seed)
    outputs = 60.0 * torch.nn.functional.one_hot(ys, CLASSES) if kind == "class" else ys
    options = {"k": 2} if name == "top_k_accuracy" else {}
    found = score({"name": name} | options, kind, outputs, ys)
    assert found == pytest.approx(METRICS[name].perfect, abs=TOLERANCE)


def test_r2_keeps_its_digits_far_from_zero():
    ys = 1e6 + torch.arange(64.0)[:, None]
    outputs = ys + torch.tensor([1.0, -1.0]).repeat(32)[:, None]
    assert score("r2", "numbers", outputs, ys) == pytest.approx(sk.r2_score(ys, outputs), abs=1e-9)


@pytest.mark.parametrize("name", ["f1", "auroc", "average_precision", "calibration_error"])
def test_one_label_is_scored_like_one_of_several(name):
    outputs, ys, _ = data("labels", True)
    alone = score(name, "labels", outputs[:, :1], ys[:, :1])
    twice = score(name, "labels", outputs[:, [0, 0]], ys[:, [0, 0]])
    assert alone == pytest.approx(twice, abs=1e-9)


@pytest.mark.parametrize("name", ["auroc", "average_precision"])
def test_classes_that_do_not_occur_are_left_out(name):
    outputs, ys, _ = data("class", False)
    kept = ys < 3
    more = torch.cat([outputs[kept], torch.full((int(kept.sum()), 1), -50.0)], 1)
    expected = score(name, "class", outputs[kept][:, :4], ys[kept])
    assert score(name, "class", more, ys[kept]) == pytest.approx(expected, abs=1e-9)


def test_a_score_that_does_not_exist_says_why():
    outputs, ys, _ = data("class", False)
    with pytest.raises(UndefinedScore, match="auroc: all targets are of class 2"):
        score("auroc", "class", outputs, torch.full_like(ys, 2))
    outputs, ys, _ = data("labels", False)
    ys[:, 1] = 0
    with pytest.raises(UndefinedScore, match="auroc: label 1 is never 1"):
        score("auroc", "labels", outputs, ys)
    with pytest.raises(UndefinedScore, match="average_precision: label 1 is never 1"):
        score("average_precision", "labels", outputs, ys)
    with pytest.raises(UndefinedScore, match="auroc: label 1 is never 0"):
        score("auroc", "labels", outputs, torch.cat([ys[:, :1], torch.ones_like(ys[:, 1:])], 1))
    outputs, ys, _ = data("numbers", False)
    ys[:, 1] = 3.1
    with pytest.raises(UndefinedScore, match=r"r2: all targets of number 1 are 3\.1"):
        score("r2", "numbers", outputs, ys)
    for name in METRICS:
        kind = entries("metric")[name].targets[0]
        outputs, ys, _ = data(kind, False)
        gone = torch.full_like(ys, -100 if kind == "class" else torch.nan)
        with pytest.raises(UndefinedScore, match=f"{name}.*: every target is missing"):
            score({"name": name} | ({"k": 2} if "k_" in name else {}), kind, outputs, gone)
