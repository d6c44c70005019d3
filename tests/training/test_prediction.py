"""Predictions of a run are what its network answers to raw data, in the units of the targets."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from thalnet_mtl import Network, SequenceTask, TextTask, ThalNet, load_config, load_run, train
from thalnet_mtl.errors import UserError
from thalnet_mtl.training.evaluate import evaluate
from thalnet_mtl.training.prediction import predict

SPLITS = ("train", "validation", "test")


def network_for(task, **options):
    torch.manual_seed(0)
    network = Network(ThalNet(inputs=task.spec.inputs, modules=2, features=5, **options))
    network.add_task(task.head_name, task.spec)
    return network


def splits_of(xs, ys):
    """Cut 30 sequences into three splits of 10."""
    parts = slice(0, 10), slice(10, 20), slice(20, 30)
    return {name: (xs[part], ys[part]) for name, part in zip(SPLITS, parts, strict=True)}


def test_the_share_of_right_classes_is_the_accuracy_of_the_evaluation():
    run = load_run("zoo:digits")
    task = run.task().load("cpu")
    xs, ys, _ = task.sequences("test", 0)
    classes = run.predict(xs.numpy())
    assert classes.dtype == torch.int64
    scores = evaluate(run.network, task, "test", 100, 0)
    assert (classes == ys).float().mean().item() == pytest.approx(scores["accuracy"])
    assert scores["accuracy"] > 0.9


@pytest.mark.parametrize("stored", ["in their units", "scaled"])
def test_numbers_are_in_the_units_of_the_targets(tmp_path, monkeypatch, stored):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    xs = rng.normal(40, 9, (30, 6, 1))
    ys = 500 + 3 * xs[:, :, 0].mean(1, keepdims=True)
    if stored == "scaled":
        lines = ["series,x,y"]
        lines += [f"{k},{x},{ys[k, 0]}" for k in range(30) for x in xs[k, :, 0].tolist()]
        (tmp_path / "a.csv").write_text("\n".join(lines))
        task = {"name": "csv", "path": "a.csv", "group": "series", "inputs": ["x"],
                "outputs": ["y"], "target": "numbers"}  # fmt: skip
        given = []
    else:
        given = [SequenceTask("mean", splits_of(xs, ys), target="numbers", standardize=True)]
        task = {"name": "mean"}
    options = {"steps": 60, "batch": 10, "optimizer": "adam", "learning_rate": 0.02}
    model = {"modules": 2, "features": 5, "extra_steps": 1}
    train(load_config(task=task, model=model, train=options), tmp_path / "run", tasks=given)
    run = load_run(tmp_path / "run", tasks=given)
    numbers = run.predict(xs)
    loaded = run.task().load("cpu")
    of_inputs, of_targets = loaded.scalings
    scaled = torch.tensor((xs - of_inputs.mean[0]) / of_inputs.deviation[0], dtype=torch.float32)
    expected = run.network(loaded.head_name, scaled)[0] * of_targets.deviation[0]
    assert_close(numbers, expected + of_targets.mean[0], rtol=1e-5, atol=1e-3)
    assert numbers.shape == (30, 1) and (numbers - torch.tensor(ys)).abs().mean() < ys.std()


@pytest.mark.parametrize(("target", "missing"), [("class", -100), ("numbers", float("nan"))])
def test_a_list_of_unequal_sequences_is_a_padded_batch_with_lengths(target, missing):
    xs, lengths = torch.rand(30, 5, 2), torch.randint(1, 6, (30,))
    lengths[0] = 5
    ys = torch.randint(3, (30, 5)) if target == "class" else torch.rand(30, 5, 1)
    task = SequenceTask("t", splits_of(xs, ys), target=target, standardize=True).load("cpu")
    network = network_for(task)
    padded = predict(network, task, xs, lengths)
    listed = [x[:length] for x, length in zip(xs, lengths, strict=True)]
    assert_close(predict(network, task, listed), padded, equal_nan=True)
    assert_close(padded[0], predict(network, task, xs)[0], equal_nan=True)
    for answers, length in zip(padded, lengths, strict=True):
        past = answers[length:]
        assert (past.isnan() if target == "numbers" else past == missing).all()
        assert not (answers[:length] == missing).any() and not answers[:length].isnan().any()


def test_labels_and_tokens_are_answered_in_the_form_of_targets():
    xs = torch.rand(30, 4, 2)
    task = SequenceTask("l", splits_of(xs, (xs[:, 0] > 0.5).float()), target="labels").load("cpu")
    network = network_for(task)
    answers = predict(network, task, xs)
    assert torch.equal(answers, (network("l", xs)[0] > 0).float())
    text = TextTask("text", lambda: dict.fromkeys(SPLITS, torch.randint(9, (99,))), 9).load("cpu")
    network = network_for(text)
    tokens = torch.randint(9, (3, 7))
    assert torch.equal(predict(network, text, tokens), network("text", tokens)[0].argmax(-1))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (torch.rand(3, 4, 5), r"inputs of task 't' are \(batch, time, 2\), got \(3, 4, 5\)"),
        (torch.rand(3, 4), r"are \(batch, time, 2\), got \(3, 4, 1\)"),
        (3.0, "expected sequences, got float"),
        ([["a", "b"]], "expected an array of numbers"),
        ({"x": torch.rand(3, 4, 2)}, "has the inputs one array, no mapping"),
    ],
)
def test_inputs_that_do_not_fit_are_one_line(inputs, message):
    xs = torch.rand(30, 4, 2)
    task = SequenceTask("t", splits_of(xs, torch.randint(3, (30,)))).load("cpu")
    with pytest.raises(UserError, match=message):
        predict(network_for(task), task, inputs)
