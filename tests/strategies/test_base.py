"""Properties of every strategy: resuming, growth, and what it is for, less forgetting."""

import copy
import doctest
import json
import sys
from functools import cache
from typing import ClassVar

import kill_and_resume
import pytest
import torch
from run_fixtures import interrupt_at
from stream_fixtures import (
    STRATEGIES,
    TWO,
    make_run,
    save_scored,
    step_until,
)
from toy_tasks import GROWING, STREAM, knobs_of, toy

from thalnet_mtl import registry
from thalnet_mtl.errors import UserError
from thalnet_mtl.strategies import ewc
from thalnet_mtl.strategies.base import Strategy, TrainingContext, add_penalty
from thalnet_mtl.training.checkpoint import resume_run
from thalnet_mtl.training.loop import Trainer
from thalnet_mtl.training.setup import set_up
from thalnet_mtl.training.trainer import train


def interrupt_end(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop when an experience is over and nothing of that is saved yet."""
    real = Trainer.save

    def failing(self):
        if self.run.step == step:
            raise SystemExit
        return real(self)

    monkeypatch.setattr(Trainer, "save", failing)


# Before the step of a growth, after an experience but before that is saved, and anywhere.
MOMENTS = [(interrupt_at, 6), (interrupt_end, 12), (interrupt_at, 15)]


SHORT = STREAM | {"stream": [{"tasks": [task], "steps": 6} for task in STREAM["tasks"]]}


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("growing", GROWING)
def test_every_strategy_goes_on_to_the_same_bits_however_the_net_grows(
    tmp_path, monkeypatch, strategy, growing
):
    monkeypatch.setattr(ewc, "SAMPLES", 10)
    options = {"strategy": strategy, "optimizer": "adam", "weight_decay": 0.1, "clip": 1.0}
    config = toy(
        **SHORT, growth=GROWING[growing], strategy=knobs_of(strategy, memory=12), train=options
    )
    for name, stops in (("whole", [9, 18]), ("cut", [6, 9, 18])):  # at a boundary, and in between
        run, path = set_up(config, fetch=print), tmp_path / name
        for stop in stops:
            if run.step:
                save_scored(path, run)
                if name == "cut":
                    run = set_up(config, fetch=print)
                    resume_run(path, run)
            if growing == "plateau" and run.step == 9:
                run.state.scores.best_by_task["toy_wide"] = {
                    "step": 0,
                    "value": 0.0,
                    "validations_since": 1,
                    "batches_seen": 0,
                }
            step_until(run, stop)
        save_scored(path, run)
    whole, cut = (
        kill_and_resume.flatten(torch.load(tmp_path / name, weights_only=True))
        for name in ("whole", "cut")
    )
    assert whole.keys() == cut.keys()
    assert [key for key in whole if not kill_and_resume.equal(whole[key], cut[key])] == []
    modules = run.network.body.graph
    assert len(modules) == 3 + {"never": 0, "plateau": 1}.get(growing, 4)


@pytest.mark.parametrize(
    ("growing", "strategy"),
    [
        ("never", "agem"),
        ("frozen", "si"),
        ("shared", "lwf"),
        ("plateau", "online_ewc"),
    ],
)
def test_a_stream_that_was_stopped_in_the_worst_moments_ends_with_the_same_bits(
    tmp_path, monkeypatch, strategy, growing
):
    monkeypatch.setattr(ewc, "SAMPLES", 10)
    config = toy(
        **SHORT,
        growth=GROWING[growing],
        strategy=knobs_of(strategy, memory=12),
        evaluate={"every": 2, "batches": 2, "checkpoint_every": 4, "log_every": 4},
        train={"strategy": strategy, "optimizer": "adam", "learning_rate": 0.003, "clip": 1.0},
    )
    train(config, tmp_path / "whole")
    history = json.loads((tmp_path / "whole" / "topology.json").read_text())["history"]
    assert any(x["verb"] == "attach" for x in history) == (growing != "never")
    for cut, step in MOMENTS:
        with monkeypatch.context() as patch, pytest.raises(SystemExit):
            cut(step, patch)
            train(config, tmp_path / "cut")
    train(config, tmp_path / "cut")
    assert kill_and_resume.differences(tmp_path / "whole", tmp_path / "cut") == []


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_strategy_changes_nothing_before_the_second_experience(strategy):
    run, naive = make_run(strategy, body="gru"), make_run("naive", body="gru")
    step_until(run, 12)
    step_until(naive, 12)
    for name, weight in naive.network.state_dict().items():
        assert torch.equal(run.network.state_dict()[name], weight), name
    step_until(run, 24)
    step_until(naive, 24)
    same = [
        torch.equal(run.network.state_dict()[name], weight)
        for name, weight in naive.network.state_dict().items()
    ]
    assert all(same) == (strategy == "naive")


@cache
def rise(strategy: str) -> float:
    """Return how far the loss of a task rises while the same small layer learns its opposite."""
    tasks = {"a": {"name": "toy_rows"}, "b": {"name": "toy_turned"}}
    sections = {"tasks": tasks, "stream": [{"tasks": [name], "steps": 60} for name in tasks]}
    knobs = {"strength": 3.0 if strategy == "lwf" else 300.0, "memory": 100}
    run = make_run(strategy, sections, "gru", knobs, optimizer="adam", learning_rate=0.03)
    step_until(run, 60)
    before = run.score("a", "test")["loss"]
    step_until(run, 120)
    return run.score("a", "test")["loss"] - before


@pytest.mark.parametrize("strategy", STRATEGIES[1:])
def test_what_keeps_old_tasks_keeps_them(strategy):
    assert rise("naive") > 0.1
    assert rise(strategy) < 0.3 * rise("naive")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_strategy_goes_on_where_the_run_is_and_by_its_ops(tmp_path, monkeypatch, strategy):
    """A checkpoint is read to the CPU, wherever the run is."""
    monkeypatch.setattr(ewc, "SAMPLES", 10)
    sections = TWO | {"train": {"strategy": strategy, "ops": "batched", "optimizer": "sgd"}}
    run = set_up(toy(**sections), fetch=print)
    step_until(run, 15)
    save_scored(tmp_path / "last.pt", run)
    resumed = set_up(toy(**sections), fetch=print)
    resumed.device, resumed.state.loss_log = torch.device("meta"), resumed.state.loss_log.to("meta")
    resume_run(tmp_path / "last.pt", resumed)
    resumed_strategy = resumed.state.strategy
    tensors = [
        v for anchor in getattr(resumed_strategy, "anchors", []) for d in anchor for v in d.values()
    ]
    tensors += [
        *getattr(resumed_strategy, "start", {}).values(),
        *getattr(resumed_strategy, "path", {}).values(),
    ]
    tensors += [
        part
        for parts in getattr(resumed_strategy, "stored", {}).values()
        for part in parts.data[:2]
    ]
    if teacher := getattr(resumed_strategy, "teacher", None):
        tensors += teacher.parameters()
        assert teacher.body.ops == "batched"
    assert all(tensor.is_meta for tensor in tensors)
    assert tensors or strategy == "naive"


def test_an_unknown_strategy_is_named_with_its_closest_match():
    with pytest.raises(UserError, match=r"unknown strategy 'ewcc'.*Did you mean 'ewc'"):
        set_up(toy(**TWO, train={"strategy": "ewcc"}), fetch=print)


class Direct(Strategy):
    """A strategy that takes the steps itself and cannot be saved, as one of another library."""

    resumable = False
    fitted: ClassVar[list[int]] = []

    def fit(self, trainer):
        self.fitted.append(trainer.run.step)
        super().fit(trainer)

    def stored_bytes(self):
        return None


def test_a_strategy_may_take_the_steps_itself_and_start_again_instead_of_resuming(
    tmp_path, monkeypatch
):
    monkeypatch.setitem(registry._entries["strategy"], "toy_direct", Direct)
    config = toy(**TWO, train={"strategy": "toy_direct"})
    with monkeypatch.context() as context, pytest.raises(SystemExit):
        context.setattr(Trainer, "finish", lambda self: sys.exit())
        train(config, tmp_path / "run")
    assert not (tmp_path / "run/checkpoint/last.pt").exists()
    result = train(config, tmp_path / "run").to_json()["continual"]
    assert Direct.fitted == [0, 0]
    assert [stage["stored_bytes"] for stage in result["stages"]] == [None] * 3
    naive = train(toy(**TWO, train={"strategy": "naive"}), tmp_path / "naive").to_json()
    assert result["scores"] == naive["continual"]["scores"]


CONTEXT = [
    name for name in vars(TrainingContext) if isinstance(vars(TrainingContext)[name], property)
]


def test_a_strategy_is_built_from_a_complete_run(monkeypatch):
    class Curious(Strategy):
        def __init__(self, context):
            super().__init__(context)
            self.seen = {name: getattr(context, name) for name in CONTEXT}
            self.sizes = [context.batch_size(task) for task in ("a", None)]

    monkeypatch.setitem(registry._entries["strategy"], "toy_curious", Curious)
    run = set_up(toy(**TWO, train={"strategy": "toy_curious", "batch": 9}), fetch=print)
    seen, sizes = run.state.strategy.seen, run.state.strategy.sizes
    assert seen["network"] is run.network and list(seen["tasks"]) == ["a", "b"]
    assert seen["trainable_tasks"] == {"a", "b"} and seen["experience"].tasks == ("a",)
    assert sizes == [9, 9] and (seen["step"], seen["seed"]) == (0, 0)


@pytest.mark.parametrize(
    ("name", "hook"),
    [
        ("after_experiense", "after_experience"),
        ("before_updates", "before_update"),
        ("penality", "penalty"),
        ("load_state_dicts", "load_state_dict"),
        ("rehearsed_task", "rehearsed_tasks"),
    ],
)
def test_a_misspelt_hook_is_refused_with_the_closest_one(name, hook):
    with pytest.raises(UserError, match=f"Own: no hook is called '{name}'.*mean '{hook}'"):
        type("Own", (Strategy,), {name: lambda self, *args: None})


@pytest.mark.parametrize("init", ["(self)", "(self, pull=1.0)", "(self, *, pull=1.0)"])
def test_a_strategy_that_does_not_take_the_context_is_refused(init):
    function = eval(f"lambda {init[1:-1]}: None")
    with pytest.raises(UserError, match=r"strategy Own: __init__ takes the context first"):
        type("Own", (Strategy,), {"__init__": function})


def test_helpers_of_a_strategy_may_have_any_other_name():
    names = ("anchor", "update_memory", "old_tasks", "experiences", "_penalty_of", "loss", "states")
    helpers = {name: lambda self: None for name in names}
    type("Own", (Strategy,), helpers)(None)


@pytest.mark.parametrize("zero", [None, 0, 0.0, torch.zeros(())])
def test_a_penalty_of_nothing_adds_nothing(zero):
    strategy = type("Own", (Strategy,), {"penalty": lambda self, batches: zero})(None)
    add_penalty(strategy, {})


@pytest.mark.parametrize(
    ("penalty", "message"),
    [
        (1.5, "depends on no parameter, got a float"),
        (torch.ones(()), r"depends on no parameter, got a Tensor of shape \(\)"),
        (torch.ones(2, requires_grad=True), r"is no scalar, got a Tensor of shape \(2,\)"),
        ("much", "is no scalar, got a str"),
    ],
)
def test_a_penalty_without_gradient_is_refused(penalty, message):
    strategy = type("Own", (Strategy,), {"penalty": lambda self, batches: penalty})(None)
    with pytest.raises(UserError, match=f"strategy Own: the penalty {message}"):
        add_penalty(strategy, {})


def documented_strategy() -> type[Strategy]:
    """Return the strategy of the example in the documentation of ``Strategy``."""
    example = doctest.DocTestParser().get_examples(Strategy.__doc__)[0].source
    names = {"Strategy": Strategy}
    exec(example, names)
    return names["L2"]


def test_a_strategy_without_state_dict_goes_on_with_its_attributes(tmp_path, monkeypatch):
    """The example of the documentation keeps the weights after an experience in an attribute."""
    monkeypatch.setitem(registry._entries, "strategy", dict(registry.entries("strategy")))
    registry.register("strategy", "documented")(documented_strategy())
    config = toy(**SHORT, strategy={"strength": 3}, train={"strategy": "documented"},
                 evaluate={"checkpoint_every": 2})  # fmt: skip
    folders = tmp_path / "whole", tmp_path / "cut"
    train(config, folders[0])
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        interrupt_at(15, patch)
        train(config, folders[1])
    train(config, folders[1])
    whole, cut = ((folder / "model" / "model.safetensors").read_bytes() for folder in folders)
    assert cut == whole


@pytest.mark.parametrize("kept", [copy.deepcopy, lambda network: next(network.parameters())])
def test_an_attribute_that_no_checkpoint_holds_is_refused_at_once(tmp_path, monkeypatch, kept):
    class Teacher(Strategy):
        def __init__(self, context):
            super().__init__(context)
            self.teachers = [kept(context.network)]

    monkeypatch.setitem(registry._entries, "strategy", dict(registry.entries("strategy")))
    registry.register("strategy", "teacher")(Teacher)
    with pytest.raises(UserError, match="Teacher cannot be saved: attribute 'teachers' holds a"):
        train(toy(**SHORT, train={"strategy": "teacher"}), tmp_path)
