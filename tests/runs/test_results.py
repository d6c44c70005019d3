"""``result.json`` has one schema, for those who write it and those who read it."""

import json

import numpy as np
import pytest
from run_fixtures import make_run
from toy_tasks import toy

from thalnet_mtl.errors import UserError
from thalnet_mtl.runs.records import read_run
from thalnet_mtl.runs.results import RunResult
from thalnet_mtl.training.trainer import train

STREAM = {
    "tasks": {"a": {"name": "toy_rows"}, "b": {"name": "toy_rows"}},
    "stream": [{"tasks": ["a"], "steps": 20}, {"tasks": ["b"], "steps": 20}],
}


@pytest.fixture(scope="module")
def stream(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "stream"
    train(toy(**STREAM), folder)
    return folder


def test_what_training_writes_is_read_and_written_alike(stream, tmp_path):
    train(toy(), tmp_path / "single")
    for folder in (stream, tmp_path / "single"):
        text = (folder / "result.json").read_text()
        content = RunResult.load(folder).to_json()
        assert json.dumps(content, indent=2) + "\n" == text


def test_scores_are_attributes(tmp_path):
    result = RunResult.load(make_run(tmp_path / "a"))
    task = result.tasks["digits_rows"]
    scores = (task.train, task.validation, task.test, task.untrained)
    assert scores == (0.91234, 0.87654, 0.85432, 0.1)
    assert (task.scores["test"].loss, task.scores["test"].count) == (1.0, 100)
    assert (task.best_validation.step, task.best_validation.value) == (20, 0.88)
    assert result.parameters.total == 12345 and result.continual is None


def test_keys_of_later_versions_are_ignored_and_those_of_earlier_ones_may_be_absent(tmp_path):
    run = make_run(tmp_path / "a")
    content = json.loads((run / "result.json").read_text())
    expected = RunResult.load(run)
    content |= {"new": 1, "parameters": content["parameters"] | {"new": 1}}
    assert RunResult.from_json(content, "result.json") == expected
    del content["tasks"]["digits_rows"]["classes"]
    assert RunResult.from_json(content, "result.json").tasks["digits_rows"].classes is None


@pytest.mark.parametrize("key", ["body", "best_step", "steps", "parameters", "seed", "seconds"])
def test_a_missing_key_is_one_line_that_names_file_and_key(tmp_path, key):
    run = make_run(tmp_path / "a")
    content = json.loads((run / "result.json").read_text())
    del content[key]
    (run / "result.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf"a/result\.json is damaged: it has no '{key}'"):
        RunResult.load(run)


def test_a_run_without_a_result_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"no result\.json in "):
        RunResult.load(make_run(tmp_path / "a", finished=False))


def test_curves_and_the_accuracy_matrix_are_arrays(stream):
    run = read_run(stream)
    curve = run.curve("a", "validation", "accuracy")
    assert curve.shape == (len(curve), 3) and curve[-1, 0] == 40
    assert run.curve("a", "validation", "nothing").shape == (0, 3)
    assert run.accuracy_matrix.shape == (3, 2)
    np.testing.assert_array_equal(run.accuracy_matrix, np.array(run.continual.scores, dtype=float))


def test_a_task_without_a_head_is_nan_in_the_matrix(stream, tmp_path):
    run = make_run(tmp_path / "a", {"mnist_rows": {}, "digits_rows": {}})
    path = run / "accuracy_matrix.csv"
    path.write_text("stage,mnist_rows,digits_rows\n0,0.1,\n1,0.5,0.25\n")
    matrix = read_run(run).accuracy_matrix
    np.testing.assert_array_equal(matrix, [[0.1, np.nan], [0.5, 0.25]])
    path.write_text("stage,mnist_rows\n0,0.1\n")
    with pytest.raises(UserError, match=r"accuracy_matrix\.csv is damaged"):
        _ = read_run(run).accuracy_matrix
    with pytest.raises(UserError, match="the run has not finished"):
        _ = read_run(make_run(tmp_path / "b", finished=False)).accuracy_matrix
