"""Other choosers are short subclasses of the search: they decide and resume as it does."""

import json

import kill_and_resume
import pytest
from run_fixtures import interrupt_at, lines
from search_streams import FIRST, SMALL, stream_of

from benchmarks.search import choosers
from thalnet_mtl import registry
from thalnet_mtl.training.checkpoint import load_checkpoint
from thalnet_mtl.training.trainer import train

CHOOSERS = ("random", "oracle", "exhaustive", "prior_alone", "race_alone")
STEPS = 32


class Remembering(choosers.Oracle):
    """The oracle, which keeps what it was asked for."""

    def __init__(self, run):
        super().__init__(run)
        self.given = []

    def rank(self, entrants):
        self.given.append(str(entrants[0].candidate))
        return entrants

    def state_dict(self):
        return {"given": self.given}

    def load_state_dict(self, state):
        self.given = state["given"]


@pytest.mark.parametrize("chooser", CHOOSERS)
def test_a_chooser_decides_and_resumes_to_the_same_bits(chooser, tmp_path, monkeypatch):
    answers = [{"tasks": ["t1"]}, {"tasks": ["t2"], "expect": ["probe of t1"]}]
    config = stream_of(FIRST, SMALL, steps=STEPS, growth={"when": chooser}, answers=answers)
    result = train(config, tmp_path / "whole")
    [decision] = json.loads((tmp_path / "whole" / "topology.json").read_text())["decisions"]
    steps = [entry["steps"] for entry in decision["candidates"]]
    assert steps == {
        "random": [0], "oracle": [0], "exhaustive": [STEPS] * 6, "prior_alone": [0],
    }.get(chooser, steps)  # fmt: skip
    assert result.steps == 2 * STEPS and result.decisions.scored == 1
    if chooser == "oracle":
        assert result.decisions.as_expected == 1
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        interrupt_at(STEPS + 5, patch)
        train(config, tmp_path / "cut")
    train(config, tmp_path / "cut")
    assert kill_and_resume.differences(tmp_path / "whole", tmp_path / "cut") == []


@pytest.mark.parametrize("chooser", ["exhaustive", "race_alone"])
def test_what_a_race_leaves_is_its_winner_alone(chooser, tmp_path):
    """The oracle gives a task the same without a race."""
    answer, scores = "alone", []
    for name in (chooser, "oracle"):
        answers = [{"tasks": ["t1"]}, {"tasks": ["t2"], "expect": [answer]}]
        config = stream_of(FIRST, SMALL, steps=STEPS, growth={"when": name}, answers=answers)
        result = train(config, tmp_path / name).continual.scores
        [decision] = json.loads((tmp_path / name / "topology.json").read_text())["decisions"]
        answer = next(e["candidate"] for e in decision["candidates"] if e["chosen"])
        # The score before training is not that after the race.
        tests = [x for x in lines(tmp_path / name) if (x["task"], x["split"]) == ("t2", "test")]
        scores.append([[x for x in tests if x["step"] == STEPS], result[-1]])
    assert scores[0] == scores[1] and scores[0][0]


def test_a_chooser_keeps_its_state_when_a_winner_takes_over(tmp_path, monkeypatch):
    monkeypatch.setitem(registry._entries["growth"], "remembering", Remembering)
    answers = [{"tasks": ["t1"]}, {"tasks": ["t2"], "expect": ["alone"]}]
    config = stream_of(FIRST, SMALL, steps=2, growth={"when": "remembering"}, answers=answers)
    train(config, tmp_path)
    saved = load_checkpoint(tmp_path / "checkpoint" / "last.pt")["rule"]
    assert saved == {"given": ["alone"]}
