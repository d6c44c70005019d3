"""Flags without effect are refused; flags that repeat what the files say name no other run."""

import pytest
from toy_tasks import TOY, toy

from thalnet_mtl.config.load import load_configs
from thalnet_mtl.errors import UserError
from thalnet_mtl.training.flags import changed_values, check_effect

TWO = {"a": {"name": "toy_rows"}, "b": {"name": "toy_text"}}
STEPS = [{"tasks": ["a"], "steps": 3}, {"tasks": ["b"], "steps": 3}]


@pytest.mark.parametrize(
    ("sections", "flag", "reason"),
    [
        ({"train": {"steps": 5}}, "train.epochs", "train.steps is 5"),
        ({"tasks": TWO, "stream": STEPS}, "train.steps", "every experience has its own steps"),
        ({"tasks": TWO, "stream": STEPS}, "train.epochs", "every experience has its own steps"),
        ({}, "train.chunk", "no task is a text"),
        ({}, "train.draw", "only one task is trained"),
        ({}, "model.layers", "model.body is thalnet"),
        ({"model": {"body": "gru"}}, "model.reading", "model.body is gru"),
        ({"model": {"body": "mlp"}}, "train.ops", "model.body is mlp"),
        ({}, "growth.policy", "growth.when is never"),
        ({}, "growth.modules.a.input", "growth.when is never"),
        ({"modules": {"a": {"input": True, "output": True}}}, "model.modules", "names them"),
        ({"tasks": TWO}, "tasks.a.share", "train.draw is 0"),
    ],
)
def test_a_flag_without_effect_is_refused_whatever_its_value(sections, flag, reason):
    with pytest.raises(UserError, match=f"^--{flag} has no effect: .*{reason}"):
        check_effect([toy(**sections)], [flag])


def test_a_flag_that_has_an_effect_on_one_of_several_runs_is_taken():
    runs = [toy(model={"body": body}) for body in ("thalnet", "gru")]
    check_effect(runs, ["model.layers", "model.reading", "train.seed", "train.ops"])
    with pytest.raises(UserError, match=r"--grid model.layers has no effect"):
        check_effect(runs[:1], ["model.layers"], "--grid {}")
    check_effect([toy(tasks=TWO)], ["train.chunk", "train.draw", "train.combine"])


@pytest.mark.parametrize(
    ("flags", "changed"),
    [
        ({"train.seed": "0"}, {}),
        ({"train.clip": "1.0", "train.seed": "1"}, {"train.seed": "1"}),
        ({"train.seed": "1", "train.clip": "2"}, {"train.clip": "2.0", "train.seed": "1"}),
        ({"train.learning_rate": "1e-3"}, {"train.learning_rate": "0.001"}),
        ({"train.learning_rate": "1e-2"}, {}),
        ({"task.metrics": "f1,accuracy"}, {"task.metrics": "f1,accuracy"}),
        ({"task.name": "permuted_mnist", "task.permutation": "0"}, {"task.name": "permuted_mnist"}),
        ({"task.name": "permuted_mnist", "task.permutation": "3"},
         {"task.name": "permuted_mnist", "task.permutation": "3"}),
        ({"model.body": "thalnet"}, {}),
    ],
)  # fmt: skip
def test_flags_that_change_nothing_are_no_part_of_the_name_of_a_run(flags, changed):
    assert changed_values(["digits"], flags) == changed
    assert load_configs(["digits"], changed)[""].train == load_configs(["digits"], flags)[""].train


def test_a_field_of_a_file_can_be_set_back_to_its_default():
    words = [word.removeprefix("--").partition("=") for word in TOY[1:]]
    flags = {key: text for key, _, text in words} | {"evaluate.batches": "0"}
    changed = changed_values(["debug"], flags)
    assert changed["evaluate.batches"] == "0" and changed["model.features"] == "6"


def test_flags_that_may_differ_when_a_run_goes_on_are_no_part_of_its_name():
    same = {"train.threads": "2", "train.ops": "reference", "evaluate.log_every": "7"}
    assert changed_values(["debug"], same | {"train.steps": "20"}) == {}
    cosine = {"train.schedule": "cosine", "train.steps": "20"}
    assert changed_values(["debug"], same | cosine) == cosine
