"""A network as a model of Avalanche: logits for each task, and their loss."""

import pytest
import torch
from avalanche_fixtures import network_for, tasks
from torch.nn import functional as F
from toy_tasks import toy_rows, toy_text, toy_wide

from thalnet_mtl.avalanche.model import UNUSED_LOGIT, Loss, as_avalanche
from thalnet_mtl.avalanche.ragged import RaggedBatch, stack

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:avalanche"),
    pytest.mark.filterwarnings("ignore:Using a non-tuple sequence:UserWarning:avalanche"),
]


def test_in_a_batch_of_several_tasks_each_gets_its_own_logits():
    loaded = tasks(a=toy_rows, b=toy_wide, c=toy_rows)
    network = network_for(loaded)
    model = as_avalanche(network, loaded)
    xs = {
        name: torch.rand(3, *shape) for name, shape in (("a", (4, 3)), ("b", (5, 4)), ("c", (4, 3)))
    }
    names = ["c", "b", "a", "b", "c", "a"]
    batch = stack([xs[name][k % 3] for k, name in enumerate(names)])
    out = model(batch, torch.tensor([list(loaded).index(name) for name in names]))
    for k, name in enumerate(names):
        logits = network(name, xs[name][k % 3][None])[0][0]
        torch.testing.assert_close(out[k, : len(logits)], logits)
        assert (out[k, len(logits) :] == UNUSED_LOGIT).all()
    assert torch.equal(model(xs["a"], torch.zeros(3).long()), network("a", xs["a"])[0])


def test_answers_at_every_step_and_at_the_last_one_may_meet():
    loaded = tasks(a=toy_rows, b=toy_text)
    network = network_for(loaded)
    xs, text = torch.rand(2, 4, 3), torch.randint(5, (1, 7))
    model = as_avalanche(network, loaded)
    out = model(RaggedBatch([xs[0], text[0], xs[1]]), torch.tensor([0, 1, 0]))
    ys = RaggedBatch([torch.tensor(2), torch.randint(5, (7,)), torch.tensor(0)])
    losses = [F.cross_entropy(network("a", xs[k][None])[0][0], ys[2 * k]) for k in range(2)]
    losses.append(F.cross_entropy(network("b", text)[0][0], ys[1]))
    torch.testing.assert_close(Loss(model)(out, ys), torch.stack(losses).mean())


def test_the_loss_of_one_task_is_its_own():
    loaded = tasks(a=toy_rows, b=toy_text)
    model = as_avalanche(network_for(loaded), loaded)
    ys, text = torch.randint(3, (6,)), torch.randint(5, (2, 7))
    logits = model(torch.rand(6, 4, 3), torch.zeros(6).long())
    assert torch.equal(Loss(model)(logits, ys), F.cross_entropy(logits, ys))
    logits = model(text, torch.ones(2).long())
    expected = F.cross_entropy(logits.flatten(0, 1), text.flatten())
    torch.testing.assert_close(Loss(model)(logits, text), expected)


def test_without_labels_all_seen_tasks_of_the_shape_answer():
    loaded = tasks(a=toy_rows, b=toy_wide, c=toy_rows, d=toy_text)
    model = as_avalanche(network_for(loaded), loaded)
    model.known_train_tasks_labels = {0, 1, 3}
    assert set(model(torch.rand(2, 4, 3), None)) == {0}
    assert set(model(torch.rand(2, 5, 4), None)) == {1}
    assert set(model(torch.randint(5, (2, 7)), None)) == {3}


def test_frozen_modules_stay_in_evaluation_mode_when_avalanche_trains():
    loaded = tasks(a=toy_rows, b=toy_wide)
    network = network_for(loaded)
    network.freeze(task="a")
    as_avalanche(network, loaded).train()
    frozen = network.active_modules("a")
    assert frozen and not any(network.body.cells[name].training for name in frozen)
    assert not network.adapter("a").training and network.adapter("b").training
