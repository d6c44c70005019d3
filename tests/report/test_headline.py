"""The five numbers are those of the result, as mean and interval over seeds."""

import json

import pytest
from page_parts import panels
from run_fixtures import make_run

from thalnet_mtl.metrics.metric import ACCURACY
from thalnet_mtl.metrics.summary import StageCost, summarize
from thalnet_mtl.report.headline import NO_MEAN, headline_table, headlines
from thalnet_mtl.report.html import write
from thalnet_mtl.report.rows import fold_runs
from thalnet_mtl.runs.records import read_run, read_runs


def numbers(*folders):
    [group] = fold_runs(read_runs(folders))
    return {number.name: number for number in headlines(group)}


def test_one_task_has_its_scores_its_size_and_its_time(tmp_path):
    shown = numbers(make_run(tmp_path / "a"))
    assert {name: number.value for name, number in shown.items()} == {
        "test accuracy ↑": "85.43 %", "validation accuracy ↑": "87.65 %",
        "training accuracy ↑": "91.23 %", "parameters": "12,345", "training time": "3.0 s",
    }  # fmt: skip
    assert not any(number.interval for number in shown.values())


def test_seeds_have_a_mean_and_an_interval(tmp_path):
    runs = [
        make_run(tmp_path / f"s{n}", flags={"train.seed": str(n)}, test=value)
        for n, value in enumerate((0.5, 0.6, 0.85))
    ]
    shown = numbers(*runs)
    assert shown["test accuracy ↑"].value == "65.00 %"
    low, high = map(float, shown["test accuracy ↑"].interval.split(" to "))
    assert 50 <= low < 65 < high <= 85
    assert shown["parameters"].interval == ""


def test_a_joint_run_has_the_scores_of_few_tasks_and_the_mean_of_many(tmp_path):
    two = numbers(make_run(tmp_path / "two", {"mnist_rows": {}, "digits_rows": {"test": 0.5}}))
    assert two["digits_rows, accuracy ↑"].value == "50.00 %"
    assert list(two)[-2:] == ["parameters", "training time"]
    tasks = {f"t{k}": {"kind": "digits_rows", "test": k / 10} for k in range(5)}
    assert numbers(make_run(tmp_path / "five", tasks))["test accuracy ↑"].value == "20.00 %"


def test_an_unfinished_run_has_none(tmp_path):
    assert numbers(make_run(tmp_path / "a", finished=False)) == {}


@pytest.fixture
def stream(tmp_path):
    """Return a run on a stream of two tasks, which end at 60 and 90 %."""
    tasks = {"a": {"kind": "digits_rows", "test": 0.6}, "b": {"kind": "digits_rows", "test": 0.9}}
    cost = StageCost(100, 100, 0, {}, 0)
    folder = make_run(tmp_path / "s", tasks)
    config = (folder / "config.yaml").read_text()
    experiences = "stream:\n- tasks: [a]\n  steps: 10\n- tasks: [b]\n  steps: 10\n"
    (folder / "config.yaml").write_text(config.replace("stream: []\n", experiences))
    rows = [{"a": 0.1}, {"a": 0.8}, {"a": 0.6, "b": 0.9}]
    summary = summarize(
        dict.fromkeys(tasks, ACCURACY), [["a"], ["b"]], rows, scenario="task-incremental",
        strategy="naive", growth="never", ends=[10, 20], stages=[cost] * 3,
    )  # fmt: skip
    content = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps(content | {"continual": summary.to_json()}))
    return folder


def test_a_stream_has_its_measures(stream):
    assert read_run(stream).continual
    shown = numbers(stream)
    assert list(shown) == ["ACC", "forgetting", "AIA", "FWT", "parameters"]
    assert (shown["ACC"].value, shown["forgetting"].value) == ("75.00 %", "20.00 %")
    assert shown["AIA"].value == "77.50 %"  # the mean of 80 and 75
    assert (shown["FWT"].value, shown["FWT"].words) == ("–", NO_MEAN)  # b had no head before


def test_numbers_of_several_configurations_are_the_rows_of_a_table(tmp_path, stream):
    one = [make_run(tmp_path / f"one-seed{n}", flags={"train.seed": str(n)}) for n in (0, 1)]
    table = headline_table(fold_runs(read_runs([*one, stream])))
    names = [column.name for column in table.columns]
    assert names[:3] == ["ACC", "forgetting", "AIA"] and "test accuracy ↑" in names
    (first, cells), (last, _) = table.rows
    assert (first.name, first.about, last.name) == ("one", ["2 seeds"], "s")
    shown = dict(zip(names, cells, strict=True))
    assert [score.value for score in shown["test accuracy ↑"]] == ["85.43 %"]
    assert shown["ACC"] == []


def test_a_stream_of_a_network_without_modules_has_a_matrix_and_no_graph(tmp_path, stream):
    page = write([stream], tmp_path / "report.html").read_text()
    [matrix] = panels(page, "matrix")
    assert matrix["scores"] == [[10.0, None], [80.0, None], [60.0, 90.0]]
    assert matrix["aria-label"] == "Test scores" and panels(page, "graph") == []
