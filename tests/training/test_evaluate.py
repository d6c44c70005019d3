import math

import pytest
import torch
from toy_tasks import toy, toy_rows, toy_text

from thalnet_mtl.errors import UserError
from thalnet_mtl.models.build import build
from thalnet_mtl.models.network import Network
from thalnet_mtl.models.thalnet import ThalNet
from thalnet_mtl.registry import entries
from thalnet_mtl.tasks.sequences import SequenceTask
from thalnet_mtl.topology.spec import ModuleSpec, TaskSpec
from thalnet_mtl.training.evaluate import evaluate, lesions


@pytest.mark.parametrize("batch", [1, 7, 500])
def test_rows_score_the_same_whatever_the_batch(batch):
    task = toy_rows().load("cpu")
    network = build(toy().model, {task.name: task.spec})
    rows = task.split("test")
    logits, _ = network(task.name, rows.xs / 255)
    values = evaluate(network, task, "test", batch)
    expected = torch.nn.functional.cross_entropy(logits, rows.ys.long()).item()
    assert values["loss"] == pytest.approx(expected, rel=1e-5)
    assert values["accuracy"] == (logits.argmax(-1) == rows.ys).double().mean().item()
    assert values["count"] == 100


def test_text_is_scored_as_one_stream_with_carried_state():
    task = toy_text().load("cpu")
    network = build(toy().model, {task.name: task.spec})
    text = task.split("test")[None].long()
    logits, _ = network(task.name, text[:, :-1])
    expected = torch.nn.functional.cross_entropy(logits[0], text[0, 1:]).item()
    for chunk in (1, 499):
        values = evaluate(network, task, "test", batch=1, chunk=chunk)
        assert values["loss"] == pytest.approx(expected, rel=1e-5)
        assert values["bits_per_character"] == pytest.approx(expected / math.log(2), rel=1e-5)
        assert values["count"] == 499


def test_at_most_so_many_batches_are_read_and_the_mode_is_given_back():
    task = toy_rows().load("cpu")
    network = build(toy().model, {task.name: task.spec})
    assert evaluate(network, task, "test", batch=7, batches=2)["count"] == 14
    assert network.training
    evaluate(network.eval(), task, "test")
    assert not network.training
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize("design", [name for name in entries("module") if "_" in name])
def test_a_silent_module_is_one_that_does_not_run(design):
    torch.manual_seed(0)
    made = {"context": 4, "module": design}
    modules = [
        ModuleSpec("eye", features=5, inputs=3, **made),
        ModuleSpec("side", features=4, **made),
        ModuleSpec("mouth", features=6, output=True, **made),
    ]
    net, xs = ThalNet(modules=modules), torch.rand(2, 7, 3)
    before = net(xs)[0]
    with net.lesioned("side"):
        ys, state = net(xs)
    expected, alone = net(xs, active=("eye", "mouth"))
    assert torch.allclose(ys, expected, atol=1e-6) and not torch.equal(ys, before)
    assert not state.center[:, net.slots["side"]].any()
    assert torch.allclose(state.center[:, net.slots["mouth"]], alone.center[:, 5:], atol=1e-6)
    with net.lesioned("mouth"):
        assert not net(xs)[0].any()
    assert torch.equal(net(xs)[0], before)


def test_lesions_score_a_task_without_each_module_that_it_runs():
    task = toy_rows().load("cpu")
    modules = [
        ModuleSpec("eye", features=5, context=4, inputs=3, reads=("eye",)),
        ModuleSpec("idle", features=4, context=4, reads=("eye",)),
        ModuleSpec("mouth", features=6, context=4, output=True, reads=("eye", "mouth")),
    ]
    network = Network(ThalNet(modules=modules))
    network.add_task(task.name, TaskSpec(3, 3))
    whole, found = evaluate(network, task, "test"), lesions(network, task, "test")
    assert [*found] == ["eye", "mouth"]
    bias = network.adapter(task.name).head.bias
    mute = torch.nn.functional.cross_entropy(bias.expand(100, -1), task.split("test").ys.long())
    assert found["mouth"]["loss"] == pytest.approx(mute.item(), rel=1e-5)
    assert found["eye"]["loss"] != whole["loss"] == evaluate(network, task, "test")["loss"]


def test_a_baseline_has_no_modules_to_silence():
    task = toy_rows().load("cpu")
    network = build(toy(model={"body": "gru"}).model, {task.name: task.spec})
    with pytest.raises(UserError, match="only a ThalNet has modules, not"):
        lesions(network, task, "test")


def test_missing_targets_count_in_no_score_and_in_no_loss():
    ys = torch.tensor([0, 1, 2, -100, 1, -100, 0])
    xs = torch.rand(7, 4, 3)
    task = SequenceTask("t", dict.fromkeys(("train", "validation", "test"), (xs, ys))).load("cpu")
    network = build(toy().model, {task.name: task.spec})
    there = ys != -100
    outputs = network(task.name, xs)[0][there]
    for batch in (1, 2, 7):
        values = evaluate(network, task, "test", batch)
        assert values["count"] == 5
        assert values["accuracy"] == (outputs.argmax(-1) == ys[there]).double().mean().item()
        expected = torch.nn.functional.cross_entropy(outputs, ys[there]).item()
        assert values["loss"] == pytest.approx(expected, rel=1e-6)


def test_a_weighted_loss_is_weighted_over_the_whole_split_not_within_batches():
    weights = [1.0, 5.0, 0.5]
    xs, ys = torch.rand(9, 4, 3), torch.tensor([0, 1, 2, 1, 1, 0, 2, 2, 0])
    task = SequenceTask("t", dict.fromkeys(("train", "validation", "test"), (xs, ys)))
    task = task.with_loss("cross_entropy", class_weights=weights).load("cpu")
    network = build(toy().model, {task.name: task.spec})
    outputs = network(task.name, xs)[0]
    expected = torch.nn.functional.cross_entropy(outputs, ys, torch.tensor(weights)).item()
    for batch in (2, 4, 9):
        assert evaluate(network, task, "test", batch)["loss"] == pytest.approx(expected, rel=1e-6)
