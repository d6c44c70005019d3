from dataclasses import fields, is_dataclass

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from thalnet_mtl.config.files import config_names
from thalnet_mtl.config.load import (
    check_config,
    dump_config,
    load_config,
    load_configs,
    load_run_config,
)
from thalnet_mtl.config.options import field_names
from thalnet_mtl.config.overlay import overlay
from thalnet_mtl.config.schema import (
    ChangeConfig,
    Config,
    ExperienceConfig,
    GrowthConfig,
    ModelConfig,
    ModuleConfig,
    NamedTaskConfig,
    TaskConfig,
)
from thalnet_mtl.config.training import TrainConfig
from thalnet_mtl.errors import UserError

SECTIONS = [section.name for section in fields(Config) if is_dataclass(section.type)]


def test_every_named_config_loads_and_has_a_line_on_what_it_is():
    for name, text in config_names().items():
        assert len(text) > 10, name
        assert load_configs([name])


def test_configs_flags_and_overlays_win_in_their_order(tmp_path):
    (tmp_path / "a.yaml").write_text("train: {batch: 1, seed: 1, clip: 1}")
    (tmp_path / "b.yaml").write_text("train: {batch: 2, seed: 2}")
    paths = [str(tmp_path / "a.yaml"), str(tmp_path / "b.yaml")]
    train = load_configs(paths, {"train.batch": "3"})[""].train
    assert (train.batch, train.seed, train.clip) == (3, 2, 1.0)


def test_one_file_may_describe_several_runs(tmp_path):
    path = tmp_path / "two.yaml"
    path.write_text("train: {batch: 9}\nruns: {a: {model: {body: gru}}, b: {train: {batch: 8}}}")
    runs = load_configs([str(path)], {"train.seed": "5"})
    assert {name: (c.model.body, c.train.batch, c.train.seed) for name, c in runs.items()} == {
        "a": ("gru", 9, 5),
        "b": ("thalnet", 8, 5),
    }


def test_later_files_win_over_runs_too_and_cannot_add_more(tmp_path):
    (tmp_path / "two.yaml").write_text("runs: {a: {model: {body: gru}}, b: {}}")
    (tmp_path / "mlp.yaml").write_text("model: {body: mlp}")
    two, mlp = str(tmp_path / "two.yaml"), str(tmp_path / "mlp.yaml")
    assert {c.model.body for c in load_configs([two, mlp]).values()} == {"mlp"}
    assert [c.model.body for c in load_configs([mlp, two]).values()] == ["gru", "mlp"]
    with pytest.raises(UserError, match="an earlier file already has 'runs'"):
        load_configs([two, two])
    (tmp_path / "config.yaml").write_text("runs: {a: {}, b: {}}")
    with pytest.raises(UserError, match="describes several runs, not one"):
        load_run_config(tmp_path)


def test_a_dumped_configuration_loads_to_the_same(tmp_path):
    config = load_configs(["paper/text8_thalnet"], {"train.learning_rate": "1e-30"})[""]
    (tmp_path / "config.yaml").write_text(dump_config(config))
    assert load_configs([str(tmp_path / "config.yaml")]) == {"": config}


