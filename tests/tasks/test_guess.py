"""Guessing is the best constant answer of the training part, scored like a network."""

import math
from functools import partial

import pytest
import sklearn.dummy
import sklearn.metrics as sk
import torch
from toy_tasks import toy

from thalnet_mtl.console import Console
from thalnet_mtl.tasks.evaluation import guess_scores
from thalnet_mtl.tasks.sequences import SequenceTask
from thalnet_mtl.training.setup import fetch_with, set_up

NAN = torch.nan


def task(ys, **options):
    """A task with these targets of the training, validation and test part."""
    splits = {
        name: (torch.rand(len(part), 3, 2), part)
        for name, part in zip(("train", "validation", "test"), ys, strict=True)
    }
    return SequenceTask("t", splits, **options).load("cpu")


def test_classes_are_guessed_by_their_frequency():
    ys = [torch.tensor(part) for part in ([0, 2, 2, 2, 1], [2, 0, 0, 0], [2, 1, 2, 2, 0])]
    metrics = "accuracy", "f1", "bits_per_character", "auroc"
    guess = partial(guess_scores, task(ys, metrics=metrics))
    assert guess("validation")["accuracy"] == 1 / 4  # the majority of the training part, class 2
    assert guess("test")["accuracy"] == 3 / 5
    assert guess("test")["f1"] == pytest.approx(0.75 / 3)  # class 2: 2 · 3/5 · 1 / (3/5 + 1)
    p = {0: 2 / 8, 1: 2 / 8, 2: 4 / 8}  # one is added to every count
    nats = -sum(math.log(p[y]) for y in [2, 1, 2, 2, 0]) / 5
    assert guess("test")["loss"] == pytest.approx(nats)
    assert guess("test")["bits_per_character"] == pytest.approx(nats / math.log(2))
    assert guess("test")["auroc"] == 0.5


def test_numbers_are_guessed_by_their_mean_as_scikit_learn_does():
    parts = [torch.randn(n, 2) * 3 + 5 for n in (40, 20, 30)]
    parts[0][3, 0] = parts[2][1, 1] = NAN
    found = guess_scores(task(parts, target="numbers", metrics=("mse", "mae", "r2")), "validation")
    means = parts[0].double().nanmean(0)
    dummy = sklearn.dummy.DummyRegressor(strategy="constant", constant=means.numpy())
    answers = dummy.fit(torch.zeros(40, 1), parts[0].nan_to_num()).predict(torch.zeros(20, 1))
    assert found["mse"] == pytest.approx(sk.mean_squared_error(parts[1], answers), rel=1e-6)
    assert found["mae"] == pytest.approx(sk.mean_absolute_error(parts[1], answers), rel=1e-6)
    assert found["r2"] == pytest.approx(sk.r2_score(parts[1], answers), abs=1e-6)
    assert found["loss"] == pytest.approx(found["mse"])


def test_labels_are_guessed_by_their_frequency():
    ys = torch.tensor([[1.0, 0], [1, 0], [1, 1], [NAN, 0], [0, 0]])
    parts = [ys, torch.tensor([[1.0, 1.0], [0.0, NAN]]), ys]
    guess = guess_scores(task(parts, target="labels", metrics=("accuracy", "f1")), "validation")
    assert guess["accuracy"] == 1 / 3  # the answer is yes, no
    assert guess["f1"] == pytest.approx((2 / 3 + 0) / 2)


def test_a_guess_at_every_step_leaves_out_what_is_past_the_end():
    ys = [torch.tensor([1, 1, 1]), torch.tensor([1])]
    xs = [torch.rand(3, 2), torch.rand(1, 2)]
    other = [torch.tensor([0, 1, 0]), torch.tensor([0])]
    splits = {"train": (xs, ys), "validation": (xs, other), "test": (xs, other)}
    splits["train"] = (xs, [torch.tensor([1, 0, 1]), torch.tensor([1])])
    found = guess_scores(SequenceTask("t", splits).load("cpu"), "validation")
    assert found["accuracy"] == 1 / 4


def test_guessing_reads_no_inputs(monkeypatch):
    read = task([torch.tensor([0, 1, 1, 0, 1])] * 3)
    monkeypatch.setattr(read, "to_batch", None)
    assert guess_scores(read, "test")["accuracy"] == 3 / 5


def test_a_guess_covers_as_many_batches_as_an_evaluation():
    ys = [torch.tensor(part) for part in ([0, 1, 1], [1, 1, 0, 0], [0, 1])]
    counted = task(ys)
    assert guess_scores(counted, "validation", size=2, batches=1)["accuracy"] == 1
    assert guess_scores(counted, "validation", size=2)["accuracy"] == 0.5


def test_a_run_computes_what_guessing_scores_once(monkeypatch):
    run = set_up(toy(evaluate={"batch": 24, "batches": 1}), fetch_with(Console()))
    first = run.guess("toy_rows", "validation")
    assert first == guess_scores(run.tasks["toy_rows"], "validation", size=24, batches=1)
    monkeypatch.setattr(run.tasks["toy_rows"], "iterate_targets", None)
    assert run.guess("toy_rows", "validation") == first
