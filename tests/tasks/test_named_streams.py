"""Streams by name: permutations, splits with an order of classes, an option that counts."""

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from thalnet_mtl import UserError, cli, load_config
from thalnet_mtl.config.load import check_config, dump_config, load_configs
from thalnet_mtl.config.named_stream import write_out_stream
from thalnet_mtl.config.schema import Config, NamedStream, NamedTaskConfig
from thalnet_mtl.registry import lookup, registered
from thalnet_mtl.sweep import plan
from thalnet_mtl.tasks.named_streams import class_order
from thalnet_mtl.training.setup import make_tasks


def written(**tasks):
    """A stream that trains these tasks one after another, as it was written by hand."""
    return {"tasks": tasks, "stream": [{"tasks": [name]} for name in tasks]}


PERMUTED = {f"p{k}": {"name": "permuted_mnist", "permutation": k} for k in range(20)}


@pytest.mark.parametrize(
    ("config", "by_hand"),
    [
        ("permuted_mnist_10", written(**{f"p{k}": PERMUTED[f"p{k}"] for k in range(10)})),
        ("permuted_mnist_20", written(**PERMUTED)),
        ("split_mnist", written(**{f"split_mnist_{k}": {} for k in range(5)})),
        ("split_cifar10", written(**{f"split_cifar10_{k}": {} for k in range(5)})),
        ("split_mnist_class",
         written(**{f"split_mnist_{k}": {"head": "digits"} for k in range(5)})),
    ],
)  # fmt: skip
def test_a_config_with_a_named_stream_is_the_one_that_was_written_by_hand(config, by_hand):
    named = load_config(f"continual/{config}")
    sections = yaml.safe_load(dump_config(named)) | by_hand
    assert dump_config(load_config(sections)) == dump_config(named)
    assert dump_config(load_config(yaml.safe_load(dump_config(named)))) == dump_config(named)


def test_a_flag_changes_the_length_of_a_stream_and_a_list_replaces_it():
    (config,) = load_configs(
        ["continual/permuted_mnist_10"], {"stream.n_experiences": "3"}
    ).values()
    assert list(config.tasks) == ["p0", "p1", "p2"] and len(config.stream) == 3
    by_hand = load_config("continual/permuted_mnist_10", written(digits_rows={}))
    assert list(by_hand.tasks) == ["digits_rows"] and len(by_hand.stream) == 1


def test_fields_of_each_task_and_of_single_ones_are_laid_over_the_stream():
    tasks = {"p1": {"weight": 3}, "p2": {"name": "digits_rows"}, "more": {"name": "mnist_rows"}}
    stream = {"name": "permuted_mnist", "n_experiences": 3, "each": {"weight": 2, "unknown": True}}
    config = load_config(tasks=tasks, stream=stream)
    assert [*config.tasks] == ["p0", "p1", "p2", "more"]
    assert config.tasks["p0"] == NamedTaskConfig(
        "permuted_mnist", weight=2.0, unknown=True, options={"permutation": 0}
    )
    assert (config.tasks["p1"].weight, config.tasks["p1"].options) == (3.0, {"permutation": 1})
    assert config.tasks["p2"] == NamedTaskConfig("digits_rows")


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60))
def test_the_order_of_a_seed_is_that_of_torch_and_so_that_of_avalanche(seed, classes):
    torch.manual_seed(seed)
    assert class_order(classes, 1, seed, None) == torch.randperm(classes).tolist()


@pytest.mark.parametrize("head", ["", "digits"])
def test_the_parts_of_a_split_are_the_sequences_of_their_classes(head):
    stream = {"name": "split", "of": "digits_rows", "seed": 1, "each": {"head": head}}
    tasks = make_tasks(load_config(stream=stream))
    whole = lookup("task", "digits_rows")().load("cpu").sequences("train", 1)
    order, seen = class_order(10, 5, 1, None), 0
    for k, task in enumerate(tasks.values()):
        classes = order[2 * k : 2 * k + 2]
        data = task.load("cpu").sequences("train", 1)
        expected = [i for i, y in enumerate(whole.ys.tolist()) if y in classes]
        numbers = [whole.ys[i].item() for i in expected]
        assert torch.equal(data.xs, whole.xs[expected])
        assert data.ys.tolist() == (numbers if head else [classes.index(y) for y in numbers])
        assert task.spec.outputs == (10 if head else 2)
        seen += len(expected)
    assert seen == len(whole)


