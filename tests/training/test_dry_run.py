"""A rehearsal refuses, before the first step, whatever would fail in a later one."""

from random import Random

import pytest
import torch
from hypothesis import Phase, given
from properties import examples, seeds
from torch.optim import Adafactor
from toy_tasks import JOINT, toy

from thalnet_mtl.errors import UserError
from thalnet_mtl.models.designs.base import Design
from thalnet_mtl.registry import registered
from thalnet_mtl.tasks.sequences import SequenceTask
from thalnet_mtl.topology.spec import TaskSpec
from thalnet_mtl.training.sampling import next_batches
from thalnet_mtl.training.setup import set_up
from thalnet_mtl.training.step import StepInputs, TrainStep
from thalnet_mtl.training.topology_changes import apply_scheduled

ATTACH = {"step": 5, "verb": "attach", "name": "late", "read_by": ["text"]}
# What reads only the new module, once it has learned to.
CLOSE = [
    {"step": 15, "verb": "route", "name": "text", "source": name, "open": False}
    for name in ("text", "trunk")
]


def run_through(config):
    """Train with the configured changes to the last step, without a log."""
    run = set_up(config, fetch=print)
    train_step = TrainStep(run)
    while run.step < run.total_steps:
        for change in config.changes:
            if change.step == run.step:
                apply_scheduled(run, change)
        if run.active_tasks:
            train_step(StepInputs(next_batches(run), run.learning_rate()))
        run.state.step += 1
    return run


@pytest.mark.parametrize(
    ("first", "last", "accepted"), [("toy_text", "toy_rows", True), ("toy_rows", "toy_text", False)]
)
def test_zeros_are_learned_only_by_the_tasks_that_are_trained_in_between(first, last, accepted):
    stream = [{"tasks": [first], "steps": 20}, {"tasks": [last], "steps": 5}]
    config = toy(**JOINT, stream=stream, changes=[ATTACH, *CLOSE])
    if accepted:
        assert run_through(config).step == 25
        return
    with pytest.raises(UserError, match=r"route text after step 15: .* train first"):
        set_up(config, fetch=print)


def test_a_task_of_weight_zero_learns_nothing():
    changes = [ATTACH, *CLOSE]
    tasks = {"toy_rows": {}, "toy_text": {"weight": 0.0}}
    with pytest.raises(UserError, match="train first"):
        set_up(toy(**JOINT | {"tasks": tasks}, changes=changes), fetch=print)


def test_a_reading_learns_nothing_from_sequences_of_a_single_step():
    def one():
        xs = torch.rand(90, 1, 3, generator=torch.Generator().manual_seed(0))
        data = xs, xs[:, 0].argmax(-1)
        parts = {"train": slice(0, 30), "validation": slice(30, 60), "test": slice(60, 90)}
        splits = {name: tuple(part[cut] for part in data) for name, cut in parts.items()}
        return SequenceTask("one", lambda: splits, TaskSpec(3, 3, steps=1))

    modules = {"inp": {"input": True, "output": True}, "mid": {}}
    changes = [ATTACH | {"read_by": ["inp"]}]
    changes += [CLOSE[0] | {"name": "inp", "source": source} for source in ("inp", "mid")]
    with registered("task", {"one": one}), pytest.raises(UserError, match="train first"):
        set_up(toy(task={"name": "one"}, modules=modules, changes=changes), fetch=print)


def test_a_chain_of_new_modules_learns_in_as_many_steps():
    late = [ATTACH | {"name": "late1", "read_by": ["text"]}]
    late += [ATTACH | {"name": f"late{k}", "read_by": [f"late{k - 1}"]} for k in (2, 3)]
    close = [
        {"step": 15, "verb": "route", "name": "late2", "source": name, "open": False}
        for name in ("rows", "text", "trunk", "late1", "late2")
    ]
    config = toy(**JOINT, train={"steps": 20}, changes=[*late, *close])
    assert run_through(config).step == 20


class Bent(Design):
    """A design that the fast backends do not know."""

    layers = ("ff", "gru")

    def forward(self, x, memory):
        return super().forward(x, memory)


class Broken(Design):
    """A design that fails when it is first used."""

    layers = ("ff",)

    def forward(self, x, memory):
        raise ZeroDivisionError


GROWING = {
    "changes": {**JOINT, "changes": [ATTACH | {"module": {"module": "own"}}]},
    "growth": {
        "tasks": {"toy_rows": {}, "toy_wide": {}},
        "stream": [{"tasks": [name], "steps": 10} for name in ("toy_rows", "toy_wide")],
        "growth": {
            "when": "per_task",
            "modules": {"in": {"input": True}, "out": {"output": True, "module": "own"}},
        },
    },
}


@pytest.mark.parametrize("grows", GROWING)
def test_a_backend_has_to_compute_what_is_attached_later(grows):
    config = toy(**GROWING[grows], train={"ops": "fused"})
    with registered("module", {"own": Bent}):
        set_up(toy(**GROWING[grows]), fetch=print)
        with pytest.raises(UserError, match=r"(attach late|experience \d).*backend 'fused': mod"):
            set_up(config, fetch=print)


@pytest.mark.parametrize("grows", GROWING)
def test_a_module_that_cannot_run_fails_before_the_first_step(grows):
    with registered("module", {"own": Broken}), pytest.raises(ZeroDivisionError):
        set_up(toy(**GROWING[grows]), fetch=print)


def test_an_optimizer_has_to_follow():
    error = pytest.raises(UserError, match="attach late after step 5: Adafactor cannot follow")
    with registered("optimizer", {"adafactor": Adafactor}), error:
        set_up(toy(**JOINT, changes=[ATTACH], train={"optimizer": "adafactor"}), fetch=print)


def test_growth_on_a_plateau_may_come_in_a_single_experience():
    tasks = "toy_rows", "toy_turned"
    sections = {
        "tasks": {name: {} for name in tasks},
        "stream": [{"tasks": [name], "steps": 10} for name in tasks],
        "modules": {
            "rows": {"input": True, "output": True, "tasks": ["toy_rows"]},
            "base": {"input": True, "output": True, "frozen": True},
        },
        "growth": {"when": "on_plateau", "policy": "shared", "modules": {"more": {}}},
    }
    with pytest.raises(UserError, match="experience 2: on_plateau: nothing would read"):
        set_up(toy(**sections), fetch=print)


@given(seed=seeds)
@examples(max_examples=12, phases=[Phase.generate])
def test_what_a_rehearsal_accepts_does_not_fail(seed):
    draw, names = Random(seed), ["rows", "text", "trunk", "new0", "new1", "new2"]
    changes = []
    for k in range(draw.randint(2, 6)):
        verb = draw.choice(["attach", "attach", "clone", "route", "route", "detach", "freeze"])
        change = {"step": draw.randint(1, 9), "verb": verb, "name": draw.choice(names)}
        change |= {
            "attach": {"name": f"new{k}", "read_by": draw.sample(names[:3], draw.randint(0, 2))},
            "clone": {"name": f"new{k}", "source": change["name"]},
            "route": {"source": draw.choice(names), "open": draw.random() < 0.4},
        }.get(verb, {})
        changes.append(change)
    stream = draw.choice([[["toy_rows", "toy_text"]], [["toy_rows"], ["toy_text"]]])
    stream = [{"tasks": tasks, "steps": 6} for tasks in stream]
    reading = draw.choice(["linear", "fast_softmax", "weight_norm"])
    config = toy(**JOINT, stream=stream, changes=changes, model={"reading": reading})
    try:
        run = set_up(config, fetch=print)
    except UserError:
        return
    assert run_through(config).step == run.total_steps
