"""Tasks and batches of a step are functions of seed and step."""

from collections import Counter

import pytest
import torch
from run_fixtures import lines
from toy_tasks import JOINT, toy

from thalnet_mtl.training.sampling import sample_tasks
from thalnet_mtl.training.setup import set_up
from thalnet_mtl.training.trainer import train


def draws(tasks, count=3000, **options):
    run = set_up(toy(**JOINT | {"tasks": tasks}, train=options), fetch=print)
    names = []
    for run.state.step in range(count):
        [name] = sample_tasks(run)
        names.append(name)
    return run, names


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_tasks_are_drawn_by_their_tempered_sizes(temperature):
    run, names = draws({"toy_rows": {}, "toy_text": {"batch": 2}}, draw=temperature)
    sizes = {"toy_rows": 30, "toy_text": 1999 // 2 // 7}
    assert {name: run.batches_per_epoch(name) for name in sizes} == sizes
    odds = {name: size ** (1 / temperature) for name, size in sizes.items()}
    for name, count in Counter(names).items():
        assert count / len(names) == pytest.approx(odds[name] / sum(odds.values()), abs=0.03)


def test_given_shares_are_the_odds():
    _, names = draws({"toy_rows": {"share": 1}, "toy_text": {"share": 3}}, draw=1.0)
    assert Counter(names)["toy_text"] / len(names) == pytest.approx(0.75, abs=0.03)


def test_draws_depend_on_seed_and_step_alone():
    tasks = {"toy_rows": {}, "toy_text": {}}
    assert draws(tasks, 50, draw=1.0)[1] == draws(tasks, 50, draw=1.0)[1]
    assert draws(tasks, 50, draw=1.0)[1] != draws(tasks, 50, draw=1.0, seed=1)[1]


def test_a_task_that_is_not_drawn_is_not_a_loss_and_keeps_its_place(tmp_path):
    train(toy(**JOINT, train={"draw": 1.0, "steps": 40}), tmp_path)
    saved = torch.load(tmp_path / "checkpoint" / "last.pt", weights_only=True)
    assert sum(saved["batches_seen"].values()) == 40 and min(saved["batches_seen"].values()) > 0
    losses = [x["value"] for x in lines(tmp_path) if (x["split"], x["metric"]) == ("train", "loss")]
    assert min(losses) > 0


@pytest.mark.parametrize("temperature", [1e-320, 1e-9])
def test_a_temperature_near_zero_draws_the_largest(temperature):
    _, names = draws({"toy_rows": {"share": 1}, "toy_text": {"share": 3}}, 20, draw=temperature)
    assert set(names) == {"toy_text"}


def test_patience_counts_only_what_was_trained_meanwhile(tmp_path):
    tasks = {"toy_rows": {"share": 1}, "toy_text": {"share": 1e9}}
    train(toy(**JOINT | {"tasks": tasks}, train={"draw": 1.0, "patience": 1}), tmp_path)
    saved = torch.load(tmp_path / "checkpoint" / "last.pt", weights_only=True)
    assert (
        saved["batches_seen"]["toy_rows"]
        == saved["scores"]["best_by_task"]["toy_rows"]["validations_since"]
        == 0
    )
