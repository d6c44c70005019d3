import json

from run_fixtures import add_topology, make_run

from thalnet_mtl.metrics.metric import ACCURACY
from thalnet_mtl.metrics.summary import StageCost, summarize
from thalnet_mtl.runs.records import read_run
from thalnet_mtl.runs.results import RunResult

SCRIPT = "<script>alert(1)</script>"


def test_a_result_shows_the_scores_of_its_tasks(tmp_path):
    result = RunResult.load(make_run(tmp_path / "a"))
    assert repr(result).splitlines() == [
        "RunResult: thalnet, 12,345 parameters, 30 steps (best: 20), 4 s",
        "  digits_rows: test accuracy 85.43 %",
    ]
    html = result._repr_html_()
    for words in ("<th", ">digits_rows<", ">87.65 %<", ">85.43 %<", ">10.00 %<", "12,345"):
        assert words in html


def test_a_stream_shows_its_measures_and_its_matrix(tmp_path):
    folder = make_run(tmp_path / "a", {"a": {"kind": "digits_rows"}, "b": {"kind": "digits_rows"}})
    content = json.loads((folder / "result.json").read_text())
    cost = {"total": 5, "trainable": 5, "frozen": 0, "multiply_adds": {}, "stored_bytes": None}
    summary = summarize(
        dict.fromkeys("ab", ACCURACY), [["a"], ["b"]],
        [{"a": 0.1, "b": 0.11}, {"a": 0.9, "b": 0.12}, {"a": 0.6, "b": 0.8}],
        scenario="task-incremental", strategy="naive", growth="never", ends=[10, 20],
        stages=[StageCost(**cost)] * 3,
    )  # fmt: skip
    content["continual"] = summary.to_json()
    result = RunResult.from_json(content, "result.json")
    html = result._repr_html_()
    for words in ("task-incremental", ">70.00 %<", ">30.00 %<", ">11.00 %<", "each experience"):
        assert words in html  # ACC = (0.6 + 0.8) / 2, forgetting = 0.9 - 0.6, R[0, b]
    assert "ACC 70.00 %" in repr(result)


def test_a_run_shows_its_folder_its_configuration_and_how_far_it_is(tmp_path):
    run = read_run(make_run(tmp_path / "a", finished=False))
    assert repr(run) == (
        f"RunRecord('{tmp_path / 'a'}'): thalnet on digits_rows, seed 0; unfinished, step 30"
    )
    assert "unfinished, step 30" in run._repr_html_() and "name: digits_rows" in run._repr_html_()
    run = read_run(make_run(tmp_path / "b"))
    assert ">85.43 %<" in run._repr_html_() and "seed 0; 12,345 parameters" in repr(run)


def test_names_stay_text(tmp_path):
    run = make_run(tmp_path / "<i>a", {SCRIPT: {"kind": "digits_rows"}, "b": {}})
    html = read_run(run)._repr_html_()
    assert "<script" not in html and "<i>" not in html and "&lt;script&gt;" in html


def test_a_run_of_many_tasks_is_small(tmp_path):
    tasks = {f"task_{k}": {"kind": "digits_rows"} for k in range(300)}
    html = read_run(make_run(tmp_path / "a", tasks))._repr_html_()
    assert "and 240 more rows" in html and len(html) < 100_000


def test_the_result_of_a_task_is_a_line(tmp_path):
    result = RunResult.load(make_run(tmp_path / "a"))
    assert repr(result.tasks["digits_rows"]) == (
        "TaskResult(digits_rows: test accuracy 85.43 %; validation accuracy 87.65 %; "
        "train accuracy 91.23 %; untrained accuracy 10.00 %)"
    )


def test_a_topology_is_a_line(tmp_path):
    run = read_run(add_topology(make_run(tmp_path / "a"), (10, "attach", "late")))
    assert repr(run.topology) == (
        "TopologySnapshot(3 modules: eye, trunk, mouth; tasks: digits_rows; step 30, 1 changes)"
    )
