"""Runs are set against named single-task runs on the same data, and nothing else."""

import json

import pytest
from run_fixtures import change_data, make_run

from thalnet_mtl.errors import UserError
from thalnet_mtl.report.baselines import caveats, compare_with_baselines, table_rows
from thalnet_mtl.runs.records import read_runs

MNIST = {"mnist_rows": {"source": "mnist", "test": 0.9}}
TEXT = {
    "text8": {
        "metric": "bits_per_character", "source": "text8", "test": 2.0, "classes": 256,
    }
}  # fmt: skip


@pytest.fixture
def joint(tmp_path):
    mnist, text = MNIST["mnist_rows"] | {"test": 0.81}, TEXT["text8"] | {"test": 2.3}
    return make_run(tmp_path / "joint", {"mnist_rows": mnist, "text8": text})


@pytest.fixture
def alone(tmp_path):
    seed = {"train.seed": "1"}
    return [
        make_run(tmp_path / "mnist0", MNIST),
        make_run(tmp_path / "mnist1", {"mnist_rows": MNIST["mnist_rows"] | {"test": 0.7}}, seed),
        make_run(tmp_path / "text0", TEXT),
    ]


def compare(runs, baselines):
    return compare_with_baselines(read_runs(runs), read_runs(baselines))


def test_scores_are_set_against_the_mean_of_the_baselines_of_their_task(joint, alone):
    assert table_rows(compare([joint], alone)) == [
        {"run": "joint", "task": "mnist_rows", "metric": "accuracy ↑", "test": "81.00 %",
         "guessing": "10.00 %", "single-task": "80.00 %", "n": "2", "skill": "1.014",
         "gain": "+1.250 %"},
        {"run": "joint", "task": "text8", "metric": "bits per character ↓", "test": "2.3000 bits",
         "guessing": "8.0000 bits", "single-task": "2.0000 bits", "n": "1", "skill": "0.9500",
         "gain": "-15.00 %"},
        {"run": "joint", "task": "Δm of 2 tasks", "metric": "", "test": "", "guessing": "",
         "single-task": "", "n": "", "skill": "", "gain": "-6.875 %"},
    ]  # fmt: skip


def test_two_tasks_of_a_run_on_the_same_data_keep_their_names(tmp_path, alone):
    two = {"mnist_rows": MNIST["mnist_rows"], "right": MNIST["mnist_rows"] | {"kind": "mnist_rows"}}
    joint = make_run(tmp_path / "joint", two)
    first, second, _ = table_rows(compare([joint], alone))
    assert (first["task"], second["task"]) == ("mnist_rows", "right (mnist_rows)")


def test_two_classes_are_not_compared_with_two_of_ten(tmp_path):
    """The head of a stream that all tasks share has to tell more apart than one of its own."""
    tasks = [{"split_mnist_0": {"source": "mnist", "classes": count}} for count in (10, 2, 10)]
    ten, two, other = (make_run(tmp_path / str(n), task) for n, task in enumerate(tasks))
    with pytest.raises(UserError, match="no baseline has that alone on the same data"):
        compare([ten], [two])
    assert table_rows(compare([ten], [two, other]))[0]["n"] == "1"


def test_a_baseline_given_twice_counts_once(joint, alone):
    again = joint.parent / "." / "mnist0"
    assert table_rows(compare([joint], [*alone, again])) == table_rows(compare([joint], alone))


def test_a_run_that_is_a_baseline_is_not_set_against_itself(joint, alone):
    assert list(compare([joint, *alone], alone)) == ["joint"]
    with pytest.raises(UserError, match="every run is a baseline"):
        compare(alone, alone)


def test_an_unfinished_run_is_listed_without_numbers(joint, alone):
    (joint / "result.json").unlink()
    [row] = table_rows(compare([joint], alone))
    assert (row["task"], row["gain"]) == ("unfinished", "–")


def test_a_task_without_a_baseline_says_which_there_are(joint, alone):
    with pytest.raises(UserError) as error:
        compare([joint], alone[:2])
    assert str(error.value) == (
        "run joint has the task text8, but no baseline has that alone on the same data. There "
        "are: mnist0 (mnist_rows), mnist1 (mnist_rows). Add one to --baseline."
    )


def test_a_baseline_on_other_data_is_none(joint, alone):
    change_data(alone[2], "mnist", "md5:0")
    assert compare([joint], alone)
    change_data(alone[2], "text8", "md5:0")
    with pytest.raises(UserError, match=r"text0 \(text8, other data\)"):
        compare([joint], alone)


def test_a_baseline_of_several_tasks_or_without_an_end_is_refused(joint, alone):
    with pytest.raises(UserError, match="baseline joint has 2 tasks: mnist_rows, text8"):
        compare(alone, [joint])
    (alone[0] / "result.json").unlink()
    with pytest.raises(UserError, match="baseline mnist0 is unfinished"):
        compare([joint], alone)


def test_a_baseline_that_has_learned_nothing_is_one_line(joint, alone):
    path = alone[2] / "result.json"
    content = json.loads(path.read_text())
    content["tasks"]["text8"]["test"]["bits_per_character"] = 8.0
    path.write_text(json.dumps(content))
    with pytest.raises(
        UserError, match="run joint on text8: no skill: the baseline scores 8, as guessing"
    ):
        compare([joint], alone)


def test_notes_say_how_few_and_how_mixed_the_baselines_are(tmp_path, joint, alone):
    first, *rest = caveats(compare([joint], alone))
    assert "fewer than 6 paired seeds do not support a ranking" in first and rest == []
    gru = make_run(tmp_path / "gru", MNIST, {"model.body": "gru"}, batches=2)
    _, *rest = caveats(compare([joint], [*alone, gru]))
    assert rest == [
        "mnist_rows: the baselines are thalnet, gru.",
        "gru: scored on the first 2 batches only.",
    ]
    seeds = [make_run(tmp_path / f"m{n}", MNIST, {"train.seed": str(n)}) for n in range(6)]
    single = make_run(tmp_path / "single", MNIST, {"train.seed": "7"})
    assert caveats(compare([single], seeds)) == []
