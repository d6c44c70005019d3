"""Rules of growth of one's own: named in a configuration, rehearsed, saved and resumed."""

import doctest
import json
import signal
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import kill_and_resume
import pytest
from growth_rule_laws import rules_keep_their_laws
from hypothesis import Phase, given
from properties import examples, seeds
from run_fixtures import interrupt_at
from stream_fixtures import step_until
from toy_tasks import OWN, STREAM, toy

from thalnet_mtl import cli, registry
from thalnet_mtl.config.values import Range
from thalnet_mtl.errors import Interrupted, UserError
from thalnet_mtl.registry import entries
from thalnet_mtl.runs.topology_file import CandidateEntry, DecisionEntry
from thalnet_mtl.signals import interruptible
from thalnet_mtl.topology.spec import ModuleSpec
from thalnet_mtl.training.growth.base import GrowthRule
from thalnet_mtl.training.monitor import Monitor
from thalnet_mtl.training.setup import check_buildable, set_up
from thalnet_mtl.training.trainer import train


class Visitors(GrowthRule):
    """Growth by the configured modules for every few tasks, and by a visitor that leaves again."""

    def __init__(self, run, every: Annotated[int, Range(low=1)] = 2):
        super().__init__(run)
        self.every, self.steps = every, 0

    def begin_experience(self):
        return self.add_tasks(attach=self.experience.number % self.every == 0)

    def before_step(self):
        self.steps += 1
        return self.rehearse_within() if self.run.step == self.experience.start + 7 else []

    def rehearse_within(self):
        visitor = ModuleSpec(f"visitor{self.experience.number}", features=3, context=2)
        return [self.network.attach(visitor, read_by=[])]

    def end_experience(self):
        number = self.experience.number
        entry = CandidateEntry(
            candidate="detach", parameters=-1, score=float(self.steps), chosen=True
        )
        self.record(
            DecisionEntry(
                step=self.run.step,
                changes=len(self.run.state.topology_log),
                experience=number,
                task=self.experience.tasks[0],
                about="pruning",
                reason="nobody reads it",
                candidates=[entry],
            )
        )
        return [self.network.detach(f"visitor{number}")]

    def state_dict(self):
        return {"steps": self.steps}

    def load_state_dict(self, state):
        self.steps = state["steps"]


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    entries("growth")
    monkeypatch.setitem(registry._entries["growth"], "visitors", Visitors)


GROWTH = {"when": "visitors", "modules": OWN}


def test_a_rule_acts_at_the_begin_of_an_experience_in_it_and_at_its_end(tmp_path):
    config = toy(**STREAM, growth=GROWTH | {"every": 2})
    result = train(config, tmp_path)
    topology = json.loads((tmp_path / "topology.json").read_text())
    history = [(x["step"], f"{x['verb']} {x['about'].split(',')[0]}") for x in topology["history"]]
    assert [line for line in history if "visitor" in line[1]] == [
        (7, "attach visitor1"), (20, "detach visitor1"),
        (27, "attach visitor2"), (40, "detach visitor2"),
        (47, "attach visitor3"), (60, "detach visitor3"),
    ]  # fmt: skip
    assert {n for n in entries_of(topology, "modules") if "toy_" in n} == {
        "toy_wide_in", "toy_wide_out",
    }  # fmt: skip
    # Two decisions of 19 steps within an experience each, saved with the topology.
    scores = [decision["candidates"][0]["score"] for decision in topology["decisions"]]
    assert [later - earlier for earlier, later in pairwise([0, *scores])] == [19, 19, 19]
    assert result.continual.growth == "visitors, frozen"


def entries_of(topology, section):
    return [entry["name"] for entry in topology[section]]


