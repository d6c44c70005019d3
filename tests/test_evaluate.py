import math

import pytest
import torch
from toys import toy, toy_rows, toy_text

from thalnet_mtl.build import build
from thalnet_mtl.config import TaskConfig
from thalnet_mtl.evaluate import evaluate


@pytest.mark.parametrize("batch", [1, 7, 500])
def test_rows_score_the_same_whatever_the_batch(batch):
    task = toy_rows(TaskConfig()).to("cpu")
    network = build(toy().model, {task.name: task.interface})
    rows = task.split("test")
    logits, _ = network(task.name, rows.xs / 255)
    values = evaluate(network, task, "test", batch)
    expected = torch.nn.functional.cross_entropy(logits, rows.ys.long()).item()
    assert values["loss"] == pytest.approx(expected, rel=1e-5)
    assert values["accuracy"] == (logits.argmax(-1) == rows.ys).double().mean().item()
    assert values["count"] == 100


def test_text_is_scored_as_one_stream_with_carried_state():
    task = toy_text(TaskConfig()).to("cpu")
    network = build(toy().model, {task.name: task.interface})
    text = task.split("test")[None].long()
    logits, _ = network(task.name, text[:, :-1])
    expected = torch.nn.functional.cross_entropy(logits[0], text[0, 1:]).item()
    for chunk in (1, 499):
        values = evaluate(network, task, "test", batch=1, chunk=chunk)
        assert values["loss"] == pytest.approx(expected, rel=1e-5)
        assert values["bits_per_character"] == pytest.approx(expected / math.log(2), rel=1e-5)
        assert values["count"] == 499


def test_at_most_so_many_batches_are_read_and_the_mode_is_given_back():
    task = toy_rows(TaskConfig()).to("cpu")
    network = build(toy().model, {task.name: task.interface})
    assert evaluate(network, task, "test", batch=7, batches=2)["count"] == 14
    assert network.training
    evaluate(network.eval(), task, "test")
    assert not network.training
    assert all(parameter.grad is None for parameter in network.parameters())