def test_entries_of_which_nothing_is_said_are_as_by_default(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("tasks:\n  text8:\n  mine: {name: enwik8}\nmodules:\n  trunk:\n")
    config = load_configs([str(path)], {"tasks.text8.weight": "2"})[""]
    assert config.tasks == {
        "text8": NamedTaskConfig("text8", weight=2.0),
        "mine": NamedTaskConfig("enwik8"),
    }
    assert config.modules == {"trunk": ModuleConfig()}
    assert config.named_tasks == config.tasks
    assert Config().named_tasks == {"permuted_mnist": NamedTaskConfig("permuted_mnist")}


def test_there_are_fewer_than_forty_fields_each_with_a_line_of_help():
    leaves = [leaf for section in SECTIONS for leaf in fields(getattr(Config(), section))]
    assert all(leaf.metadata["help"] for leaf in leaves)
    # What describes tasks or a stream is data of an experiment, as modules and changes are.
    flags = ("model", "train", "evaluate")
    assert sum(len(field_names(getattr(Config(), section))) for section in flags) < 40


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"train.bach": "1"}, r"--train.bach: unknown field 'bach'.*Did you mean 'batch'"),
        ({"trian.batch": "1"}, r"unknown field 'trian'.*Did you mean 'train'"),
        ({"train.batch": "many"}, r"--train.batch: expected a whole number, got 'many'"),
        ({"train.batch": "1.5"}, r"expected a whole number, got 1.5"),
        ({"train.batch": "0"}, r"must be at least 1, got 0"),
        ({"train.batch": "1" + 400 * "0"}, r"must be|expected a whole number"),
        ({"train.learning_rate": "nan"}, r"expected a number, got 'nan'"),
        ({"train.learning_rate": "-1"}, r"must be at least 0.0, got -1.0"),
        ({"train.schedule": "cosin"}, r"unknown value 'cosin'.*Did you mean 'cosine'"),
        ({"task.permutation": "1"}, r"^task: unknown field 'permutation'.*Allowed: name, batch"),
    ],
)
def test_a_wrong_flag_is_one_line_with_what_is_allowed(flags, message):
    with pytest.raises(UserError, match=message) as error:
        load_configs(["digits"], flags)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "trian: {}",
            r"'trian'.*Allowed: model, task, tasks, modules, changes, stream, growth",
        ),
        ("train: {batch: true}", "expected a whole number, got True"),
        ("train: {batch: .inf}", "expected a whole number, got inf"),
        ("runs: {../x: {}}", "'../x' cannot be the name of a run"),
        ("train: 3", "train: expected a section of fields, got 3"),
        ("train: {batch: [1]}", r"expected a whole number, got \[1\]"),
        ("task: {name: 3}", "expected a word, got 3"),
        ("a: [", "is not valid YAML"),
        ("just words", "holds no sections"),
        ("runs: 3", "'runs' must map names of runs to overlays"),
        ("runs: {a: {model: {bdy: gru}}}", "run 'a': model: unknown field 'bdy'"),
    ],
)
def test_a_wrong_file_is_one_line_with_its_name(tmp_path, text, message):
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as error:
        load_configs([str(path)])
    assert "\n" not in str(error.value)


def test_an_unknown_config_names_the_closest():
    with pytest.raises(UserError, match=r"unknown config 'digit'.*Did you mean 'digits'"):
        load_configs(["digit"])
    with pytest.raises(UserError, match=r"no config file 'nowhere/x.yaml'"):
        load_configs(["nowhere/x.yaml"])


@given(st.data())
def test_yaml_and_flags_give_the_same_configuration(data):
    with_fields = [name for name in SECTIONS if field_names(getattr(Config(), name))]
    section = data.draw(st.sampled_from(with_fields))
    leaves = [leaf for leaf in fields(getattr(Config(), section)) if leaf.type in (int, float, str)]
    leaf = data.draw(st.sampled_from(leaves))
    low, high = (leaf.metadata[bound] for bound in ("low", "high"))
    values = {
        int: st.integers(max(1, low), min(9, high)),
        float: st.floats(max(0, low), min(1, high)),
        str: st.text("abc", min_size=1),
    }
    value = data.draw(values[leaf.type])
    if leaf.metadata["choices"]:
        value = data.draw(st.sampled_from(list(leaf.metadata["choices"])))
    from_yaml = overlay(
        Config(), yaml.safe_load(yaml.safe_dump({section: {leaf.name: value}})), "x"
    )
    assert from_yaml == load_configs([], {f"{section}.{leaf.name}": str(value)})[""]
    assert not is_dataclass(getattr(getattr(from_yaml, section), leaf.name))


