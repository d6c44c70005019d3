"""Early stopping within the experiences of a stream, which end with their best weights."""

import json
from itertools import cycle

import kill_and_resume
import pytest
import torch
from run_fixtures import interrupt_at, lines
from stream_fixtures import STRATEGIES, scripted
from toy_tasks import GROWING, PER_TASK, STREAM, knobs_of, toy

from thalnet_mtl.strategies import ewc
from thalnet_mtl.training.checkpoint import load_checkpoint
from thalnet_mtl.training.trainer import train

OFTEN = {"every": 4, "batch": 24, "batches": 1, "log_every": 4, "checkpoint_every": 3}
TASKS = list(STREAM["tasks"])
BY_STEP = ("replay", "agem", "gem")  # they choose stored sequences by the number of the step
# Validation scores: the first task stops after step 16 and keeps step 8, the second after
# step 28 and keeps step 20, the third improves to the end.
SCRIPT = {
    "toy_rows": [0.4, 0.9, 0.5, 0.5],
    "toy_wide": [*[0.5] * 4, 0.9, 0.6, 0.6],
    "toy_text": [5 - k / 10 for k in range(40)],
}


@pytest.fixture(autouse=True)
def few_samples(monkeypatch):
    monkeypatch.setattr(ewc, "SAMPLES", 10)  # for the Fisher information


def stream(steps=(20, 20, 20), strategy="naive", patience=2, **sections):
    entries = [{"tasks": [task], "steps": n} for task, n in zip(TASKS, steps, strict=True)]
    return toy(
        tasks=STREAM["tasks"],
        stream=entries,
        train={"strategy": strategy, "patience": patience},
        strategy=knobs_of(strategy, memory=30, strength=5.0),
        **{"evaluate": OFTEN} | sections,
    )


def learned(folder):
    """What has learned, at the end of a run."""
    saved = load_checkpoint(folder / "checkpoint" / "last.pt")
    return {name: saved[name] for name in ("network", "optimizer", "strategy")}


@pytest.mark.parametrize(
    ("growth", "strategy"),
    [*zip(cycle(["never", "frozen"]), [s for s in STRATEGIES if s not in BY_STEP], strict=False)],
)
def test_an_experience_that_stops_early_is_as_if_it_had_been_as_long_as_its_best_step(
    tmp_path, monkeypatch, strategy, growth
):
    grown = {"growth": GROWING[growth]}
    script = SCRIPT if growth == "never" else SCRIPT | {"toy_wide": SCRIPT["toy_wide"][4:]}
    with monkeypatch.context() as patch:
        scripted(patch, script)
        result = train(stream(strategy=strategy, **grown), tmp_path / "early")
    assert result.steps == 48
    assert (result.continual.ends, result.continual.kept) == ([16, 28, 48], [8, 20, 48])
    train(stream((8, 4, 20), strategy, patience=0, **grown), tmp_path / "short")
    early, short = (kill_and_resume.flatten(learned(tmp_path / n)) for n in ("early", "short"))
    assert early.keys() == short.keys() and len(early) > 20
    for name, value in short.items():
        same = torch.equal(early[name], value) if isinstance(value, torch.Tensor) else True
        assert same, name


def test_a_stream_says_and_records_how_long_its_experiences_took(tmp_path, monkeypatch, capsys):
    scripted(monkeypatch, SCRIPT)
    train(stream(), tmp_path)
    said = capsys.readouterr().out
    assert "experience 1 took 16 steps (early stop; 20 were planned): its best weights, of" in said
    assert "experience 3 took 20 steps: its best weights, of step 48, are kept" in said
    recorded = json.loads((tmp_path / "result.json").read_text())["continual"]
    assert recorded["ends"] == [16, 28, 48] and recorded["kept"] == [8, 20, 48]
    tests = {line["step"] for line in lines(tmp_path) if line["split"] == "test"}
    assert tests == {0, 16, 28, 48}


def test_without_patience_nothing_is_recorded_of_it(tmp_path):
    train(stream(patience=0), tmp_path)
    assert "kept" not in json.loads((tmp_path / "result.json").read_text())["continual"]
    assert "stopping" not in load_checkpoint(tmp_path / "checkpoint" / "last.pt")


@pytest.mark.parametrize(("growth", "strategy"), [("never", "si"), ("frozen", "replay")])
def test_a_run_cut_at_any_step_goes_on_to_the_same_bits(tmp_path, monkeypatch, strategy, growth):
    config = stream(strategy=strategy, patience=1, growth=GROWING[growth])
    result = train(config, tmp_path / "whole")
    ends, kept = result.continual.ends, result.continual.kept
    assert ends[-1] < 60 and ends != kept  # some stopped early, some after their best step
    for step in range(2, result.steps, 13):
        with monkeypatch.context() as patch, pytest.raises(SystemExit):
            interrupt_at(step, patch)
            train(config, tmp_path / "cut")
    train(config, tmp_path / "cut")
    assert kill_and_resume.differences(tmp_path / "whole", tmp_path / "cut") == []


def test_frozen_tasks_keep_their_answers_when_best_weights_are_restored(tmp_path):
    result = train(stream(patience=1, growth=PER_TASK), tmp_path)
    assert result.continual.ends != result.continual.kept
    first = result.continual.ends[0]
    losses = [
        line["value"]
        for line in lines(tmp_path)
        if (line["task"], line["split"], line["metric"]) == ("toy_rows", "validation", "loss")
        and line["step"] > first
    ]
    assert len(losses) > 4 and len(set(losses)) == 1


def test_a_task_that_returns_is_judged_by_its_new_scores(tmp_path, monkeypatch):
    # Its best score is from the first time. The second time it begins lower, and improves.
    scripted(monkeypatch, {"toy_rows": [0.9, 0.1, 0.1, *[0.1 + k / 100 for k in range(40)]]})
    entries = [{"tasks": [task], "steps": 20} for task in ("toy_rows", "toy_wide", "toy_rows")]
    tasks = {name: {} for name in ("toy_rows", "toy_wide")}
    config = toy(tasks=tasks, stream=entries, train={"patience": 2}, evaluate=OFTEN)
    result = train(config, tmp_path)
    assert result.continual.ends == [12, 32, 52] and result.continual.kept == [4, 32, 52]


def test_all_tasks_of_an_experience_stop_before_it_ends(tmp_path, monkeypatch):
    # They are judged by the mean, and one that has stopped is not trained any more.
    script = {"a": [0.9, 0.5, 0.5], "b": [0.1, 0.2, 0.2, 0.2, 0.2], "c": [0.5]}
    tasks = {name: {"name": "toy_rows"} for name in "abc"}
    scripted(monkeypatch, script)
    entries = [{"tasks": ["a", "b"], "steps": 40}, {"tasks": ["c"], "steps": 8}]
    config = toy(tasks=tasks, stream=entries, train={"patience": 2}, evaluate=OFTEN)
    result = train(config, tmp_path)
    assert result.continual.ends == [16, 24] and result.continual.kept == [4, 20]
    trained = [(x["step"], x["task"]) for x in lines(tmp_path) if x["metric"] == "learning_rate"]
    assert [step for step, task in trained if task == "a"] == [4, 8, 12]
    assert [step for step, task in trained if task == "b"] == [4, 8, 12, 16]
