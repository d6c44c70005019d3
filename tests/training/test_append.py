"""Experiences appended to a stream: as if they had been there all along."""

import json
import re
from dataclasses import replace
from itertools import cycle

import kill_and_resume
import pytest
import torch
from run_fixtures import interrupt_at, lines, matrix
from stream_fixtures import STRATEGIES
from toy_tasks import GROWING, knobs_of, toy

from thalnet_mtl import cli
from thalnet_mtl.config.load import dump_config
from thalnet_mtl.config.schema import StrategyConfig
from thalnet_mtl.errors import UserError
from thalnet_mtl.runs.run_files import read_environment
from thalnet_mtl.strategies import ewc
from thalnet_mtl.training.checkpoint import load_checkpoint
from thalnet_mtl.training.step import TrainStep
from thalnet_mtl.training.trainer import train

TASKS = {"a": "toy_rows", "b": "toy_wide", "c": "toy_turned", "d": "toy_text"}
OFTEN = {"every": 3, "batch": 24, "batches": 1, "log_every": 4, "checkpoint_every": 3}


@pytest.fixture(autouse=True)
def few_samples(monkeypatch):
    monkeypatch.setattr(ewc, "SAMPLES", 10)  # for the Fisher information


def stream(names="abcd", strategy="naive", growth="never", train=None, **sections):
    """A stream that trains tasks in an order; those of one letter are one task."""
    given = {
        "tasks": {name: {"name": TASKS[name]} for name in dict.fromkeys(names)},
        "stream": [{"tasks": [name], "steps": 6} for name in names],
        "growth": GROWING[growth],
        "strategy": knobs_of(strategy, memory=40, strength=5.0),
        "evaluate": OFTEN,
    }
    return toy(**given | sections, train={"strategy": strategy, **(train or {})})


def learned(folder):
    saved = load_checkpoint(folder / "checkpoint" / "last.pt")
    names = ("network", "optimizer", "strategy", "weighting", "stopping", "batches_seen")
    return kill_and_resume.flatten({name: saved[name] for name in names if name in saved})


def assert_the_same_run(longer, whole):
    """All that was learned, and all scores that a run has at the end of its stream."""
    ours, theirs = learned(longer), learned(whole)
    # Anchors of heads that no experience has trained yet have no importance.
    alone = [name for name in theirs.keys() ^ ours.keys() if "strategy" not in name]
    assert alone == []
    for name in ours.keys() & theirs.keys():
        value = theirs[name]
        same = torch.equal(ours[name], value) if isinstance(value, torch.Tensor) else True
        assert same, name
    found, wanted = (json.loads((f / "result.json").read_text()) for f in (longer, whole))
    for name, scores in wanted["tasks"].items():
        for split in ("train", "validation", "test", "untrained"):
            assert found["tasks"][name][split] == scores[split], (name, split)
    tasks, rows = matrix(longer)
    assert (tasks, len(rows)) == (matrix(whole)[0], len(matrix(whole)[1]))
    for ours_row, their_row in zip(rows, matrix(whole)[1], strict=True):
        assert all(ours_row[n] in ("", their_row[n]) for n in tasks)
    for measure in ("average_accuracy", "backward_transfer", "forward_transfer"):
        means = [r["continual"]["measures"][measure]["values"] for r in (found, wanted)]
        assert means[0] == means[1], measure


@pytest.mark.parametrize(
    ("growth", "strategy"), [*zip(cycle(["never", "frozen", "never"]), STRATEGIES, strict=False)]
)
def test_a_longer_stream_is_the_same_as_one_that_was_longer_from_the_start(
    tmp_path, growth, strategy
):
    names = "abcd" if growth == "frozen" else "abcda"  # a frozen task does not train again
    train(stream(names, strategy, growth), tmp_path / "whole")
    for length in (2, 3, len(names)) if strategy == "naive" else (2, len(names)):
        train(stream(names[:length], strategy, growth), tmp_path / "longer")
    assert_the_same_run(tmp_path / "longer", tmp_path / "whole")


@pytest.mark.parametrize(
    "options",
    [
        {"growth": "plateau", "strategy": "ewc"},
        {"growth": "frozen", "train": {"dropout": 0.2, "optimizer": "sgd"}},
        {"strategy": "replay", "train": {"patience": 1, "clip": 0.5, "schedule": "cosine"}},
        {"train": {"combine": "uncertainty", "optimizer": "adam"},
         "model": {"body": "gru", "features": 5}},
    ],
    ids=str,
)  # fmt: skip
def test_growth_and_options_make_no_difference(tmp_path, options):
    train(stream("abc", **options), tmp_path / "whole")
    train(stream("ab", **options), tmp_path / "longer")
    train(stream("abc", **options), tmp_path / "longer")
    assert_the_same_run(tmp_path / "longer", tmp_path / "whole")