def test_scores_after_an_experience_are_of_the_network_that_its_rule_leaves(tmp_path, monkeypatch):
    seen = []
    for name in ("validate", "end_experience"):
        original = getattr(Monitor, name)

        def spy(monitor, *arguments, name=name, original=original):
            modules = [m for m in monitor.run.network.body.graph if m.startswith("visitor")]
            seen.append((monitor.run.step, name, modules))
            return original(monitor, *arguments)

        monkeypatch.setattr(Monitor, name, spy)
    train(toy(**STREAM, growth=GROWTH, evaluate={"every": 10}), tmp_path)
    assert seen[:3] == [(10, "validate", ["visitor1"]), (20, "validate", []),
                        (20, "end_experience", [])]  # fmt: skip


@pytest.mark.parametrize("step", [20, 33])
def test_a_rule_resumes_to_the_same_bits(tmp_path, monkeypatch, step):
    config = toy(**STREAM, growth=GROWTH, train={"optimizer": "adam"})
    train(config, tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        interrupt_at(step, patch)
        train(config, tmp_path / "cut")
    train(config, tmp_path / "cut")
    assert kill_and_resume.differences(tmp_path / "whole", tmp_path / "cut") == []


def test_a_rule_that_is_stopped_at_the_end_of_an_experience_is_called_again(tmp_path, monkeypatch):
    config = toy(**STREAM, growth=GROWTH)
    train(config, tmp_path / "whole")

    def stop(rule):
        signal.raise_signal(signal.SIGTERM)
        with interruptible():
            return []

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(Visitors, "end_experience", stop)
        train(config, tmp_path / "cut")
    train(config, tmp_path / "cut")
    assert kill_and_resume.differences(tmp_path / "whole", tmp_path / "cut") == []


def test_what_a_rule_may_attach_is_in_the_budget_before_the_first_step():
    size = set_up(toy(**STREAM, growth=GROWTH), fetch=print).network
    total = sum(p.numel() for p in size.parameters())
    with pytest.raises(UserError, match=r"growth: experience 1 makes .* over model.budget"):
        set_up(toy(**STREAM, growth=GROWTH, model={"budget": total}), fetch=print)


def test_options_are_those_of_the_rule(tmp_path, capsys):
    with pytest.raises(UserError, match=r"growth\.every: must be at least 1, got 0"):
        check_buildable(toy(**STREAM, growth=GROWTH | {"every": 0}))
    with pytest.raises(UserError, match=r"unknown field 'evry'.* Did you mean 'every'"):
        check_buildable(toy(**STREAM, growth=GROWTH | {"evry": 1}))
    with pytest.raises(UserError, match=r"unknown growth 'visitor'.* Did you mean 'visitors'"):
        check_buildable(toy(**STREAM, growth=GROWTH | {"when": "visitor"}))
    with pytest.raises(UserError, match="It is an option of on_plateau"):
        check_buildable(toy(**STREAM, growth=GROWTH | {"patience": 1}))
    assert cli.main(["list", "growth"]) == 0
    listed = " ".join(capsys.readouterr().out.split())
    assert "a visitor that leaves again; options: every=2" in listed
    assert "options: patience=3" in listed and "options: price=0.02" in listed
    words = ["digits", "--growth.every", "3", "--growth.when", "visitors", "--train.steps", "9"]
    assert cli.main(["train", *words, "--out", str(tmp_path / "run")]) == 0
    assert "every: 3" in (tmp_path / "run" / "config.yaml").read_text()


def test_a_rule_that_does_nothing_within_an_experience_is_not_called_there(tmp_path, monkeypatch):
    monkeypatch.setattr(GrowthRule, "before_step", None)
    train(toy(**STREAM, growth={"when": "per_task", "modules": OWN}), tmp_path)


class EveryOther(GrowthRule):
    """Growth with every second new task."""

    def begin_experience(self):
        new = self.new_heads
        return self.add_tasks(attach=bool(new) and self.experience.number % 2 == 0)


@pytest.mark.parametrize("heads", ["shared", "separate"])
def test_a_run_says_at_its_end_if_its_rule_has_changed_nothing(
    tmp_path, monkeypatch, capsys, heads
):
    monkeypatch.setitem(registry._entries["growth"], "every_other", EveryOther)
    head = {"head": "h"} if heads == "shared" else {}
    tasks = {name: {"name": "toy_rows", **head} for name in "ab"}
    stream = [{"tasks": ["a"]}, {"tasks": ["b"]}]
    growth = {"when": "every_other", "modules": OWN}
    train(toy(tasks=tasks, stream=stream, growth=growth), tmp_path)
    note = "note: growth.when every_other has attached, opened and removed nothing"
    assert (note in capsys.readouterr().out) == (heads == "shared")


def test_a_method_that_would_never_run_is_refused():
    with pytest.raises(
        UserError, match=r"Misspelt: no hook is called 'begin_experiences'.*Did you"
    ):

        class Misspelt(GrowthRule):
            def begin_experiences(self):
                return []


def test_modules_that_nothing_would_read_are_refused_before_data_is_loaded():
    modules = {"extra": {"input": True}}
    growth = {"when": "per_task", "modules": modules}
    with pytest.raises(UserError, match=r"growth\.modules: nothing would read extra\. Give one"):
        check_buildable(toy(**STREAM, growth=growth))
    check_buildable(toy(**STREAM, growth=growth | {"policy": "shared"}))
    check_buildable(toy(**STREAM, growth=growth | {"modules": {}}))  # a frozen backbone


def test_a_stream_that_leaves_out_a_task_is_refused_before_data_is_loaded():
    stream = {**STREAM, "stream": STREAM["stream"][:2]}
    with pytest.raises(UserError, match="stream: no experience has task 'toy_text'"):
        check_buildable(toy(**stream))


def test_a_rule_that_adds_no_task_is_told_how(monkeypatch):
    class Empty(GrowthRule):
        def begin_experience(self):
            return []

    monkeypatch.setitem(registry._entries["growth"], "empty", Empty)
    message = r"experience 2: .*'empty' has not added task 'toy_wide'.* self\.add_tasks\(\)"
    with pytest.raises(UserError, match=message):
        set_up(toy(**STREAM, growth={"when": "empty"}), fetch=print)


@pytest.mark.parametrize(
    ("returned", "message"),
    [(None, "returns the list of its changes, got None"), ([], "not returned the change")],
)
def test_changes_that_a_rule_does_not_return_are_refused(monkeypatch, returned, message):
    class Silent(GrowthRule):
        def begin_experience(self):
            self.add_tasks(attach=True)
            return returned

    monkeypatch.setitem(registry._entries["growth"], "silent", Silent)
    with pytest.raises(UserError, match=f"experience .: .*{message}"):
        set_up(toy(**STREAM, growth={"when": "silent", "modules": OWN}), fetch=print)


def test_the_example_of_a_rule_grows_as_it_says(monkeypatch):
    names = {"GrowthRule": GrowthRule}
    for example in doctest.DocTestParser().get_examples(GrowthRule.__doc__):
        exec(example.source, names)
    monkeypatch.setitem(registry._entries["growth"], "every_few", names["EveryFew"])
    config = toy(**STREAM, growth={"when": "every_few", "every": 3, "modules": OWN})
    run = set_up(config, fetch=print)
    step_until(run, 60)
    attached = [x["about"].split(",")[0] for x in run.state.topology_log if x["verb"] == "attach"]
    assert attached == ["toy_text_in", "toy_text_out"]


RULES = [
    n for n, rule in entries("growth").items() if not rule.__module__.startswith("benchmarks.")
]


@pytest.mark.parametrize("name", [*RULES, "visitors"])
@given(seed=seeds)
@examples(max_examples=1, phases=[Phase.generate])
def test_every_rule_keeps_its_laws(name, seed):
    with tempfile.TemporaryDirectory() as folder:
        rules_keep_their_laws(name, seed, Path(folder))
