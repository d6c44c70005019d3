"""Plans hold every combination once, under names that say what differs."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thalnet_mtl.config.load import dump_config, load_configs
from thalnet_mtl.config.schema import Config
from thalnet_mtl.errors import UserError
from thalnet_mtl.sweep import plan as grid


def names(bases: dict[str, Config], *words: str, seeds: tuple[int, ...] = (0, 1)) -> list[str]:
    return [planned.name for planned in grid.plan(bases, grid.parse(words), seeds, {})]


def test_names_say_what_differs_in_the_order_of_the_grid():
    assert names({"": Config()}, "train.learning_rate=1e-3,0.003", "model.modules=4,2") == [
        f"learning_rate={rate},modules={modules}-seed{seed}"
        for rate in ("0.001", "0.003")
        for modules in (4, 2)
        for seed in (0, 1)
    ]
    assert names({"a": Config(), "b": Config()}, "train.batch=8", "evaluate.batch=8", seeds=()) == [
        "a-train.batch=8,evaluate.batch=8-seed0",
        "b-train.batch=8,evaluate.batch=8-seed0",
    ]
    assert names({"": Config()}) == ["seed0", "seed1"]


def test_every_run_has_its_values_and_its_seed():
    flags = {"train.clip": "2"}
    plan = grid.plan(load_configs([], flags), grid.parse(["model.body=gru,lstm"]), [3, 4], flags)
    configs = [(planned.config.model.body, planned.config.train.seed) for planned in plan]
    assert configs == [("gru", 3), ("gru", 4), ("lstm", 3), ("lstm", 4)]
    for planned in plan:
        assert planned.config.train.clip == 2 and planned.seed == planned.config.train.seed
        assert planned.values == {"model.body": planned.config.model.body}


@settings(deadline=None)
@given(
    rates=st.lists(st.floats(0, 1e6), min_size=1, max_size=3),
    modules=st.lists(st.integers(1, 50), min_size=1, max_size=3),
    designs=st.lists(st.text("abc_/ ,é=", min_size=1, max_size=4), min_size=1, max_size=3),
    seeds=st.lists(st.integers(0, 9), max_size=3),
)
def test_names_are_distinct_as_the_configurations_are_or_there_is_no_plan(
    rates, modules, designs, seeds
):
    values = {"train.learning_rate": rates, "model.modules": modules, "model.module": designs}
    words = {key: [str(value) for value in some] for key, some in values.items()}
    try:
        plan = grid.plan({"": Config()}, words, seeds, {})
    except UserError as error:
        clean = [re.sub(r"[^\w.=+,-]+", "_", word) for word in designs]
        values_given = [rates, modules, clean, seeds]
        assert any(len(set(some)) < len(some) for some in values_given), error
        return
    configs = {planned.name: dump_config(planned.config) for planned in plan}
    assert len(configs) == len(set(configs.values())) == len(plan)
    assert len(plan) == len(rates) * len(modules) * len(designs) * max(1, len(seeds))
    assert all(re.fullmatch(r"\w[\w.=+,-]*", name) for name in configs)


def test_a_grid_over_rules_of_growth_takes_options_of_the_first_one():
    base = load_configs(["continual/search"])
    runs = grid.plan(base, {"growth.patience": ["1", "2"], "growth.when": ["on_plateau"]}, [0], {})
    assert [run.config.growth.options for run in runs] == [{"patience": 1}, {"patience": 2}]
    with pytest.raises(UserError, match=r"unknown field 'patience'.*an option of on_plateau"):
        grid.plan(
            base, {"growth.when": ["per_task", "on_plateau"], "growth.patience": ["1"]}, [0], {}
        )
