"""Epochs by the shortest, the longest or a named task, and options without effect."""

import pytest
from toy_tasks import toy

from thalnet_mtl.config.files import config_names
from thalnet_mtl.config.load import load_configs
from thalnet_mtl.errors import UserError
from thalnet_mtl.training.checks import without_effect
from thalnet_mtl.training.sampling import next_batches
from thalnet_mtl.training.setup import set_up
from thalnet_mtl.training.trainer import train

ONE_HEAD = {name: {"name": "toy_rows", "head": "h"} for name in "ab"}
THREE = {"a": {"name": "toy_rows"}, "b": {"name": "toy_wide"}, "c": {"name": "toy_text"}}
BATCHES = {"a": 30, "b": 20, "c": 28}  # of 10 sequences, or of 10 times 7 letters


@pytest.mark.parametrize(
    ("choice", "steps"), [("shortest", 20), ("longest", 30), ("a", 30), ("b", 20), ("c", 28)]
)
def test_an_epoch_is_a_pass_over_the_chosen_task(choice, steps):
    options = {"epoch_of": choice, "steps": 0, "epochs": 3}
    run = set_up(toy(tasks=THREE, train=options, evaluate={"every": 0}), fetch=print)
    assert {name: run.batches_per_epoch(name) for name in THREE} == BATCHES
    assert run.epoch == steps and run.total_steps == 3 * steps


def test_each_experience_has_epochs_of_its_own_tasks():
    stream = [{"tasks": ["a", "b"]}, {"tasks": ["b"]}, {"tasks": ["c", "b"]}]
    options = {"epoch_of": "longest", "steps": 0, "epochs": 2}
    run = set_up(toy(tasks=THREE, stream=stream, train=options), fetch=print)
    assert [part.stop - part.start for part in run.stream] == [60, 40, 56]


def test_shorter_tasks_begin_again_in_another_order():
    run = set_up(toy(tasks=THREE, train={"epoch_of": "longest", "steps": 0}), fetch=print)
    seen = [next_batches(run) for _ in range(40)]
    passes = [[batch["b"].xs for batch in seen[start : start + 20]] for start in (0, 20)]
    rows = [[tuple(row.flatten().tolist()) for xs in part for row in xs] for part in passes]
    assert rows[0] != rows[1] and sorted(rows[0]) == sorted(rows[1])
    assert [batch["c"].starts_sequence for batch in seen].count(True) == 2


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({}, "train.epoch_of: unknown task 'longes'.*Did you mean 'longest'"),
        ({"stream": [{"tasks": ["a", "b"]}, {"tasks": ["c"]}], "train": {"epoch_of": "a"}},
         "train.epoch_of a: experience 2 does not train that task"),
    ],
)  # fmt: skip
def test_an_epoch_of_a_task_that_is_not_there_is_refused(sections, message):
    sections = {"train": {"epoch_of": "longes"}} | sections
    with pytest.raises(UserError, match=message) as error:
        set_up(toy(tasks=THREE, **sections), fetch=print)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("sections", "options"),
    [
        ({"train": {"combine": "uncertainty"}}, ["train.combine"]),
        ({"train": {"draw": 1.0, "epoch_of": "longest"}}, ["train.draw", "train.epoch_of"]),
        ({"tasks": {"a": {"name": "toy_rows", "share": 2.0}}}, ["tasks.a.share"]),
        ({"tasks": THREE | {"b": {"name": "toy_wide", "share": 2.0}}}, ["tasks.b.share"]),
        ({"train": {"strategy": "ewc"}}, ["train.strategy"]),
        ({"train": {"strategy": "avalanche:gem"}}, ["train.strategy"]),
        ({"train": {"strategy": "avalanche:gdumb"}}, []),  # it acts in the first experience
        ({"train": {"strategy": "replay"}, "tasks": THREE, "stream": [{"tasks": ["a", "b"]}]},
         ["train.strategy"]),
        ({"train": {"strategy": "replay"}, "tasks": THREE,
          "stream": [{"tasks": ["a", "b"]}, {"tasks": ["c"]}]}, []),
        ({"growth": {"modules": {"a": {"input": True}}, "policy": "shared"}},
         ["growth.policy", "growth.modules"]),
        ({"tasks": ONE_HEAD, "stream": [{"tasks": ["a"]}, {"tasks": ["b"]}],
          "growth": {"when": "per_task", "modules": {"n": {"input": True, "output": True}}}},
         ["growth.when"]),
        ({"tasks": THREE, "stream": [{"tasks": ["a"]}, {"tasks": ["b"]}, {"tasks": ["c"]}],
          "growth": {"when": "per_task", "modules": {"n": {"input": True, "output": True}}}}, []),
        ({"model": {"body": "gru", "reading": "linear", "layers": 1}},
         ["model.modules", "model.reading"]),
        ({"model": {"layers": 2}}, ["model.layers"]),
        ({"tasks": THREE | {"s": {"name": "toy_rows", "head": "a", "only_scored": True,
                                  "weight": 2.0}}}, ["tasks.s.weight"]),
        ({"train": {"combine": "uncertainty", "epoch_of": "a"}, "tasks": THREE}, []),
    ],
)  # fmt: skip
def test_options_without_effect_are_named(sections, options):
    found = [line.partition(" has no effect: ") for line in without_effect(toy(**sections))]
    assert [option for option, _, _ in found] == options
    assert all(reason for _, _, reason in found)


def test_no_configuration_of_the_package_has_an_option_without_effect():
    for name in config_names():
        recipe = ["search/recipe"] if name.startswith("search/") else []  # of those streams
        for config in load_configs([*recipe, name]).values():
            assert without_effect(config) == [], name


def test_they_are_printed_before_training(tmp_path, capsys):
    train(toy(train={"combine": "uncertainty", "steps": 20}), tmp_path)
    note = "note: train.combine has no effect: only one task is trained"
    printed = capsys.readouterr().out
    assert printed.count(note) == 1 and printed.index(note) < printed.index("validation accuracy")