@pytest.mark.parametrize(
    ("memory", "choice", "filled"),
    [(7, "reservoir", 7), (17, "per_class", 12)],  # equally many of each of 6 classes
)
def test_a_memory_of_fixed_size_is_that_of_one_run(tmp_path, memory, choice, filled):
    # With one head for all, so that the tasks of both streams have scores from the start.
    def shared(names):
        tasks = {n: {"name": TASKS[n], "head": "all"} for n in dict.fromkeys(names)}
        config = stream(names, "replay", tasks=tasks)
        return replace(config, strategy=StrategyConfig({"memory": memory, "choice": choice}))

    train(shared("aca"), tmp_path / "whole")
    train(shared("ac"), tmp_path / "longer")
    train(shared("aca"), tmp_path / "longer")
    assert_the_same_run(tmp_path / "longer", tmp_path / "whole")
    stored = load_checkpoint(tmp_path / "longer" / "checkpoint" / "last.pt")["strategy"]["stored"]
    assert sum(len(keys) for *_, keys in stored.values()) == filled


def test_a_run_that_is_cut_after_it_was_reopened_goes_on(tmp_path, monkeypatch):
    train(stream("abc", "ewc"), tmp_path / "whole")
    train(stream("ab", "ewc"), tmp_path / "cut")
    for step in (12, 14, 16):
        with monkeypatch.context() as patch, pytest.raises(SystemExit):
            interrupt_at(step, patch)
            train(stream("abc", "ewc"), tmp_path / "cut")
    train(stream("abc", "ewc"), tmp_path / "cut")
    assert_the_same_run(tmp_path / "cut", tmp_path / "whole")
    assert len(read_environment(tmp_path / "cut" / "environment.json")["lineage"]) == 1


def test_an_unfinished_stream_may_become_longer(tmp_path, monkeypatch):
    train(stream("abcd", "si"), tmp_path / "whole")
    for step in (4, 9):
        with monkeypatch.context() as patch, pytest.raises(SystemExit):
            interrupt_at(step, patch)
            train(stream("ab" if step == 4 else "abc", "si"), tmp_path / "longer")
    train(stream("abcd", "si"), tmp_path / "longer")
    assert_the_same_run(tmp_path / "longer", tmp_path / "whole")


def test_the_files_of_a_run_follow(tmp_path, capsys):
    train(stream("ab"), tmp_path)
    train(stream("abd"), tmp_path)
    environment = read_environment(tmp_path / "environment.json")
    (entry,) = environment["lineage"]
    assert (entry["step"], entry["changed"]) == (12, {"stream": [2, 3]})
    assert set(environment["fingerprints"]) == set(environment["scalings"]) == set("abd")
    assert set(json.loads((tmp_path / "metrics.json").read_text())) == set("abd")
    assert (tmp_path / "earlier" / "step-12" / "result.json").is_file()
    names, rows = matrix(tmp_path)
    assert names == ["stage", "a", "b", "d"] and [bool(r["d"]) for r in rows] == [1, 0, 1, 1]
    steps = [x["step"] for x in lines(tmp_path) if (x["task"], x["metric"]) == ("d", "loss")]
    assert {0, 12, 18} <= set(steps)
    for command in ("compare", "inspect"):
        assert cli.main([command, str(tmp_path)]) == 0
    assert not capsys.readouterr().err


def test_the_same_stream_again_trains_nothing(tmp_path, monkeypatch):
    train(stream("ab"), tmp_path)
    result = train(stream("aba"), tmp_path).to_json()
    monkeypatch.setattr(TrainStep, "__call__", None)
    assert train(stream("aba"), tmp_path).to_json() == result


def test_what_differs_from_one_run_is_said(tmp_path, capsys):
    train(stream("ab", train={"dropout": 0.1}), tmp_path)
    train(stream("abc", train={"dropout": 0.1}), tmp_path)
    assert "would be another one: the random numbers of its dropout" in capsys.readouterr().out


LATER = {"changes": [{"step": 3, "verb": "attach", "name": "late"}]}
BUDGET = {"model": {"features": 0, "budget": 1400}}


@pytest.mark.parametrize(
    ("first", "then", "options", "more", "message"),
    [
        ("ab", "acb", {}, {}, r"stream: experience 2 has tasks \['c'\], there \['b'\]"),
        ("abc", "ab", {}, {}, "experience 3 has tasks c there, and does not exist here"),
        ("a", "ab", {}, {}, "with a single experience it has kept its best weights"),
        ("ab", "abc", {}, LATER, "another configuration: changes.0"),
        ("ab", "abc", LATER, LATER, "changes of its topology would have been changes of the new"),
        ("ab", "abc", {}, {"train": {"batch": 11}}, "train.batch 11, there 10"),
        ("ac", "acb", {}, {}, "from the start, .* or with inputs of another width"),
        ("ab", "abcd", BUDGET, BUDGET, "another one from the start, as with model.features 0"),
    ],
)  # fmt: skip
def test_what_cannot_be_appended_is_one_line_and_changes_nothing(
    tmp_path, capsys, first, then, options, more, message
):
    def content():
        return {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}

    train(stream(first, **options), tmp_path / "run")
    before, path = content(), tmp_path / "then.yaml"
    path.write_text(dump_config(stream(then, **options | more)))
    capsys.readouterr()
    assert cli.main(["train", str(path), "--out", str(tmp_path / "run")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(message, line) and line.startswith("thalnet: ")
    assert content() == before


def test_tasks_in_another_order_are_refused(tmp_path):
    train(stream("ab"), tmp_path)
    tasks = {name: {"name": TASKS[name]} for name in "cab"}
    with pytest.raises(UserError, match=r"tasks are a, b, in this order; .* come after them"):
        train(stream("abc", tasks=tasks), tmp_path)
