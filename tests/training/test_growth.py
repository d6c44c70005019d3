"""A network grows with each new task of a stream, frozen or shared."""

import json
from dataclasses import replace

import pytest
import torch
from run_fixtures import lines, matrix
from stream_fixtures import STRATEGIES, step_until
from toy_tasks import GROWING, OWN, PER_TASK, STREAM, knobs_of, toy

from thalnet_mtl import cli
from thalnet_mtl.errors import UserError
from thalnet_mtl.metrics.continual import AccuracyMatrix, forgetting, forward_transfer
from thalnet_mtl.metrics.metric import ACCURACY, BITS_PER_CHARACTER
from thalnet_mtl.models.size import count_parameters
from thalnet_mtl.registry import entries
from thalnet_mtl.strategies import ewc
from thalnet_mtl.training.context import RunContext
from thalnet_mtl.training.growth.base import grow_if_due
from thalnet_mtl.training.setup import set_up
from thalnet_mtl.training.trainer import train

TASKS = list(STREAM["tasks"])
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


# Frozen


@pytest.mark.parametrize(
    ("optimizer", "more"),
    [(optimizer, {}) for optimizer in entries("optimizer")]
    + [("adam", {"combine": "uncertainty"})]
    + [("adam", {"strategy": strategy}) for strategy in STRATEGIES],
)
def test_a_frozen_task_answers_the_same_to_the_bit_whatever_is_learned_later(
    monkeypatch, optimizer, more
):
    monkeypatch.setattr(ewc, "SAMPLES", 10)
    options = {"optimizer": optimizer, "weight_decay": 0.1, "clip": 0.5} | more
    run = set_up(toy(**STREAM, growth=GROWING["frozen"], train=options), fetch=print)
    after: dict[str, torch.Tensor] = {}
    for stop in (20, 40, 60):
        step_until(run, stop)
        now = answers(run)
        for name, logits in after.items():
            assert torch.equal(now[name], logits), (name, stop)
        after |= now
        if stop < 60:
            grow_if_due(run)
            now = answers(run)
            assert all(torch.equal(now[name], logits) for name, logits in after.items())
    assert list(after) == TASKS


@pytest.mark.parametrize("strategy", ["naive", "replay"])
def test_frozen_growth_forgets_nothing_and_has_no_forward_transfer(tmp_path, monkeypatch, strategy):
    options = {"strategy": strategy, "weight_decay": 0.1, "clip": 0.5, "optimizer": "adamw"}
    config = toy(
        **STREAM,
        growth=GROWING["frozen"],
        train=options,
        evaluate={"every": 10, "batch": 50},
        strategy=knobs_of(strategy, memory=20),
    )
    monkeypatch.setattr(ewc, "SAMPLES", 20)
    train(config, tmp_path)
    _, rows = matrix(tmp_path)
    metrics = dict.fromkeys(TASKS, ACCURACY) | {"toy_text": BITS_PER_CHARACTER}
    scores = [[float(row[name]) if row[name] else None for name in TASKS] for row in rows]
    found = AccuracyMatrix(metrics, [[name] for name in TASKS], scores)
    assert forgetting(found).values == {"toy_rows": 0.0, "toy_wide": 0.0}
    assert forward_transfer(found).values == {}
    assert set(forward_transfer(found).missing) == {"toy_wide", "toy_text"}
    # Validation scores, and losses, are those of the end of the task's own experience.
    for name, end in (("toy_rows", 20), ("toy_wide", 40)):
        for split in ("validation", "test"):
            values = {
                x["value"]
                for x in lines(tmp_path)
                if (x["task"], x["split"], x["metric"]) == (name, split, "loss")
                and x["step"] >= end
            }
            assert len(values) == 1, (name, split)


