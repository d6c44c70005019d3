"""Lesions that were evaluated stay with the run that they belong to."""

import pytest
from run_fixtures import make_run
from toy_tasks import JOINT, toy

from thalnet_mtl import cli
from thalnet_mtl.errors import UserError
from thalnet_mtl.runs.lesions import TaskLesions, read_lesions, record_lesions
from thalnet_mtl.runs.records import read_run
from thalnet_mtl.training.evaluate import lesions
from thalnet_mtl.training.trained_run import load_run
from thalnet_mtl.training.trainer import train


def entry(step=20, split="test", accuracy=0.5):
    scores = {"accuracy": accuracy}
    return TaskLesions(step, split, 0, {"accuracy": 0.8}, {"input": scores})


def test_evaluate_records_the_scores_without_each_module(tmp_path, capsys):
    result = train(toy(**JOINT), tmp_path)
    for task in JOINT["tasks"]:
        assert cli.main(["evaluate", str(tmp_path), "--lesions", "--task", task]) == 0
    recorded = read_run(tmp_path).lesions
    assert list(recorded) == list(JOINT["tasks"])
    run = load_run(tmp_path)
    for name, task in run.tasks.items():
        settings = run.config.evaluate
        again = lesions(
            run.network, task.load("cpu"), "test", settings.batch, run.config.train.chunk
        )
        [metric, *_] = recorded[name].scores
        assert recorded[name].scores[metric] == result.tasks[name].test
        assert recorded[name].step == result.best_step
        assert {m: scores[metric] for m, scores in again.items()} == {
            m: scores[metric] for m, scores in recorded[name].without.items()
        }
    assert "recorded for reports" in capsys.readouterr().out


def test_a_task_that_is_evaluated_again_replaces_its_entry(tmp_path):
    record_lesions(tmp_path, {"a": entry(), "b": entry()})
    record_lesions(tmp_path, {"a": entry(accuracy=0.4)})
    both = read_lesions(tmp_path)
    assert [both[task].without["input"]["accuracy"] for task in "ab"] == [0.4, 0.5]
    record_lesions(tmp_path, {"a": entry(step=30)})
    assert list(read_lesions(tmp_path)) == ["a"]  # the run went on


def test_lesions_of_other_weights_are_not_those_of_the_run(tmp_path):
    run = make_run(tmp_path / "a")
    record_lesions(run, {"digits_rows": entry()})
    assert read_run(run).lesions == {"digits_rows": entry()}
    record_lesions(run, {"digits_rows": entry(step=10)})
    assert read_run(run).lesions == {}


ENTRY = '{"a": {"step": 1, "split": "test", "batches": 0, "scores": {"x": 1}, "without": %s}}'


@pytest.mark.parametrize("damage", ["{", "7", '{"a": {}}', ENTRY % '{"m": {"y": 1}}'])
def test_a_damaged_file_is_named(tmp_path, damage):
    (tmp_path / "lesions.json").write_text(damage)
    with pytest.raises(UserError, match=r"lesions\.json") as told:
        read_lesions(tmp_path)
    assert "\n" not in str(told.value)
