"""Options of tasks, bodies, strategies, losses and metrics of a user's own, flat in their entry."""

from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from toy_tasks import toy, toy_rows

from thalnet_mtl import cli, registry
from thalnet_mtl.config.load import (
    check_config,
    dump_config,
    flatten,
    load_config,
    load_configs,
    load_run_config,
)
from thalnet_mtl.config.options import check_options, declared_options, resolve_options
from thalnet_mtl.config.schema import Config, EntryConfig, NamedTaskConfig, TaskConfig
from thalnet_mtl.errors import UserError
from thalnet_mtl.registry import register
from thalnet_mtl.runs.differences import allowed_differences
from thalnet_mtl.strategies.base import Strategy
from thalnet_mtl.strategies.replay import Replay
from thalnet_mtl.sweep.plan import options_without_effect, plan
from thalnet_mtl.training.setup import make_tasks
from thalnet_mtl.training.support import BASIC, unsupported
from thalnet_mtl.training.trainer import train


@pytest.fixture(autouse=True)
def plugins(monkeypatch):
    """Register a task, a loss and a metric with options."""
    for kind in ("task", "loss", "metric", "strategy"):
        monkeypatch.setitem(registry._entries, kind, dict(registry.entries(kind)))

    @register("task", "measured")
    def measured(
        path: Path,
        columns: list[str] = ["x"],  # noqa: B006
        rate: float = 1.0,
        shift: int | None = None,
        split: Literal["time", "group"] = "time",
        shuffle: bool = True,
        anything: Any = "",
    ):
        """Read columns of a table."""
        assert isinstance(path, Path) and isinstance(rate, float)
        return toy_rows()

    @register("loss", "tube")
    def tube(outputs, targets, width: float = 0.1):
        """Zero inside a tube."""

    @register("metric", "top")
    def top(outputs, targets, k: int = 5):
        """Among the k best."""


def task_of(**entry):
    """Return the checked options of a task entry."""
    return load_config(task={"name": "measured", "path": "a.csv", **entry}).task.options


def test_options_stand_flat_beside_the_fields_and_are_written_flat_again(tmp_path):
    text = "tasks: {a: {name: permuted_mnist, permutation: 3, weight: 2}, text8: {}}"
    (tmp_path / "a.yaml").write_text(text)
    config = load_config(tmp_path / "a.yaml")
    assert config.tasks["a"] == NamedTaskConfig(
        "permuted_mnist", options={"permutation": 3}, weight=2.0
    )
    assert yaml.safe_load(dump_config(config))["tasks"]["a"]["permutation"] == 3
    assert flatten(config)["tasks.a.permutation"] == 3
    (tmp_path / "config.yaml").write_text(dump_config(config))
    assert load_config(tmp_path / "config.yaml") == load_run_config(tmp_path) == config
    assert check_config(config) == config


@pytest.mark.parametrize(
    ("flag", "text", "value"),
    [
        ("columns", "[x, y]", ["x", "y"]),
        ("columns", "x,y", ["x", "y"]),
        ("rate", "1e-3", 0.001),
        ("rate", "2", 2.0),
        ("shift", "4", 4),
        ("shift", "null", None),
        ("split", "group", "group"),
        ("shuffle", "false", False),
        ("anything", "{a: [1, b]}", {"a": [1, "b"]}),
    ],
)
def test_a_flag_is_yaml_in_the_type_of_the_argument(tmp_path, flag, text, value):
    (tmp_path / "a.yaml").write_text("task: {name: measured, path: a.csv}")
    by_flag = load_configs([str(tmp_path / "a.yaml")], {f"task.{flag}": text})[""]
    assert by_flag.task.options[flag] == value
    assert type(by_flag.task.options[flag]) is type(value)
    assert by_flag == load_config(tmp_path / "a.yaml", task={flag: value})


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"colums": "x"}, r"^task: unknown field 'colums'.*name, batch.*Did you mean 'columns'"),
        ({"rate": "fast"}, r"^task\.rate: expected a number, got 'fast'"),
        ({"shift": 0.5}, r"^task\.shift: expected a whole number, got 0.5"),
        ({"split": "tme"}, r"^task\.split: unknown value 'tme'.*Did you mean 'time'"),
        ({"shuffle": 3}, r"^task\.shuffle: expected true or false, got 3"),
        ({"columns": [1]}, r"^task\.columns: expected a word, got 1"),
        ({"path": 3}, r"^task\.path: expected a path, got 3"),
        ({"loss": {"name": "tube", "widht": 1}}, r"^task\.loss: unknown field 'widht'.*'width'"),
        ({"metrics": [{"name": "top", "k": "x"}]}, r"^task\.metrics\.k: expected a whole number"),
        ({"metrics": [{"k": 3}]}, r"every entry needs a name"),
        ({"loss": 3}, r"task: loss: expected a name, or a name with options, got 3"),
    ],
)
def test_a_wrong_option_is_one_line_with_what_is_allowed(entry, message):
    with pytest.raises(UserError, match=message) as error:
        task_of(**entry)
    assert "\n" not in str(error.value)