def test_what_is_frozen_leaves_the_optimizer_and_what_is_new_joins_it_and_learns():
    run = set_up(toy(**STREAM, growth=GROWING["frozen"], train={"optimizer": "adam"}), fetch=print)
    step_until(run, 20)
    old = {id(p) for p in run.network.parameters()}
    assert old == {id(p) for p in run.state.optimizer.param_groups[0]["params"]}
    grow_if_due(run)
    new = {n: p for n, p in run.network.named_parameters() if id(p) not in old}
    assert {n.split(".")[2] for n in new if n.startswith("body.")} == {
        "toy_wide_in",
        "toy_wide_out",
    }
    assert {id(p) for p in new.values()} == {
        id(p) for p in run.state.optimizer.param_groups[0]["params"]
    }
    before = {n: p.detach().clone() for n, p in run.network.named_parameters()}
    step_until(run, 40)
    moved = {n for n, p in run.network.named_parameters() if not torch.equal(p, before[n])}
    assert moved == new.keys()


# Shared


@pytest.mark.parametrize("reading", entries("reading"))
def test_shared_growth_changes_no_old_answer_until_something_is_learned(reading):
    if reading.startswith("toy_"):
        pytest.skip("a reading of another test, that cannot grow")
    sections = STREAM | {"model": {"features": 6, "modules": 3, "reading": reading}}
    run = set_up(toy(**sections, growth=GROWING["shared"]), fetch=print)
    for stop in (20, 40):
        step_until(run, stop)
        before, modules = answers(run), list(run.network.body.graph)
        assert len(grow_if_due(run)) == 3  # two modules and a task
        after = answers(run)
        for name, logits in before.items():
            torch.testing.assert_close(after[name], logits, **ROUNDING)
        new = [name for name in run.network.body.graph if name not in modules]
        for name in ("input", "side1", "output"):  # what all share learns to read what is new
            assert set(new) <= set(run.network.body.graph[name].seen)
    step_until(run, 60)
    assert not torch.allclose(answers(run)["toy_rows"], before["toy_rows"])


def test_a_run_that_grows_begins_as_the_run_of_its_first_tasks_alone():
    first = STREAM["stream"][0]["tasks"]
    alone = set_up(toy(tasks={name: {} for name in first}), fetch=print)
    run = set_up(toy(**STREAM, growth=GROWING["shared"]), fetch=print)
    for one in (alone, run):
        step_until(one, 20)
    grown = run.network.state_dict()
    assert grown.keys() == alone.network.state_dict().keys()
    for name, weight in alone.network.state_dict().items():
        assert torch.equal(grown[name], weight), name


# Budget


def test_the_budget_is_never_exceeded_and_that_is_known_before_the_first_step(tmp_path):
    sections = STREAM | {"growth": GROWING["frozen"]}
    result = train(toy(**sections, model={"budget": 0}), tmp_path / "free").to_json()
    size = result["parameters"]["total"]
    history = json.loads((tmp_path / "free" / "topology.json").read_text())["history"]
    assert max(entry["parameters"] for entry in history) == history[-1]["parameters"] == size
    run = set_up(toy(**sections, model={"budget": size}), fetch=print)
    step_until(run, 60)
    assert count_parameters(run.network) == size
    message = rf"growth: experience 3 makes {size:,} parameters, over model.budget {size - 1:,}"
    with pytest.raises(UserError, match=message):
        train(toy(**sections, model={"budget": size - 1}), tmp_path / "over")
    assert not (tmp_path / "over").exists()


PLATEAU = {"when": "on_plateau", "policy": "shared", "patience": 2, "modules": {"more": {}}}


# Heads


def test_a_task_that_shares_the_head_of_an_older_one_brings_no_modules():
    tasks = {"a": {"name": "toy_rows", "head": "rows"}, "b": {"name": "toy_turned", "head": "rows"}}
    stream = [{"tasks": [name], "steps": 10} for name in tasks]
    run = set_up(toy(tasks=tasks, stream=stream, growth=GROWING["shared"]), fetch=print)
    size = count_parameters(run.network)
    assert run.attached_tasks == ["a", "b"] and list(run.network.adapters) == ["rows"]
    step_until(run, 20)
    assert count_parameters(run.network) == size and run.state.topology_log == []


def test_tasks_of_another_shape_cannot_share_a_head(tmp_path, capsys):
    tasks = {"a": {"name": "toy_rows", "head": "one"}, "b": {"name": "toy_wide", "head": "one"}}
    stream = [{"tasks": [name], "steps": 10} for name in tasks]
    with pytest.raises(UserError, match="task 'b' cannot share head 'one': its shape differs"):
        train(toy(tasks=tasks, stream=stream, growth=GROWING["shared"]), tmp_path / "run")
    assert not (tmp_path / "run").exists()


