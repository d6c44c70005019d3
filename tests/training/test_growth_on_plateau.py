"""A network grows on a plateau of its validation scores."""

import json

import pytest
import torch
from stream_fixtures import scripted, step_until
from toy_tasks import GROWING, toy

from thalnet_mtl.errors import UserError
from thalnet_mtl.models.size import count_parameters
from thalnet_mtl.training.context import RunContext
from thalnet_mtl.training.growth.base import grow_if_due
from thalnet_mtl.training.setup import set_up
from thalnet_mtl.training.trainer import train

ROUNDING = {"rtol": 1e-5, "atol": 1e-6}


def answers(run: RunContext) -> dict[str, torch.Tensor]:
    """The logits of every task that is there, on some of its training part."""
    with torch.no_grad():
        return {
            name: run.network(
                run.tasks[name].head_name, run.tasks[name].training_batch(3, 10, 7, 0).xs
            )[0]
            for name in run.attached_tasks
        }


@pytest.mark.parametrize("policy", ["frozen", "shared"])
def test_a_plateau_that_may_come_is_in_the_budget(policy):
    modules = {"own": {"input": True, "output": True, "tasks": ["toy_rows"]}}
    growing = GROWING["plateau"] | {"policy": policy}
    config = toy(modules=modules, growth=growing, model={"budget": 0}, train={"steps": 30})
    run = set_up(config, fetch=print)
    small = count_parameters(run.network)
    run.state.step, run.state.scores.best_by_task = (
        1,
        {"toy_rows": {"step": 1, "value": 0.0, "validations_since": 1}},
    )
    assert [change.verb for change in grow_if_due(run)][-1] == "attach"
    size = count_parameters(run.network)
    for budget in (size, size - 1):
        sections = {"modules": modules, "growth": growing, "model": {"budget": budget}}
        if budget == size:
            set_up(toy(**sections), fetch=print)
        else:
            with pytest.raises(UserError, match=rf"experience 1 makes {size:,} parameters, over"):
                set_up(toy(**sections), fetch=print)
    assert small < size


def attached(folder) -> list[tuple[int, str]]:
    history = json.loads((folder / "topology.json").read_text())["history"]
    return [(x["step"], x["about"].split(",")[0]) for x in history if x["verb"] == "attach"]


PLATEAU = {"when": "on_plateau", "policy": "shared", "patience": 2, "modules": {"more": {}}}


PAIR = {
    "tasks": {"toy_rows": {}, "toy_wide": {}},
    "stream": [{"tasks": ["toy_rows"], "steps": 30}, {"tasks": ["toy_wide"], "steps": 30}],
    "evaluate": {"every": 5},
    "growth": PLATEAU,
}


def test_a_plateau_is_one_of_validation_and_modules_are_attached_once_an_experience(
    tmp_path, monkeypatch
):
    # Better until the second look; then 2 looks without, at steps 15 and 20. Test gets better.
    scripted(monkeypatch, {"toy_rows": [0.1, 0.2, 0.2, 0.15], "toy_wide": [0.1] * 9})
    train(toy(**PAIR), tmp_path)
    # The second task is looked at from its start on, at 35 for the first time.
    assert attached(tmp_path) == [(20, "toy_rows_more1"), (45, "toy_wide_more2")]


def test_nothing_is_attached_while_validation_gets_better(tmp_path, monkeypatch):
    scripted(monkeypatch, {})
    train(toy(**PAIR), tmp_path)
    assert attached(tmp_path) == []


def test_a_task_that_is_learned_again_has_not_left_its_plateau_behind(tmp_path, monkeypatch):
    """Its plateau is that of this experience: looks of an earlier one do not count."""
    scripted(monkeypatch, {"toy_rows": [0.5, 0.4]})
    again = [*PAIR["stream"], {"tasks": ["toy_rows"], "steps": 30}]
    train(toy(**PAIR | {"stream": again}), tmp_path)
    assert attached(tmp_path) == [(15, "toy_rows_more1"), (70, "toy_rows_more3")]


def test_tasks_learned_together_are_stuck_when_all_are(tmp_path, monkeypatch):
    together = [{"tasks": ["toy_rows", "toy_wide"], "steps": 40}]
    scripted(monkeypatch, {"toy_rows": [0.1], "toy_wide": [0.1, 0.2, 0.3, 0.4, 0.4, 0.4]})
    train(toy(**PAIR | {"stream": together}), tmp_path)
    assert attached(tmp_path) == [(30, "toy_rows_more1"), (30, "toy_wide_more1")]


def test_what_is_attached_at_a_plateau_changes_no_answer_at_first_and_learns_then():
    run = set_up(toy(**PAIR, train={"optimizer": "adam"}), fetch=print)
    step_until(run, 10)
    run.state.scores.best_by_task = {"toy_rows": {"step": 1, "value": 0.0, "validations_since": 2}}
    before = answers(run)
    [change] = grow_if_due(run)
    assert change.verb == "attach" and run.state.rule.grown == [1] and grow_if_due(run) == []
    for name, logits in answers(run).items():
        torch.testing.assert_close(logits, before[name], **ROUNDING)
    weights = {n: p.detach().clone() for n, p in run.network.named_parameters() if "more1" in n}
    step_until(run, 13)
    for name, weight in weights.items():
        assert not torch.equal(dict(run.network.named_parameters())[name], weight), name


def test_tasks_that_share_a_head_get_modules_once_at_a_plateau():
    tasks = {"a": {"name": "toy_rows", "head": "rows"}, "b": {"name": "toy_turned", "head": "rows"}}
    stream = [{"tasks": ["a", "b"], "steps": 30}]
    run = set_up(toy(tasks=tasks, stream=stream, growth=PLATEAU), fetch=print)
    run.state.step, run.state.scores.best_by_task = (
        1,
        {name: {"step": 1, "value": 0.0, "validations_since": 2} for name in tasks},
    )
    assert [str(change) for change in grow_if_due(run)] == [
        "attach rows_more1, read by input, side1, output"
    ]
