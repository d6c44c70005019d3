"""A way of training supports the fields that it declares, and no others."""

from dataclasses import fields, replace

import pytest
import torch
from toy_tasks import GROWING, GROWTH, JOINT, STREAM, toy

from thalnet_mtl.avalanche import runner
from thalnet_mtl.config.load import flatten
from thalnet_mtl.config.schema import Config, ModuleConfig, NamedTaskConfig
from thalnet_mtl.training import stackable, step
from thalnet_mtl.training.support import BASIC, pattern, unsupported

WAYS = {"stacked": stackable.SUPPORTED, "graphs": step.CAPTURABLE, "avalanche": runner.SUPPORTED}


def schema() -> set[str]:
    """Return every field that a configuration can have, with ``*`` for entries."""
    module = {entry.name for entry in fields(ModuleConfig)}
    known = {pattern(path) for path in flatten(Config())}
    known |= {f"tasks.*.{entry.name}" for entry in fields(NamedTaskConfig)}
    known |= {f"{section}.*.{name}" for section in ("modules", "growth.modules") for name in module}
    known |= {pattern(path) for path in flatten(toy(**JOINT, changes=GROWTH, **{}))}
    return known | {pattern(path) for path in flatten(toy(**STREAM))}


@pytest.mark.parametrize("way", WAYS)
def test_what_is_declared_exists(way):
    assert set(WAYS[way]) <= schema()


def test_nothing_is_supported_that_is_not_declared():
    config = toy(train={"clip": 2.0})
    without = {field: values for field, values in BASIC.items() if field != "train.clip"}
    assert unsupported(toy(), BASIC) == unsupported(config, BASIC) == ""
    assert unsupported(config, without) == "train.clip 2.0"


@pytest.mark.parametrize(
    ("sections", "field"),
    [
        ({"train": {"dropout": 0.5}}, "train.dropout 0.5"),
        ({"tasks": {"toy_rows": {"reset": 0.1}}}, "tasks.toy_rows.reset 0.1"),
        ({"train": {"combine": "upgrad"}}, "train.combine upgrad"),
        (STREAM, "stream"),
        (JOINT | {"changes": GROWTH}, "changes"),
        ({"growth": GROWING["plateau"]}, "growth.when on_plateau"),
        ({"growth": GROWING["plateau"] | {"when": "never"}}, ""),  # of no effect
        ({"train": {"combine": "uncertainty", "patience": 3}}, ""),
        (JOINT, ""),
    ],
)
def test_the_first_field_that_is_not_supported_is_named(sections, field):
    assert unsupported(toy(**sections), stackable.SUPPORTED) == field


def test_a_value_that_is_not_among_the_supported_ones_is_named():
    assert unsupported(toy(train={"ops": "fused"}), stackable.SUPPORTED) == "train.ops fused"
    assert unsupported(toy(train={"ops": "cpp"}), stackable.SUPPORTED) == ""


def test_graphs_are_captured_for_all_but_the_fields_that_need_the_cpu():
    cuda = torch.device("cuda")
    for sections in (STREAM, JOINT | {"changes": GROWTH}, {"growth": GROWING["plateau"]}):
        assert step.can_capture(toy(**sections), cuda)
    for options in ({"dropout": 0.1}, {"patience": 1}, {"precision": "bf16"}, {"draw": 1.0}):
        assert step.can_capture(toy(train=options), cuda)
    assert not step.can_capture(toy(train={"strategy": "si"}), cuda)
    config = toy()
    assert step.can_capture(replace(config, model=replace(config.model, body="gru")), cuda)
