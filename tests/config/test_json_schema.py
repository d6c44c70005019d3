"""The JSON schema of configurations takes what the command line takes, and refuses what it can."""

import jsonschema
import pytest
import toy_tasks  # noqa: F401  # registers the tasks that the wrong configurations name
from wrong_configs import FILES, STRUCTURES

from thalnet_mtl.config.files import config_names, config_path
from thalnet_mtl.config.json_schema import config_schema
from thalnet_mtl.config.load import load_config
from thalnet_mtl.config.origins import annotated_yaml, trace
from thalnet_mtl.config.yaml_text import parse_yaml
from thalnet_mtl.errors import UserError
from thalnet_mtl.registry import registered

# What other parts of the configuration, or the network, must tell.
BEYOND = [
    "an earlier file already has 'runs'", "'b'", "output", "input", "unknown task 'c'",
    "only a ThalNet", "'nobody'", "only 9 steps", "'b'", "train.patience and changes: ",
    "train.epoch_of: unknown task 'c'", "only a text carries a state to reset",
    "every task is only scored", "unknown task 'c'", "share head",
    "both 'task' and 'tasks' are given", "500", "give at least one input module",
    "loss", "2", "options without a name",
]  # fmt: skip

OVERLAY = "valid where other files are below it"


@pytest.fixture(scope="module")
def schema():
    content = config_schema()
    jsonschema.Draft7Validator.check_schema(content)
    return jsonschema.Draft7Validator(content)


def test_every_named_configuration_is_valid(schema):
    for name in config_names():
        schema.validate(parse_yaml(config_path(name).read_text(), name))


@pytest.mark.parametrize("name", ["quickstart", "joint/four_targets", "continual/split_mnist",
                                  "continual/paths", "search/switching_4"])  # fmt: skip
def test_what_is_shown_is_valid(schema, name):
    runs = trace([name], {})
    schema.validate(parse_yaml(annotated_yaml(runs, only_set=True), name))
    complete = {run: traced.complete() for run, traced in runs.items()}
    schema.validate(parse_yaml(annotated_yaml(complete), name))


def test_every_wrong_configuration_is_invalid_but_for_those_beyond_a_schema(schema):
    missed = []
    for mistake in (*FILES, *STRUCTURES):
        text = mistake.files.get("a.yaml")
        try:
            tree = parse_yaml(text.decode() if isinstance(text, bytes) else text, "a.yaml")
        except (UserError, UnicodeDecodeError):
            continue  # no YAML
        missed += [mistake.fragment] * schema.is_valid(tree)
    assert missed == BEYOND


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("task: {name: csv, path: a.csv, inputs: [x], outputs: [y]}", True),
        ("task: {name: csv, path: a.csv, inputs: x, outputs: 'y, z', window: 24}", True),
        ("task: {name: csv, path: {train: a.csv, test: b.csv}, inputs: x, outputs: y}", True),
        ("task: {name: csv, path: a.csv, inputs: [x]}", False),
        ("task: {name: csv, path: a.csv, inputs: [x], outputs: [y], windo: 24}", False),
        ("task: {name: csv, path: a.csv, inputs: [x], outputs: [y], target: klass}", False),
        ("task: {name: digits_rows, permutation: 3}", False),
        ("task: {permutation: 3}", OVERLAY),
        ("task: {permutations: 3}", False),
        ("task: {loss: huber, metrics: 'mae, rmse'}", True),
        ("task: {loss: {name: huber, delta: 2}, metrics: [mae, {name: rmse}]}", True),
        ("task: {loss: {name: mse, delta: 2}}", False),
        ("task: {metrics: [{name: top_k_accuracy, k: 3}]}", True),
        ("task: {metrics: [{name: top_k_accuracy, n: 3}]}", False),
        ("tasks: {text8: , b: {name: enwik8, weight: 2}}", True),
        ("tasks: {b: {name: enwik8, wait: 2}}", False),
        ("train: {strategy: ewc}\nstrategy: {strength: 3}", True),
        ("train: {strategy: ewc}\nstrategy: {memory: 3}", False),
        ("train: {strategy: ewc}\nstrategy: {strength: -3}", False),
        ("strategy: {memory: 3}", OVERLAY),
        ("strategy: {memories: 3}", False),
        ("runs: {a: {train: {strategy: si}, strategy: {interval: 5}}}", OVERLAY),
        ("runs: {a: {train: {strategy: si}, strategy: {memory: 5}}}", False),
        ("growth: {when: search, every: 9}", True),
        ("growth: {when: per_task, every: 9}", False),
        ("stream: split_mnist", True),
        ("stream: {name: split_mnist, n_experiences: 2, each: {head: all}}", True),
        ("stream: {name: split_mnist, first: 2}", False),
        ("stream: split_mnits", False),
        ("stream: [{tasks: a}, {tasks: [a, b], steps: 10}]", True),
        ("changes: [{step: 3, verb: clone, name: a, source: b}]", True),
        ("changes: [{step: 3, verb: freeze, name: a, source: b}]", False),
        ("plugins: mine.py", OVERLAY),
        ("trackers: [tensorboard, {name: wandb, project: mine, mode: offline}]", True),
        ("trackers: []", True),
        ("trackers: [{name: wandb, mode: ofline}]", False),
        ("trackers: [{name: csv, project: mine}]", False),
        ("model: {budget: 50_000, features: 1e3}", True),
        ("model: {budget: fifty}", False),
        ("train: {learning_rate: 1e-3, optimizer: adamw, schedule: cosine}", True),
        ("train: {optimizer: adma}", False),
    ],
)
def test_options_belong_to_what_is_named(schema, text, right):
    tree = parse_yaml(text, "a.yaml")
    assert schema.is_valid(tree) == bool(right)
    if right is True:
        load_config(tree)


def test_entries_of_plugins_are_part_of_the_schema():
    def mine(context, *, power: float = 2.0):
        """Nothing."""

    with registered("strategy", {"mine": mine}):
        schema = jsonschema.Draft7Validator(config_schema())
        assert schema.is_valid({"train": {"strategy": "mine"}, "strategy": {"power": 3}})
        assert not schema.is_valid({"train": {"strategy": "mine"}, "strategy": {"powre": 3}})


def test_every_field_and_option_has_a_description():
    def bare(schema, path=()):
        for key, value in schema.get("properties", {}).items():
            if not (value.get("description") or "if" in path or "const" in value):
                yield (*path, key)
            yield from bare(value, (*path, key))
        for key in ("definitions",):
            for name, value in schema.get(key, {}).items():
                yield from bare(value, (*path, name))
        for key in ("then", "additionalProperties"):
            if isinstance(schema.get(key), dict):
                yield from bare(schema[key], (*path, key))
        for key in ("anyOf", "allOf"):
            for value in schema.get(key, []):
                yield from bare(value, (*path, key))

    plain = [path for path in bare(config_schema()) if path[-2:] != ("then", "strategy")]
    assert plain == []
