"""The answer key of a stream: checked before training, and counted in result and output."""

import pytest

from thalnet_mtl import load_config, train
from thalnet_mtl.cli import main
from thalnet_mtl.errors import UserError
from thalnet_mtl.runs.results import RunResult
from thalnet_mtl.training.checks import check_expected, without_effect

AGAIN = {"name": "variant", "of": "digits_rows", "train_per_class": 20}
TASKS = {"digits": {"name": "digits_rows"}, "again": AGAIN, "third": AGAIN, "fourth": AGAIN}
MODULES = {"low": {"input": True}, "high": {"output": True}}


def stream_of(*experiences, **sections):
    named = {name for experience in experiences for name in experience["tasks"]}
    return load_config(
        tasks={name: task for name, task in TASKS.items() if name in named},
        stream=list(experiences),
        modules=MODULES,
        model={"features": 6},
        growth={"when": "search", "modules": MODULES},
        train={"steps": 16, "batch": 16, "optimizer": "adam", "learning_rate": 0.01},
        evaluate={"every": 16, "log_every": 16, "batches": 2},
        **sections,
    )


def experience(task, *expect):
    return {"tasks": [task], "expect": list(expect)}


@pytest.mark.parametrize(
    ("expect", "message"),
    [
        ("prob of digits", "experience 2: expect: unknown candidate 'prob'.*mean 'probe'"),
        ("probe of digts", "experience 2: expect: unknown earlier task 'digts'.*mean 'digits'"),
        ("probe of again", "unknown earlier task 'again'. Allowed: digits"),
        ("alone of digits", "'alone' reuses no earlier task; write 'alone'"),
        ("probe of ", "unknown earlier task ''"),
    ],
)
def test_an_answer_that_no_decision_can_give_is_refused(expect, message):
    config = stream_of(experience("digits"), experience("again", "probe", expect))
    with pytest.raises(UserError, match=message) as error:
        check_expected(config)
    assert "\n" not in str(error.value)


def test_an_answer_where_nothing_is_decided_is_refused(tmp_path):
    check_expected(stream_of(experience("digits"), experience("again", "top of digits", "all")))
    first = stream_of(experience("digits", "alone"), experience("again"))
    with pytest.raises(UserError, match=r"experience 1: .* nothing is decided.* it is the first"):
        check_expected(first)
    known = stream_of(experience("digits"), experience("again"), experience("digits", "probe"))
    with pytest.raises(UserError, match=r"experience 3: .* nothing is decided.* no new task"):
        train(known, tmp_path / "run")


def test_an_answer_without_a_search_has_no_effect():
    entries = experience("digits"), experience("again", "probe")
    config = stream_of(*entries)
    assert without_effect(config) == []
    grown = load_config(config.__dict__, growth={"when": "per_task"})
    assert without_effect(grown) == ["stream.1.expect has no effect: growth.when is per_task"]


def test_a_run_says_how_many_of_its_decisions_were_as_expected(tmp_path, capsys):
    every = ("probe", "bottom", "top", "finetune", "alone", "all")
    entries = experience("again", *every), experience("third", "probe of again")
    config = stream_of(experience("digits"), *entries, experience("fourth"))
    result = train(config, tmp_path)
    assert result.decisions.scored == 2 and result.decisions.as_expected in (1, 2)
    assert RunResult.load(tmp_path).decisions == result.decisions
    line = f"decisions: {result.decisions.as_expected} of 2 as expected\n"
    assert capsys.readouterr().out.endswith(line)
    assert main(["inspect", str(tmp_path)]) == 0
    assert capsys.readouterr().out.endswith(line)