def test_one_configuration_comes_from_names_paths_mappings_and_keywords(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("train: {batch: 7, seed: 7, clip: 7}")
    config = load_config("digits", path, {"train.seed": "8", "train": {"clip": 8}}, model={})
    assert (config.task.name, config.train.batch) == ("digits_rows", 7)
    assert (config.train.seed, config.train.clip) == (8, 8.0)
    assert load_config() == Config()
    assert load_config("digits", train={"seed": 3}) == load_config("digits", {"train.seed": 3})
    assert load_config({"tasks": {"text8": {}}}, {"tasks.text8.weight": 2}).tasks == {
        "text8": NamedTaskConfig("text8", weight=2.0)
    }


def test_a_dataclass_replaces_its_section():
    config = load_config("digits", train=TrainConfig(steps=5))
    assert config.train == TrainConfig(steps=5) and config.task.name == "digits_rows"


def test_several_runs_are_not_one_configuration():
    with pytest.raises(UserError, match=r"quickstart describes several runs \(thalnet, gru\)"):
        load_config("quickstart")
    assert list(load_configs(["quickstart"])) == ["thalnet", "gru"]


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"trian": {}}, r"config: unknown field 'trian'.*Did you mean 'train'"),
        ({"train": {"bach": 1}}, r"config: train: unknown field 'bach'.*Did you mean 'batch'"),
        ({"train": 3}, "config: train: expected a section of fields, got 3"),
        ({"train": TrainConfig(batch=0)}, "config: train: batch: must be at least 1, got 0"),
    ],
)
def test_a_wrong_keyword_is_one_line_with_what_is_allowed(sections, message):
    with pytest.raises(UserError, match=message) as error:
        load_config("digits", **sections)
    assert "\n" not in str(error.value)


def test_a_config_made_in_python_is_the_one_that_a_file_gives():
    made = Config(
        task=TaskConfig("digits_rows"),
        modules={"input": ModuleConfig(input=True, output=True), "side": ModuleConfig()},
        changes=[ChangeConfig(3, "attach", "extra", read_by=["input"])],
        train=TrainConfig(steps=100, clip=1),
    )
    read = load_config(
        task={"name": "digits_rows"},
        modules={"input": {"input": True, "output": True}, "side": {}},
        changes=[{"step": 3, "verb": "attach", "name": "extra", "read_by": ["input"]}],
        train={"steps": 100, "clip": 1.0},
    )
    checked = check_config(made)
    assert checked == read and isinstance(checked.train.clip, float)
    assert check_config(read) == read


def test_a_named_task_is_by_default_the_task_of_its_name():
    config = Config(tasks={"text8": NamedTaskConfig(weight=2.0), "b": NamedTaskConfig("enwik8")})
    assert [task.name for task in config.named_tasks.values()] == ["text8", "enwik8"]
    assert check_config(Config(tasks={"text8": TaskConfig("text8")})).tasks == {
        "text8": NamedTaskConfig("text8")
    }


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (Config(train=TrainConfig(batch="many")), "train: batch: expected a whole number"),
        (Config(train=TrainConfig(steps=1.5)), "train: steps: expected a whole number, got 1.5"),
        (Config(train=TrainConfig(schedule="cos")), "schedule: unknown value 'cos'"),
        (Config(task="digits_rows"), "task: expected a section of fields, got 'digits_rows'"),
        (Config(train=TrainConfig), "train: expected a section of fields"),
        (Config(tasks=["text8"]), r"tasks: expected entries by name, got \['text8'\]"),
        (Config(tasks={"a": "text8"}), "tasks: a: expected a section of fields, got 'text8'"),
        (Config(changes=(ChangeConfig(3, "attach"),)), "every change needs a step"),
        (Config(stream=(ExperienceConfig(),)), "every experience needs tasks"),
        (Config(growth=GrowthConfig(modules={"a": ModelConfig()})), "unknown field 'body'"),
        (Config(train=ModelConfig()), "train: unknown field 'body'"),
    ],
)
def test_a_wrong_value_in_a_config_made_in_python_is_one_line(config, message):
    with pytest.raises(UserError, match=message) as error:
        check_config(config)
    assert str(error.value).startswith("config: ") and "\n" not in str(error.value)