def test_an_option_that_must_be_given_is_named_before_training():
    with pytest.raises(UserError, match=r"^task: task 'measured' needs 'path'. Its options: path,"):
        make_tasks(Config(task=TaskConfig("measured")))
    assert make_tasks(
        Config(task=TaskConfig("measured", options={"path": "a", "rate": 2}))
    ).keys() == {"measured"}


def test_an_argument_with_the_name_of_a_field_is_refused():
    @register("task", "clash")
    def clash(batch: int = 3): ...

    with pytest.raises(UserError, match="task 'clash': its argument 'batch' is also a field"):
        make_tasks(Config(task=TaskConfig("clash")))


def test_options_are_those_of_the_last_name_whatever_the_order_of_flags(tmp_path):
    (tmp_path / "a.yaml").write_text("task: {name: permuted_mnist, permutation: 3}")
    path = str(tmp_path / "a.yaml")
    assert load_configs([path], {"task.name": "digits_rows"})[""].task.options == {}
    flags = {"task.rate": "3", "task.path": "a", "task.name": "measured"}
    assert load_configs([path], flags)[""].task.options == {"rate": 3.0, "path": "a"}
    kept = load_config(path, task={"batch": 3}).task
    assert kept == TaskConfig("permuted_mnist", options={"permutation": 3}, batch=3)
    assert load_config(path, task=TaskConfig("permuted_mnist")).task.options == {}


def test_a_loss_is_a_name_or_a_name_with_options():
    plain = load_config(task={"loss": "tube", "metrics": ["top", {"name": "top", "k": "3"}]}).task
    assert plain.loss == EntryConfig("tube")
    assert plain.metrics == (EntryConfig("top"), EntryConfig("top", {"k": 3}))
    flags = {"task.loss": "{name: tube, width: 2}", "task.metrics": "top,top"}
    config = load_configs([], flags)[""]
    assert config.task.loss == EntryConfig("tube", {"width": 2.0})
    assert config.task.metrics == (EntryConfig("top"), EntryConfig("top"))
    assert load_configs([], {"task.loss": "tube"}) == {"": load_config(task={"loss": "tube"})}
    again = load_configs([], flags | {"task.loss.width": "1e-3"})[""]
    assert again.task.loss == EntryConfig("tube", {"width": 0.001})
    assert yaml.safe_load(dump_config(config))["task"]["loss"] == {"name": "tube", "width": 2.0}


def test_a_run_records_all_options_and_equals_one_that_gives_the_defaults(tmp_path):
    config = resolve_options(Config(task=TaskConfig("permuted_mnist")), complete=True)
    assert config.task.options == {"permutation": 0}
    (tmp_path / "config.yaml").write_text(dump_config(config))
    assert not allowed_differences(tmp_path, Config(task=TaskConfig("permuted_mnist")))
    assert not allowed_differences(
        tmp_path, Config(task=TaskConfig("permuted_mnist", options={"permutation": 0}))
    )
    with pytest.raises(UserError, match=r"task.permutation 1, there 0"):
        allowed_differences(
            tmp_path, Config(task=TaskConfig("permuted_mnist", options={"permutation": 1}))
        )


def test_the_run_folder_of_an_earlier_version_is_read(tmp_path):
    old = {"name": "digits_rows", "permutation": 0, "batch": 0}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"task": old}))
    assert load_run_config(tmp_path).task == TaskConfig("digits_rows")
    assert not allowed_differences(tmp_path, Config(task=TaskConfig("digits_rows")))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"task": old | {"permutation": 5}}))
    with pytest.raises(UserError, match="unknown field 'permutation'"):
        make_tasks(load_run_config(tmp_path))
    (tmp_path / "config.yaml").write_text(
        yaml.safe_dump({"task": old | {"name": "permuted_mnist"}})
    )
    assert not allowed_differences(tmp_path, Config(task=TaskConfig("permuted_mnist")))


def test_a_grid_varies_options():
    base = {"": load_config(task={"name": "permuted_mnist"})}
    runs = plan(base, {"task.permutation": ["1", "2"]}, [0], {})
    assert [run.name for run in runs] == ["permutation=1-seed0", "permutation=2-seed0"]
    assert [run.config.task.options["permutation"] for run in runs] == [1, 2]
    base = {"": load_config(task={"name": "measured", "path": "a.csv"})}
    with pytest.raises(UserError, match=r"each value must be given once, got 0.001,1e-3"):
        plan(base, {"task.rate": ["0.001", "1e-3"]}, [0], {})
    with pytest.raises(UserError, match=r"unknown field 'rat'.*Did you mean 'rate'"):
        plan(base, {"task.rat": ["1", "2"]}, [0], {})
    with pytest.raises(UserError, match=r"task.rate: expected a number, got 'fast'"):
        plan(base, {"task.rate": ["fast"]}, [0], {})