# What is refused

ROWS, WIDE = {"tasks": ["toy_rows"], "steps": 9}, {"tasks": ["toy_wide"], "steps": 9}
FREEZE = {"step": 5, "verb": "freeze", "name": "side1"}


def own(**modules) -> dict:
    return PER_TASK | {"modules": modules}


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"growth": own(**{"in": {"input": True}, "out": {"output": True}}),
          "modules": {"toy_wide_in": {"input": True, "output": True}}},
         "experience 2: there is a module 'toy_wide_in' already; names must differ"),
        ({"growth": own(**{"in": {"reads": ["out"]}, "out": {"output": True}})},
         "experience 2: module 'toy_wide_in' reads unknown module 'toy_wide_out'"),
        ({"growth": own(**{"in-put": {"output": True}})}, "invalid module name 'toy_wide_in-put'"),
        ({"growth": PER_TASK, "changes": [FREEZE]}, "growth and changes cannot be combined"),
        ({"growth": PER_TASK, "model": {"body": "gru"}}, "experience 2: attach: only a ThalNet"),
        ({"growth": PER_TASK, "stream": [ROWS, WIDE, ROWS]},
         "experience 3: nothing that task 'toy_rows' uses can be trained"),
        ({"growth": PLATEAU | {"policy": "frozen"}}, "on_plateau: nothing would read what is"),
        ({"growth": own(**{"in": {"reading": "gaussian", "output": True}})},
         "unknown reading 'gaussian'"),
        ({"growth": PER_TASK, "model": {"features": 0}},
         "experience 2: the width of module 'in' is not set"),
        ({"growth": PER_TASK, "stream": [ROWS, {"tasks": ["toy_wid"]}]}, "unknown task 'toy_wid'"),
        ({"growth": PER_TASK, "modules": {"a": {"input": True, "tasks": ["toy_wide"]}}},
         "unknown task 'toy_wide'"),
    ],
)  # fmt: skip
def test_what_cannot_grow_is_one_line_before_anything_is_written(tmp_path, sections, message):
    base = {"tasks": {"toy_rows": {}, "toy_wide": {}}, "stream": [ROWS, WIDE]}
    with pytest.raises(UserError, match=message) as error:
        train(toy(**base | sections), tmp_path / "run")
    assert "\n" not in str(error.value) and not (tmp_path / "run").exists()


def test_rehearsing_growth_leaves_the_network_and_chance_alone():
    """What is drawn after it is what is drawn without it."""
    config = toy(**STREAM, growth=GROWING["shared"])
    draws = []
    for one in (config, replace(config, growth=replace(config.growth, when="never"), stream=())):
        run = set_up(replace(one, tasks={"toy_rows": one.tasks["toy_rows"]})
                      if not one.stream else one, fetch=print)  # fmt: skip
        draws.append((torch.rand(3), run.network.state_dict()))
    assert torch.equal(draws[0][0], draws[1][0])
    for name, weight in draws[0][1].items():
        assert torch.equal(draws[1][1][name], weight), name


def test_a_module_of_ones_own_may_be_read_by_those_that_come_with_it():
    reading = {"output": True, "reads": ["in", "side1"], "tasks": ["new"]}
    modules = OWN | {"out": reading}
    run = set_up(toy(**STREAM, growth=own(**modules)), fetch=print)
    step_until(run, 20)
    grow_if_due(run)
    net = run.network.body.graph
    assert set(net["toy_wide_out"].seen) == {"side1", "toy_wide_in"}
    assert net["toy_wide_out"].tasks == ("toy_wide",)


def test_the_grown_network_is_what_is_saved_and_scored(tmp_path, capsys):
    result = train(toy(**STREAM, growth=GROWING["frozen"]), tmp_path).to_json()
    assert cli.main(["evaluate", str(tmp_path), "--task", "toy_rows"]) == 0
    score = result["tasks"]["toy_rows"]["test"]["accuracy"]
    assert f"test accuracy {100 * score:.2f} %" in capsys.readouterr().out
    about = result["parameters"]
    assert about["total"] == about["trainable"] + about["frozen"] and about["frozen"] > 0
