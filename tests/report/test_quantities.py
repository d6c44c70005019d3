"""Columns of tables of runs that are computed here, against numbers worked by hand."""

import json

import pytest
from table_fixtures import single_record, stream_record, task_entry, write_record

from thalnet_mtl.errors import UserError
from thalnet_mtl.report.make_table import table
from thalnet_mtl.report.quantities import find_quantity
from thalnet_mtl.report.relative import References
from thalnet_mtl.runs.summaries import read_summaries

CURVES = {
    "a": {"validation_step": [3, 10, 13, 20], "validation_accuracy": [0.5, 0.9, 0.4, 0.6]},
    "b": {"validation_step": [3, 10, 13, 20], "validation_accuracy": [0.9, 0.9, 0.3, 0.8]},
}


@pytest.fixture
def run(tmp_path):
    """Two experiences of ten steps; a is at 0.9, then 0.6, b at 0.8."""
    path = stream_record(tmp_path / "r-seed0.json", 0, [[0.1, 0.2], [0.9, 0.2], [0.6, 0.8]])
    content = json.loads(path.read_text()) | {"curves": CURVES}
    content["config"]["tasks"]["b"]["name"] = "other"
    path.write_text(json.dumps(content))
    return read_summaries([path])[0][0]


def value(run, name, *, single=(), joint=()):
    return find_quantity(name, [run], References(single, joint)).value(run)[0]


def singles(folder, a, b):
    """Single-task runs whose validation scores are 0.01 above those on test."""
    paths = [single_record(folder / f"{kind}.json", 0, score, kind)
             for kind, score in (("toy", a), ("other", b))]  # fmt: skip
    return read_summaries(paths)[0]


def test_min_acc_is_the_worst_score_of_an_old_task_since_it_was_learned(run):
    assert value(run, "min-ACC") == 0.4  # of a, in the second experience


def test_steps_count_from_the_start_of_a_task_and_all_where_it_never_gets_there(run, tmp_path):
    # 0.9 · 1.0 is reached by a after 10 steps; b was that good only before its experience.
    alone = singles(tmp_path / "high", 0.99, 0.99)
    assert value(run, "steps_to_90", single=alone) == 10
    assert value(run, "a.steps_to_90", single=alone) == 10
    alone = singles(tmp_path / "low", 0.5, 0.3)
    assert value(run, "steps_to_90", single=alone) == 3  # 0.459 at step 3, 0.279 at step 13 − 10


def test_skill_and_gain_are_relative_to_single_task_runs(run, tmp_path):
    alone = singles(tmp_path / "x", 0.6, 0.5)
    assert value(run, "gain", single=alone) == pytest.approx((0 + 0.6) / 2)
    # Guessing one of ten equal classes scores 0.1.
    assert value(run, "skill", single=alone) == pytest.approx((1 + 0.7 / 0.4) / 2)
    references = References(alone[:1])
    assert find_quantity("gain", [run], references).value(run)[0] is None
    assert references.missing == {"single-task run on b": {0}}


def test_single_task_runs_of_other_data_or_another_seed_do_not_count(run, tmp_path):
    other = single_record(tmp_path / "x" / "a.json", 1, 0.6, "toy")
    unlike = write_record(tmp_path / "x" / "b.json",
                          {"task": {"name": "toy", "size": 3}, "train": {"seed": 0}},
                          {"toy": task_entry(0.6)})  # fmt: skip
    alone, _ = read_summaries([other, unlike])
    assert value(run, "a.gain", single=alone) is None


def test_two_reference_runs_of_one_seed_are_refused(run, tmp_path):
    twice = [*singles(tmp_path / "x", 0.6, 0.5), *singles(tmp_path / "y", 0.7, 0.5)]
    with pytest.raises(UserError, match=r"more than one single-task run on a with seed 0: .*x/toy"):
        value(run, "gain", single=twice)


def test_costs_are_those_of_the_last_stage(run):
    assert (value(run, "multiply_adds"), value(run, "stored")) == (2e6, 2_000)
    assert (value(run, "parameters"), value(run, "parameters.frozen")) == (100, 10)
    assert "2.00" in table(run.path, columns=["multiply_adds"]).text()


def test_gap_is_train_minus_test_and_smaller_is_better(run):
    gap, metric = find_quantity("a.gap", [run], References()).value(run)
    assert gap == pytest.approx(0.05) and not metric.higher_is_better


def test_a_task_whose_name_has_a_dot_or_that_of_a_split_is_found(tmp_path):
    config = {"tasks": {"a.b": {"name": "toy"}, "test": {"name": "toy"}}, "train": {"seed": 0}}
    tasks = {"a.b": task_entry(0.5), "test": task_entry(0.7)}
    path = write_record(tmp_path / "r.json", config, tasks)
    (run,), _ = read_summaries([path])
    assert value(run, "a.b.test.accuracy") == 0.5 and value(run, "test.test") == 0.7
    assert value(run, "test") == pytest.approx(0.6)


def test_measures_of_tasks_in_other_units_are_normalized_and_say_so(tmp_path):
    config = {"tasks": {n: {"name": "toy"} for n in "ab"}, "train": {"seed": 0},
              "stream": [{"tasks": ["a"]}, {"tasks": ["b"]}]}  # fmt: skip
    path = stream_record(tmp_path / "r.json", 0, [[0.1, 0.2], [0.9, 0.2], [0.6, 0.8]])
    content = json.loads(path.read_text())
    tasks = {"a": task_entry(0.6), "b": task_entry(2.0, "bits_per_character")}
    continual = content["result"]["continual"]
    why = "the tasks differ in their metric, so this is a mean of normalized scores: 0 for "
    why += "guessing, 1 for a perfect answer"
    continual["measures"]["average_accuracy"] = {"mean": 0.4, "values": {}, "why": why}
    continual["measures"]["forgetting"] = {"mean": 0.25, "values": {"b": 0.25}}
    write_record(path, config, tasks, continual=continual)
    text = table(path, columns=["ACC", "forgetting"]).text()
    assert "ACC, normalized" in text and "forgetting, bits" in text  # of b, the only old task