def test_every_way_of_training_takes_the_options_of_a_task():
    config = load_config(task={"name": "permuted_mnist", "permutation": 3})
    assert unsupported(config, BASIC) == ""


def test_the_options_of_a_strategy_come_after_its_context():
    @register("strategy", "pull")
    class Pull:
        def __init__(self, context, force: float = 1.0): ...

    assert check_options("strategy", "pull", {"force": 2}, "strategy") == {"force": 2.0}
    config = load_config(train={"strategy": "pull"}, strategy={"force": 3})
    assert config.strategy.options == {"force": 3.0}
    with pytest.raises(UserError, match=r"^strategy: unknown field 'forc'.*Did you mean 'force'"):
        load_config(train={"strategy": "pull"}, strategy={"forc": 3})


def test_a_strategy_inherits_the_options_of_its_base_unless_it_has_an_init():
    @register("strategy", "mine")
    class Mine(Replay): ...

    @register("strategy", "bare")
    class Bare(Strategy): ...

    assert declared_options("strategy", "mine") == {"memory", "choice"}
    assert declared_options("strategy", "bare") == declared_options("strategy", "naive") == set()
    assert load_config(train={"strategy": "mine"}, strategy={"memory": "7"}).strategy.options == {
        "memory": 7
    }


@pytest.mark.parametrize(
    ("strategy", "options", "message"),
    [
        ("ewc", {"memory": 7},
         r"unknown field 'memory'. Allowed: strength. It is an option of replay, agem, gem, aval"),
        ("ewc", {"strenth": 7}, r"unknown field 'strenth'.*Did you mean 'strength'"),
        ("naive", {"decay": 1}, r"strategy 'naive' has no option 'decay'. It is .* of online_ewc"),
        ("naive", {"decoy": 1}, r"strategy 'naive' has no option 'decoy'\.$"),
        ("online_ewc", {"decay": 1.5}, r"strategy.decay: must be between 0.0 and 1.0, got 1.5"),
        ("si", {"strength": -1}, r"strategy.strength: must be at least 0.0, got -1.0"),
        ("replay", {"memory": "0"}, r"strategy.memory: must be at least 1, got 0"),
        ("replay", {"memory": 2.5}, r"strategy.memory: expected a whole number, got 2.5"),
        ("gem", {"choice": "perclass"}, r"strategy.choice: unknown value.*mean 'per_class'"),
        ("avalanche:lwf", {"memory": 9}, r"unknown field 'memory'. Allowed: strength. It is"),
        ("avalanche:online_ewc", {"decay": 9}, r"strategy.decay: must be between 0.0 and 1.0"),
    ],
)  # fmt: skip
def test_an_option_that_the_strategy_does_not_have_is_refused(strategy, options, message):
    with pytest.raises(UserError, match=f"^(strategy: )?{message}") as error:
        load_config(train={"strategy": strategy}, strategy=options)
    assert "\n" not in str(error.value)


def test_with_another_strategy_the_options_of_the_earlier_one_are_dropped(tmp_path):
    (tmp_path / "a.yaml").write_text(
        "{train: {strategy: replay}, strategy: {memory: 9, choice: per_class}}"
    )
    path = str(tmp_path / "a.yaml")
    options = {
        strategy: load_configs([path], {"train.strategy": strategy})[""].strategy.options
        for strategy in ("naive", "ewc", "gem", "avalanche:gem")
    }
    kept = {"memory": 9, "choice": "per_class"}
    assert options == {"naive": {}, "ewc": {}, "gem": kept, "avalanche:gem": {"memory": 9}}
    flags = {"strategy.strength": "3", "train.strategy": "si"}
    assert load_configs([path], flags)[""].strategy.options == {"strength": 3.0}
    # What was given for no strategy yet is not dropped: it is refused if it fits none.
    (tmp_path / "b.yaml").write_text("strategy: {memory: 9}")
    later = load_configs([str(tmp_path / "b.yaml")], {"train.strategy": "replay"})[""]
    assert later.strategy.options == {"memory": 9}
    with pytest.raises(UserError, match="unknown field 'memory'"):
        load_configs([str(tmp_path / "b.yaml")], {"train.strategy": "ewc"})
    with pytest.raises(UserError, match="unknown field 'memory'"):
        load_configs([path], {"strategy.memory": "60", "train.strategy": "ewc"})


