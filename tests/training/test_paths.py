"""Paths with hidden boundaries: a change of the data finds an old path, or gets a new one."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from stream_fixtures import save_scored
from toy_tasks import toy

from thalnet_mtl import load_run
from thalnet_mtl.cli import main
from thalnet_mtl.errors import UserError
from thalnet_mtl.registry import register
from thalnet_mtl.tasks.sequences import SequenceTask
from thalnet_mtl.training.checkpoint import resume_run
from thalnet_mtl.training.growth.base import grow_if_due
from thalnet_mtl.training.sampling import next_batches
from thalnet_mtl.training.search.path_network import parameters_of
from thalnet_mtl.training.search.paths import Snapshot
from thalnet_mtl.training.setup import set_up
from thalnet_mtl.training.step import StepInputs, TrainStep
from thalnet_mtl.training.topology_changes import on_topology_change
from thalnet_mtl.training.trainer import train


@register("task", "toy_sides")
def toy_sides(shift: float = 0.0, flip: bool = False) -> SequenceTask:
    """Whether the first number is larger than the second, of inputs around a place."""
    generator = torch.Generator().manual_seed(7)
    xs = torch.rand(1500, 2, 2, generator=generator)
    ys = ((xs[:, 0, 0] > xs[:, 0, 1]) ^ flip).long()
    parts = {"train": slice(0, 1300), "validation": slice(1300, 1400), "test": slice(1400, 1500)}
    return SequenceTask("toy_sides", {n: (xs[p] + shift, ys[p]) for n, p in parts.items()})


MODULES = {"low": {"input": True, "output": True}}
TASKS = {
    "a": {"name": "toy_sides", "head": "path1"},
    "b": {"name": "toy_sides", "head": "path1", "shift": 2.0, "flip": True},
}
ORDER = (("a", 90), ("b", 90), ("a", 60), ("b", 60))


def config_of(order=ORDER, growth=None, evaluate=None, tasks=TASKS, **options):
    options = {
        "boundaries": "hidden",
        "optimizer": "adam",
        "batch": 8,
        "learning_rate": 0.02,
    } | options
    sections = {"evaluate": evaluate} if evaluate else {}
    sections |= {"model": options.pop("model")} if "model" in options else {}
    growth = {"when": "paths", "modules": MODULES, "recent": 10} | (growth or {})
    return toy(
        tasks=tasks,
        stream=[{"tasks": [task], "steps": steps} for task, steps in order],
        modules=MODULES,
        growth={name: value for name, value in growth.items() if value is not None},
        train=options | {"steps": 0},
        **sections,
    )


def steps_of(run, until):
    """Take steps as the trainer does, without a log, and yield before each."""
    train_step = TrainStep(run)
    while run.step < until:
        grow_if_due(run)
        yield run.step
        losses = train_step(StepInputs(next_batches(run), run.learning_rate()))
        run.state.rule.after_step(float(losses.max()))
        run.state.step += 1


def trained(config, until=None):
    run = set_up(config, fetch=print)
    for _ in steps_of(run, until or run.total_steps):
        pass
    return run


def decisions(run):
    """Return the paths that were chosen, with the step of the decision."""
    return [
        (decision["step"], entry["candidate"])
        for decision in run.state.growth.decisions
        for entry in decision["candidates"]
        if entry["chosen"] and decision["about"] == "path"
    ]


def weights(run):
    return {name: weight.clone() for name, weight in run.network.state_dict().items()}


def assert_same(first, second):
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


@cache
def whole():
    return trained(config_of())


def test_a_change_gets_a_new_path_and_a_task_that_returns_finds_its_own():
    run = whole()
    steps, paths = zip(*decisions(run), strict=True)
    assert paths == ("a new path", "path1", "path2")
    for step, boundary in zip(steps, (90, 180, 240), strict=True):
        assert boundary + 10 <= step < boundary + 30
    assert list(run.network.adapters) == ["path1", "path2"] and run.task_stream.head_name == "path2"
    assert set(run.network.trainable_tasks()) == {"path2"}  # the other is frozen
    scores = [run.score(task, "test")["accuracy"] for task in "ab"]
    assert min(scores) > 0.8, scores


def test_the_path_that_is_left_is_as_it_was_before_the_losses_rose_and_stays_so_to_the_bit():
    run, before = set_up(config_of(), fetch=print), {}
    xs, logits = run.tasks["a"].split("test").xs, None
    for step in steps_of(run, 180):
        if step <= 90:
            before[step] = weights(run)
        if run.task_stream.head_name == "path2":
            now = run.network("path1", xs)[0]
            assert logits is None or torch.equal(now, logits)
            logits = now
    # Snapshot after every tenth step, the last time after step 80, before the change at 90.
    kept = {name: w for name, w in weights(run).items() if name in before[81]}
    assert_same(kept, before[81])


def test_a_run_that_is_resumed_anywhere_goes_on_to_the_same_bits(tmp_path):
    config = config_of()
    (new, _), *_ = decisions(whole())
    cut = set_up(config, fetch=print)
    for stop in (60, new - 2, new + 1, 185):  # one between an alarm and its decision
        *_, _ = steps_of(cut, stop)
        save_scored(tmp_path / "run.pt", cut)
        cut = set_up(config, fetch=print)
        resume_run(tmp_path / "run.pt", cut)
    *_, _ = steps_of(cut, cut.total_steps)
    assert_same(weights(cut), weights(whole()))
    assert cut.state.growth.decisions == whole().state.growth.decisions
    assert cut.score("a", "test") == whole().score("a", "test")


def test_nothing_hidden_reaches_the_paths():
    tasks, names = {"y": TASKS["b"], "x": TASKS["a"]}, {"a": "x", "b": "y"}
    order = [(names[task], steps) for task, steps in (("a", 37), ("a", 53), *ORDER[1:])]
    assert_same(weights(trained(config_of(order, tasks=tasks))), weights(whole()))


def test_a_training_leaves_the_same_bits_and_scores_by_the_path_that_fits(tmp_path, capsys):
    evaluate = {"every": 150, "checkpoint_every": 75, "log_every": 25}
    train(config_of(evaluate=evaluate), tmp_path / "run")
    run = load_run(tmp_path / "run")
    assert_same(run.network.state_dict(), weights(whole()))
    *_, last = (tmp_path / "run" / "accuracy_matrix.csv").read_text().splitlines()
    scores = [whole().score(task, "test")["accuracy"] for task in "ab"]
    assert [float(cell) for cell in last.split(",")[1:]] == pytest.approx(scores, abs=1e-6)
    with pytest.raises(UserError, match=r"path1, path2.*nothing in .* chooses one for task 'a'"):
        run.task("a")
    assert main(["inspect", str(tmp_path / "run")]) == 0
    assert "path2 (path): path1; " in capsys.readouterr().out


def test_sequences_are_answered_by_the_path_whose_inputs_are_like_them():
    run = whole()
    scored, xs = run.state.rule.scored_network().eval(), run.tasks["a"].split("test").xs
    mixed = torch.stack([xs, xs + 2.0], 1).flatten(0, 1)
    answers, _ = scored("path1", mixed)
    with torch.no_grad():
        torch.testing.assert_close(answers[::2], run.network("path1", xs)[0])
        torch.testing.assert_close(answers[1::2], run.network("path2", xs + 2.0)[0])


def test_the_inputs_of_paths_are_read_again_after_further_steps():
    run = trained(config_of(), 150)
    chooser = run.state.rule.scored_network().chooser
    assert run.state.rule.scored_network().chooser is chooser
    *_, _ = steps_of(run, 160)
    assert run.state.rule.scored_network().chooser is not chooser


def test_a_false_alarm_changes_nothing():
    run = trained(config_of(), 80)
    before, rule = weights(run), run.state.rule
    rule.onset, rule.alarm = 72, 69
    assert rule.before_step() == [] and rule.alarm == -1
    assert_same(weights(run), before)
    assert decisions(run) == [(80, "path1")]


@pytest.mark.parametrize("limit", ["most", "budget"])
def test_without_room_for_another_path_the_one_that_trains_goes_on(limit):
    options = {"growth": {"most": 1}} if limit == "most" else {"growth": {}}
    run = set_up(config_of(**options), fetch=print)
    if limit == "budget":
        run.config = replace(run.config, model=replace(run.config.model, budget=500))
    *_, _ = steps_of(run, 130)
    assert [path for _, path in decisions(run)] == ["path1"] and not run.state.topology_log


def test_a_search_on_the_recent_batches_decides_what_a_new_path_gets():
    config = config_of(ORDER[:2], growth={"budget": 64})
    run, again = trained(config, 130), trained(config, 130)
    (found,) = [d for d in run.state.growth.decisions if d["about"] == "task"]
    assert found["task"] == "path2" and len(found["candidates"]) > 3
    assert found["step"] == decisions(run)[0][0]
    assert_same(weights(run), weights(again))
    assert run.network.adapter("path1").spec.frozen and run.task_stream.head_name == "path2"


REFUSED = {
    "announced": ({"boundaries": "announced"}, "set train.boundaries to hidden"),
    "a strategy": ({"strategy": "si"}, "nothing for train.strategy si to protect"),
    "search": ({"growth": {"when": "search", "recent": None}}, "growth.when search does not work"),
    "a budget": ({"model": {"budget": 600}}, "experience 1 makes .* over model.budget 600"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_paths_cannot_do_is_refused(case):
    options, message = REFUSED[case]
    with pytest.raises(UserError, match=message):
        set_up(config_of(**options), fetch=print)


@pytest.mark.parametrize("answer", ["each", "numbers"])
def test_paths_are_chosen_for_sequences_of_unequal_length_and_every_kind_of_target(answer):
    kinds = {"name": "toy_kinds", "answer": answer, "lengths": True, "head": "path1"}
    tasks = {"a": kinds, "b": kinds | {"seed": 3}}
    run = set_up(config_of([("a", 6), ("b", 6)], tasks=tasks), fetch=print)
    *_, _ = steps_of(run, 6)
    rule = run.state.rule
    rule.snapshots, rule.onset, rule.alarm = (
        [Snapshot(1, -1.0, 0.0, parameters_of(run.network, "path1"))],
        3,
        2,
    )
    rule.recent = 3
    for change in rule.before_step():  # no path has a loss below -1
        on_topology_change(run, change)
    assert decisions(run) == [(6, "a new path")]
    *_, _ = steps_of(run, 12)
    data = run.tasks["b"].to_batch(run.tasks["b"].split("test"))
    scored = rule.scored_network().eval()
    answers, _ = scored("path1", data.xs, None, data.lengths)
    chosen = scored.chooser.choose(data.xs, data.lengths)
    with torch.no_grad():
        for path in ("path1", "path2"):
            places = [k for k, name in enumerate(chosen) if name == path]
            each, _ = run.network(path, data.xs, None, data.lengths)
            torch.testing.assert_close(answers[places], each[places])
    assert run.score("b", "test")["loss"] > 0


def test_a_new_path_is_removed_if_an_old_one_fits_after_all(tmp_path):
    config = config_of()
    run = trained(config, 165)
    before, rule = weights(run), run.state.rule
    rule.onset, rule.alarm, rule.tolerance = 160, 154, -1e6  # an alarm, and no path fits
    for change in rule.before_step():
        on_topology_change(run, change)
    rule.tolerance = 3.0
    assert run.task_stream.head_name == "path3"
    *_, _ = steps_of(run, 168)
    save_scored(tmp_path / "run.pt", run)
    again = set_up(config, fetch=print)
    resume_run(tmp_path / "run.pt", again)
    for each in (run, again):
        *_, _ = steps_of(each, 176)
        assert decisions(each)[1:] == [(165, "a new path"), (175, "path2")]
        assert "so that path3 is removed" in each.state.growth.decisions[-1]["reason"]
        assert each.task_stream.head_name == "path2"
        assert set(each.network.trainable_tasks()) == {"path2"}
        assert set(weights(each)) == set(before)  # neither a head nor a module of path3 is left
        held = {id(p) for group in each.state.optimizer.param_groups for p in group["params"]}
        assert held == {id(p) for p in each.network.parameters() if p.requires_grad}
    assert_same(weights(run), weights(again))