def test_any_option_of_a_task_may_count():
    stream = {"name": "varied", "of": {"name": "variant", "of": "digits_rows"}}
    config = load_config(stream=stream | {"option": "label_order", "n_experiences": 2, "first": 5})
    assert [t.options["label_order"] for t in config.tasks.values()] == [5, 6]
    assert np.all([t.name == "variant" for t in config.tasks.values()])


def test_a_stream_of_a_user_may_return_tasks_and_join_them():
    def there_and_back(task: str = "digits_rows"):
        """Two tasks, both together, and the first again."""
        return [{task: {}}, {"b": {"name": "digits_parity"}, task: {}}, {task: {}}]

    with registered("stream", {"back": there_and_back}):
        config = load_config(stream="back")
    names = [experience.tasks for experience in config.stream]
    assert names == [("digits_rows",), ("b", "digits_rows"), ("digits_rows",)]
    assert list(config.tasks) == ["digits_rows", "b"]


def test_a_configuration_made_in_python_may_name_a_stream():
    config = check_config(Config(stream=NamedStream("permuted_mnist", options={"first": 7})))
    assert next(iter(config.tasks)) == "p7" and write_out_stream(config) is config


def test_a_grid_sweeps_options_of_a_stream():
    bases = load_configs(["continual/split_mnist"], swept=["stream.seed", "stream.n_experiences"])
    runs = plan.plan(bases, {"stream.seed": ["1", "2"], "stream.n_experiences": ["2"]}, [], {})
    names = [run.name for run in runs]
    assert names == ["seed=1,n_experiences=2-seed0", "seed=2,n_experiences=2-seed0"]
    first = [run.config.tasks["split_mnist_0"].options["classes"] for run in runs]
    assert first[0] == [5, 6, 1, 2, 0] and first[0] != first[1]


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        ("split_mnst", "unknown stream 'split_mnst'.*Did you mean 'split_mnist'"),
        ({"name": "split_mnist", "n_experience": 5}, "Did you mean 'n_experiences'"),
        ({"name": "split_mnist", "n_experiences": 3}, "10 classes split equally into 1, 2, 5, 10"),
        ({"name": "split_mnist", "seed": 1, "fixed_class_order": [1]}, "give one of them"),
        ({"name": "split_mnist", "fixed_class_order": [0, 0]}, "each of 0 … 9 once, got"),
        ({"name": "permuted_mnist", "n_experiences": 0}, "n_experiences: must be between 1"),
        ({"name": "split_mnist", "each": {"haed": "d"}}, "Did you mean 'head'"),
        ({"name": "varied", "of": "permuted_mnist", "option": "seed"}, "of: unknown field 'seed'"),
        ({"name": "varied", "of": {}, "option": "seed"}, "of needs the name of a task"),
        ({"name": "varied"}, "stream 'varied' needs 'of'"),
        ({"n_experiences": 3}, "expected a list, or a name with options"),
        (3, "expected a list, or a name with options"),
        ({"name": ""}, "unknown stream ''"),
        ({"name": "split_mnist", "n_experiences": 10}, "has a single class"),
    ],
)  # fmt: skip
def test_what_names_no_stream_is_one_line_and_status_2(tmp_path, capsys, stream, message):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"stream": stream}))
    with pytest.raises(UserError, match=message):
        make_tasks(load_config(str(path)))
    assert cli.main(["train", str(path), "--out", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("thalnet: ") and not (tmp_path / "out").exists()


@pytest.mark.parametrize("returned", [[], {}, [[]], [{}], [{"a": 3}], None])
def test_a_stream_that_returns_no_experiences_is_refused(returned):
    with registered("stream", {"odd": lambda: returned}), pytest.raises(UserError, match="no list"):
        load_config(stream="odd")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"of": "solar", "classes": [0]}, "expected a task with one class"),
        ({"of": "digits_rows", "classes": [0, 10]}, "some of 0 … 9, each once"),
        ({"of": "digits_rows", "classes": [1, 1]}, "some of 0 … 9, each once"),
        ({"of": "digits_rows", "classes": []}, "some of 0 … 9, each once"),
    ],
)  # fmt: skip
def test_classes_that_a_task_does_not_have_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        make_tasks(load_config(task={"name": "classes_of"} | options))