def test_the_strategy_of_an_earlier_run_has_those_fields_that_it_reads(tmp_path):
    old = {"strength": 2.0, "memory": 7, "choice": "per_class", "decay": 0.5}
    for strategy, options in (
        ("naive", {}),
        ("ewc", {"strength": 2.0}),
        ("online_ewc", {"strength": 2.0, "decay": 0.5}),
        ("gem", {"memory": 7, "choice": "per_class"}),
    ):
        tree = {"task": {"name": "digits_rows"}, "train": {"strategy": strategy}, "strategy": old}
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(tree))
        assert load_run_config(tmp_path).strategy.options == options
        allowed_differences(tmp_path, load_config(tree | {"strategy": options}))


def test_a_grid_of_strategies_shares_the_options_that_they_have():
    flags = {"strategy.strength": "3", "strategy.memory": "9"}
    grid = {"train.strategy": ["naive", "ewc", "si", "gem"]}
    base = load_configs([], flags, swept=grid)
    runs = plan(base, grid, [0], flags)
    assert [run.config.strategy.options for run in runs] == [
        {}, {"strength": 3.0}, {"strength": 3.0}, {"memory": 9}
    ]  # fmt: skip
    assert options_without_effect(base, runs) == [
        "strategy.strength has no effect where train.strategy is naive, gem",
        "strategy.memory has no effect where train.strategy is naive, ewc, si",
    ]
    grid = {"train.strategy": ["ewc", "si"]}
    with pytest.raises(UserError, match=r"strategy\.memory: no strategy of the grid has it"):
        options_without_effect(base, plan(base, grid, [0], flags))
    with pytest.raises(UserError, match="unknown field 'memry'"):
        plan(load_configs([], {"strategy.memry": "9"}, swept=grid), grid, [0], {})
    both = grid | {"strategy.strength": ["1", "10"]}
    runs = plan(load_configs([], {}, swept=both), both, [0], {})
    assert [run.config.strategy.options["strength"] for run in runs] == [1.0, 10.0] * 2
    with pytest.raises(UserError, match="strategy 'naive' has no option 'strength'"):
        plan({"": Config()}, both | {"train.strategy": ["ewc", "naive"]}, [0], {})


def test_a_strategy_is_built_with_its_options(tmp_path):
    built = []

    @register("strategy", "pull")
    class Pull(Strategy):
        def __init__(self, context, force: float = 1.0, places: list[str] = ["head"]):  # noqa: B006
            super().__init__(context)
            built.append((force, places))

    config = toy(train={"steps": 2, "strategy": "pull"}, strategy={"force": "3"})
    train(config, tmp_path / "run")
    assert built == [(3.0, ["head"])]
    recorded = load_run_config(tmp_path / "run").strategy
    assert recorded.options == {"force": 3.0, "places": ["head"]}
    assert train(config, tmp_path / "run").steps == 2
    with pytest.raises(UserError, match=r"strategy.force 4.0, there 3.0"):
        train(toy(train={"steps": 2, "strategy": "pull"}, strategy={"force": 4}), tmp_path / "run")


def test_the_list_of_tasks_shows_options_with_their_defaults(capsys):
    assert cli.main(["list", "tasks"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "options: path, columns=[x], rate=1.0, shift=null" in text
    assert cli.main(["list", "losses"]) == 0
    assert "width=0.1" in capsys.readouterr().out


def test_an_infinite_default_is_read_back_from_a_run(tmp_path):
    @register("task", "bounded")
    def bounded(limit: float = float("inf")):
        return toy_rows()

    config = resolve_options(load_config(task={"name": "bounded"}), complete=True)
    assert "limit: .inf" in dump_config(config)
    (tmp_path / "config.yaml").write_text(dump_config(config))
    assert not allowed_differences(tmp_path, config)
    assert resolve_options(load_run_config(tmp_path), complete=True) == config
    with pytest.raises(UserError, match=r"task\.limit: expected a number, got -inf"):
        load_config(task={"name": "bounded", "limit": float("-inf")})


@pytest.mark.parametrize(
    ("when", "kept"), [("never", {}), ("on_plateau", {"patience": 4}), ("search", {"price": 0.5})]
)
def test_growth_of_an_earlier_run_has_those_fields_that_its_rule_reads(tmp_path, when, kept):
    growth = {"when": when, "policy": "frozen", "modules": {}, "patience": 4, "price": 0.5}
    recorded = {"model": {}, "changes": [], "growth": growth, "train": {}, "evaluate": {}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(recorded))
    assert load_run_config(tmp_path).growth.options == kept
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"growth": growth}))
    with pytest.raises(UserError, match=r"growth: .*unknown field '(patience|price)'"):
        load_config(tmp_path / "config.yaml")
