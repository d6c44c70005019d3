"""Losses against PyTorch and scikit-learn in float64: weights, smoothing, and missing targets."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from properties import examples, seeds
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional as F

from thalnet_mtl.config.load import load_configs
from thalnet_mtl.errors import UserError
from thalnet_mtl.registry import entries, register
from thalnet_mtl.tasks.batch import Batch
from thalnet_mtl.tasks.losses import Loss, make_loss
from thalnet_mtl.tasks.sequences import SequenceTask
from thalnet_mtl.tasks.targets import MISSING_CLASS, TARGETS
from thalnet_mtl.topology.spec import TaskSpec
from thalnet_mtl.training.trainer import train

SPLITS = ("train", "validation", "test")
NUMBERS = {
    "mse": lambda outputs, ys: F.mse_loss(outputs, ys),
    "mae": lambda outputs, ys: F.l1_loss(outputs, ys),
    "huber": lambda outputs, ys: F.huber_loss(outputs, ys),
}


def logits(seed, *shape):
    generator = torch.Generator().manual_seed(seed)
    drawn = 2 * torch.randn(shape, generator=generator, dtype=torch.float64)
    return drawn.requires_grad_()


def missing(seed, shape, share=0.4):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed + 1)) < share


def classes(seed, *shape, count=4):
    ys = torch.randint(count, shape, generator=torch.Generator().manual_seed(seed + 2))
    return ys.masked_fill(missing(seed, shape), MISSING_CLASS)


def numbers(seed, *shape):
    generator = torch.Generator().manual_seed(seed + 2)
    ys = 2 * torch.randn(shape, generator=generator, dtype=torch.float64)
    return ys.masked_fill(missing(seed, shape), math.nan)


def assert_same(loss, expected, outputs):
    """Compare two losses and their gradients with respect to the outputs, in float64."""
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-14)
    gradients = [
        torch.autograd.grad(part, outputs, retain_graph=True)[0] for part in (loss, expected)
    ]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-14)


@given(
    seed=seeds,
    smoothing=st.sampled_from([0.0, 0.1, 0.7]),
    weights=st.sampled_from([None, [1.0, 2.0, 0.5, 3.0], [0.0, 1.0, 1.0, 0.0]]),
    every_step=st.booleans(),
)
@examples(max_examples=40)
def test_cross_entropy_is_pytorchs_with_weights_smoothing_and_ignored_targets(
    seed, smoothing, weights, every_step
):
    shape = (3, 5) if every_step else (7,)
    outputs, ys = logits(seed, *shape, 4), classes(seed, *shape)
    ys[0] = 1  # at least one is there, and of a weight above 0
    loss = make_loss("cross_entropy", label_smoothing=smoothing, class_weights=weights)
    loss.prepare(ys, 4)
    expected = F.cross_entropy(
        outputs.flatten(0, -2),
        ys.flatten(),
        weight=None if weights is None else torch.tensor(weights, dtype=torch.float64),
        label_smoothing=smoothing,
        ignore_index=MISSING_CLASS,
    )
    for mean in (loss.mean, loss.complete_mean):
        assert_same(mean(TARGETS["class"], outputs, ys), expected, outputs)


@given(
    seed=seeds,
    weights=st.sampled_from([None, [2.0, 0.5, 1.0]]),
    every_step=st.booleans(),
)
@examples(max_examples=40)
def test_binary_cross_entropy_is_pytorchs_on_the_labels_that_are_there(seed, weights, every_step):
    shape = (3, 5, 3) if every_step else (7, 3)
    outputs, there = logits(seed, *shape), ~missing(seed, shape)
    there.view(-1)[0] = True
    ys = torch.randint(2, shape, generator=torch.Generator().manual_seed(seed)).double()
    ys = ys.masked_fill(~there, math.nan)
    loss = make_loss("binary_cross_entropy", positive_weights=weights)
    loss.prepare(ys, 3)
    factor = torch.ones(3) if weights is None else torch.tensor(weights)
    factor = factor.expand(shape)[there].double()
    expected = F.binary_cross_entropy_with_logits(outputs[there], ys[there], pos_weight=factor)
    assert_same(loss.mean(TARGETS["labels"], outputs, ys), expected, outputs)


@given(seed=seeds, name=st.sampled_from([*NUMBERS]), every_step=st.booleans())
@examples(max_examples=40)
def test_losses_of_numbers_are_pytorchs_on_the_numbers_that_are_there(seed, name, every_step):
    shape = (3, 5, 2) if every_step else (7, 2)
    outputs, ys = logits(seed, *shape), numbers(seed, *shape)
    ys.view(-1)[0] = 0.5
    there = ~ys.isnan()
    expected = NUMBERS[name](outputs[there], ys[there])
    assert_same(make_loss(name).mean(TARGETS["numbers"], outputs, ys), expected, outputs)


def test_huber_has_a_delta():
    outputs, ys = logits(0, 6, 1), numbers(0, 6, 1).nan_to_num(3.0)
    expected = F.huber_loss(outputs, ys, delta=0.5)
    assert_same(make_loss("huber", delta=0.5).mean(TARGETS["numbers"], outputs, ys),
                expected, outputs)  # fmt: skip
    with pytest.raises(UserError, match="delta -1 must be above 0"):
        make_loss("huber", delta=-1).mean(TARGETS["numbers"], outputs, ys)


EVERY = {  # a loss of each kind, with its options, and targets of two sequences
    "cross_entropy": ({"label_smoothing": 0.1, "class_weights": [1.0, 2.0, 0.5, 3.0]}, "class"),
    "binary_cross_entropy": ({"positive_weights": [2.0, 0.5, 1.0, 1.0]}, "labels"),
    "mse": ({}, "numbers"),
    "mae": ({}, "numbers"),
    "huber": ({"delta": 0.3}, "numbers"),
}


def targets(kind, seed, *shape):
    if kind == "class":
        return classes(seed, *shape)
    ys = numbers(seed, *shape, 4)
    return ys if kind == "numbers" else torch.where(ys.isnan(), ys, (ys > 0).double())


def test_the_list_above_has_every_loss():
    assert EVERY.keys() == {name for name in entries("loss") if not name.startswith("toy_")}


def task_of(name, shape, ys, **options):
    """A task with a loss and its options, whose three splits are the same."""
    kind = EVERY[name][1]
    spec = TaskSpec(3, 4, every_step=len(shape) == 2, steps=5)
    data = dict.fromkeys(SPLITS, (torch.zeros(shape[0], 5, 3), ys))
    loss = make_loss(name, **options)
    return SequenceTask("a", data, spec, target=kind, loss=loss).load("cpu")


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("shape", [(9,), (9, 5)])
def test_the_mean_of_batches_weighted_by_their_count_is_that_of_one_pass(name, shape):
    options, kind = EVERY[name]
    ys = targets(kind, 3, *shape)
    ys[2:5] = TARGETS[kind].missing  # one batch lacks every target
    task = task_of(name, shape, ys, **options)
    outputs = logits(4, *shape, 4)
    whole = Batch(torch.zeros(9, 5, 3), ys, True)
    parts = [(outputs[a:b], whole.slice(a, b)) for a, b in ((0, 2), (2, 5), (5, 9))]
    total = sum(task.loss(out, batch) * task.count(batch) for out, batch in parts)
    expected = task.loss(outputs, whole)
    assert_same(total / task.count(whole), expected, outputs)
    assert torch.equal(sum(task.count(batch) for _, batch in parts), task.count(whole))
    assert not task.loss(*parts[1]) and not task.count(parts[1][1])


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("shape", [(3,), (3, 5)])
def test_without_any_target_loss_and_gradient_are_zero(name, shape):
    options, kind = EVERY[name]
    loss, ys = make_loss(name, **options), targets(kind, 1, *shape)
    loss.prepare(ys, 4)
    ys.fill_(TARGETS[kind].missing)
    outputs = logits(0, *shape, 4)
    mean = loss.mean(TARGETS[kind], outputs, ys)
    mean.backward()
    assert mean == 0 and torch.equal(outputs.grad, torch.zeros_like(outputs))
    assert loss.total_weight(TARGETS[kind], ys) == 0


def test_classes_of_weight_zero_cost_nothing_even_alone():
    loss = make_loss("cross_entropy", class_weights=[0.0, 1.0])
    ys = torch.tensor([0, 0])
    loss.prepare(ys, 2)
    outputs = logits(0, 2, 2)
    loss.complete_mean(TARGETS["class"], outputs, ys).backward()
    assert not outputs.grad.any()


@given(seed=seeds, count=st.integers(2, 6))
@examples(max_examples=40)
def test_balanced_weights_are_scikit_learns(seed, count):
    ys = classes(seed, 30, count=count)
    ys[0] = 0
    loss = make_loss("cross_entropy", class_weights="balanced")
    loss.prepare(ys, count)
    there = ys[ys != MISSING_CLASS].numpy()
    present = np.unique(there)
    expected = compute_class_weight("balanced", classes=present, y=there)
    found = loss.weights(torch.from_numpy(present)).double().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_balanced_weights_of_labels_are_zeros_over_ones():
    ys = torch.tensor([[1.0, 0], [0, 0], [0, 1], [math.nan, 1]])
    loss = make_loss("binary_cross_entropy", positive_weights="balanced")
    loss.prepare(ys, 2)
    outputs = logits(0, 4, 2)
    there = ~ys.isnan()
    factor = torch.tensor([2.0, 1.0]).double().expand(4, 2)[there]
    expected = F.binary_cross_entropy_with_logits(
        outputs[there], ys[there].double(), pos_weight=factor
    )
    assert_same(loss.mean(TARGETS["labels"], outputs, ys), expected, outputs)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("cross_entropy", {"label_smoothing": 1.0}, "label_smoothing 1.0: must be at least 0"),
        ("cross_entropy", {"class_weights": "balance"}, "Did you mean 'balanced'"),
        ("binary_cross_entropy", {"positive_weights": "equal"}, "Allowed: balanced"),
        ("cross_entropyy", {}, "Did you mean 'cross_entropy'"),
    ],
)
def test_wrong_options_are_refused_when_a_loss_is_built(name, options, words):
    with pytest.raises(UserError, match=words):
        make_loss(name, **options)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("cross_entropy", {"class_weights": [1.0, 2.0]}),
        ("cross_entropy", {"class_weights": [1.0, 2.0, -1.0, 1.0]}),
        ("binary_cross_entropy", {"positive_weights": [1.0]}),
        ("binary_cross_entropy", {"positive_weights": [1.0, 0.0, 1.0, 1.0]}),
    ],
)
def test_weights_that_do_not_fit_the_outputs_are_refused_when_the_data_is_loaded(name, options):
    with pytest.raises(UserError, match="expected 4 numbers"):
        task_of(name, (9,), targets(EVERY[name][1], 0, 9), **options)


# Losses of one's own


@register("loss", "toy_relative")
def relative(outputs, targets, power=1.0):
    """Relative error: without a derivative where a target is 0."""
    return ((outputs - targets) / targets).abs() ** power


@register("loss", "toy_weighted")
class Weighted(Loss):
    """A squared error, of which large targets count more."""

    targets = ("numbers",)

    def __init__(self, slope: float = 1.0):
        self.slope = slope

    def prepare(self, ys, outputs):
        self.largest = float(ys.nan_to_num(0).abs().max())

    def weights(self, ys):
        return 1 + self.slope * ys.abs() / self.largest

    def each(self, outputs, ys):
        return self.weights(ys) * (outputs - ys).square()


def test_an_own_function_sees_only_valid_targets():
    ys, outputs = numbers(0, 6, 2), logits(0, 6, 2)
    there = ~ys.isnan()
    expected = ((outputs[there] - ys[there]) / ys[there]).square().mean()
    loss = make_loss("toy_relative", power=2.0).mean(TARGETS["numbers"], outputs, ys)
    assert_same(loss, expected, outputs)
    assert there.sum() < there.numel()


def test_an_own_class_may_weigh_targets_by_the_training_part():
    ys, outputs = numbers(0, 6, 2), logits(0, 6, 2)
    loss = make_loss("toy_weighted", slope=2.0)
    loss.prepare(ys, 2)
    weights = 1 + 2 * ys.abs() / ys.nan_to_num(0).abs().max()
    expected = (weights * (outputs - ys).square()).nansum() / weights.nansum()
    # The weighted mean is computed in two ways; ``nansum`` has NaN in its gradient.
    torch.testing.assert_close(loss.mean(TARGETS["numbers"], outputs, ys), expected)


@pytest.mark.parametrize("shape", [(4,), (4, 5)])
def test_a_function_of_pytorch_without_reduction_is_a_loss_at_every_step_too(shape):
    ys, outputs = classes(1, *shape), logits(1, *shape, 4)
    ys[0] = 2
    own = make_loss(lambda outputs, ys: F.multi_margin_loss(outputs, ys, reduction="none"))
    flat = ys.flatten()
    there = flat != MISSING_CLASS
    expected = F.multi_margin_loss(outputs.flatten(0, -2)[there], flat[there])
    assert_same(own.mean(TARGETS["class"], outputs, ys), expected, outputs)


def broken(outputs, ys):
    raise ValueError("this cannot be\ncomputed")


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (lambda outputs, ys: F.mse_loss(outputs, ys), r"of shape \(2, 2\), without a mean"),
        (lambda outputs, ys: (outputs - ys).square().sum(-1), r"it has returned \(2,\)"),
        (lambda outputs, ys: 1.0, "it has returned float"),
        (lambda outputs, ys: (outputs - ys).detach(), "the loss has no gradient"),
        (lambda outputs, ys: (outputs > ys).float(), "the loss has no gradient"),
        (broken, r"task 'a': the loss fails: this cannot be$"),
    ],
)
def test_a_loss_that_is_none_is_refused_when_the_data_is_loaded(loss, words):
    data = dict.fromkeys(SPLITS, (torch.zeros(6, 5, 3), numbers(0, 6, 2).float()))
    task = SequenceTask("a", data, TaskSpec(3, 2, steps=5), target="numbers", loss=loss)
    with pytest.raises(UserError, match=words) as raised:
        task.load("cpu")
    assert str(raised.value).startswith("task 'a': ") and "\n" not in str(raised.value)


def test_a_loss_of_another_kind_of_target_is_refused():
    data = dict.fromkeys(SPLITS, (torch.zeros(6, 5, 3), numbers(0, 6, 2)))
    with pytest.raises(UserError, match="'cross_entropy' is for targets of kind class, not 'numb"):
        SequenceTask("a", data, target="numbers", loss="cross_entropy")


@register("loss", "toy_gaussian")
def gaussian(outputs, targets, deviation=1.0):
    """−log N(y; ŷ, deviation²) without its constant: negative for a small deviation."""
    variance = torch.full_like(outputs, deviation**2)
    return F.gaussian_nll_loss(outputs, targets, variance, reduction="none")


@register("task", "toy_levels")
def levels():
    """The mean of a sequence; every third is missing."""
    xs = torch.rand(90, 4, 3, generator=torch.Generator().manual_seed(0))
    ys = xs.mean((1, 2))[:, None].clone()
    ys[::3] = math.nan
    return SequenceTask("toy_levels", dict.fromkeys(SPLITS, (xs, ys)), target="numbers")


@pytest.mark.parametrize("strategy", ["naive", "ewc", "avalanche:ewc"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning:avalanche")
def test_an_own_loss_with_options_is_trained_from_yaml_though_it_is_negative(tmp_path, strategy):
    path = tmp_path / "config.yaml"
    path.write_text(f"""
tasks:
  a: {{name: toy_levels, loss: {{name: toy_gaussian, deviation: 0.15}}}}
  b: {{name: toy_levels, loss: {{name: toy_gaussian, deviation: 0.15}}}}
stream: [{{tasks: [a], steps: 12}}, {{tasks: [b], steps: 12}}]
model: {{modules: 2, features: 4}}
train: {{batch: 30, optimizer: adam, learning_rate: 0.01, strategy: '{strategy}'}}
evaluate: {{every: 12, log_every: 4}}
""")
    train(load_configs([str(path)])[""], tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    losses = [m["value"] for m in lines if (m["split"], m["metric"]) == ("train", "loss")]
    assert len(losses) == 6 and min(losses) < 0 < max(losses)
    score = next(m["value"] for m in lines[::-1] if (m["task"], m["split"]) == ("b", "test")
                 and m["metric"] == "loss")  # fmt: skip
    error = next(m["value"] for m in lines[::-1] if (m["task"], m["split"]) == ("b", "test")
                 and m["metric"] == "rmse")  # fmt: skip
    # The loss is −log N up to its constant, of the mean squared error.
    assert score == pytest.approx(error**2 / (2 * 0.15**2) + math.log(0.15), rel=1e-4)
