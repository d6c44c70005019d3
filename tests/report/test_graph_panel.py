"""The graph of a page holds what the topology, the log and the reading weights of a run say."""

import json

import numpy as np
import pytest
from run_fixtures import add_topology, make_run
from safetensors.numpy import save_file

from thalnet_mtl.report.panels.graph import MOST, graph_panel
from thalnet_mtl.runs.records import read_run


def panel_of(folder):
    run = read_run(folder)
    return graph_panel(run, run.topology)


def test_a_stage_for_each_validation_says_the_score_until_then(tmp_path):
    data = panel_of(add_topology(make_run(tmp_path / "run"))).data
    assert [stage["step"] for stage in data["stages"]] == [0, 10, 20, 30]
    [task] = data["tasks"]
    assert task["scores"] == [(1, "60.00 %"), (2, "70.00 %"), (3, "80.00 %")]
    assert (task["input"], task["output"], task["parameters"]) == ([0], [2], 330)
    assert task["there"] == task["trained"] == [(0, 4)]


def test_many_validations_are_thinned_and_the_last_one_stays(tmp_path):
    run = add_topology(make_run(tmp_path / "run"))
    line = {"task": "digits_rows", "split": "validation", "metric": "accuracy", "value": 0.5}
    with (run / "metrics.jsonl").open("w") as log:
        for step in range(1, 201):
            log.write(json.dumps(line | {"step": step, "seconds": step}) + "\n")
    steps = [stage["step"] for stage in panel_of(run).data["stages"]]
    assert len(steps) == MOST + 1 and steps[0] == 0 and steps[-1] == 200


def test_an_arrow_has_the_mean_weight_with_which_its_module_is_read(tmp_path):
    run = add_topology(make_run(tmp_path / "run"))
    weights = {name: np.zeros((4, 6)) for name in ("eye", "trunk", "mouth")}
    weights["mouth"][:, 2:4] = [[-1.0, 1.0]] * 2 + [[0.0, 2.0]] * 2  # the slot of trunk
    (run / "model").mkdir()
    about = {"slots": json.dumps(dict.fromkeys(weights, 2)), "dynamic": "[]"}
    save_file(weights, run / "model" / "reading_weights.safetensors", metadata=about)
    panel = panel_of(run)
    assert [1, 2, 1.0, [(0, 4)]] in panel.data["readings"]
    assert "mean |R|" in panel.sentence


def test_without_reading_weights_arrows_have_none_and_the_page_says_so(tmp_path):
    panel = panel_of(add_topology(make_run(tmp_path / "run")))
    assert all(weight is None for _, _, weight, _ in panel.data["readings"])
    assert "has not saved its reading weights" in panel.sentence


@pytest.mark.parametrize(("verb", "unknown"), [("attach", True), ("freeze", False)])
def test_a_run_that_did_not_record_its_earlier_graphs_says_so(tmp_path, verb, unknown):
    run = add_topology(make_run(tmp_path / "run"), (10, verb, "mouth"))
    assert ("has not recorded its earlier graphs" in panel_of(run).sentence) == unknown


def test_tasks_with_the_same_head_are_one(tmp_path):
    names = {"tasks.a.head": "digits_rows", "tasks.b.head": "digits_rows"}
    tasks = {"a": {"kind": "digits_rows"}, "b": {"kind": "digits_rows"}}
    [task] = panel_of(add_topology(make_run(tmp_path / "run", tasks, names))).data["tasks"]
    assert (task["name"], task["tasks"]) == ("digits_rows", ["a", "b"])


def test_only_modules_of_a_single_task_have_its_color(tmp_path):
    run = add_topology(make_run(tmp_path / "run", {"digits_rows": {}, "mnist_rows": {}}))
    content = json.loads((run / "topology.json").read_text())
    content["tasks"]["mnist_rows"] = content["tasks"]["digits_rows"]
    content["modules"][2]["tasks"] = ["digits_rows", "mnist_rows"]
    (run / "topology.json").write_text(json.dumps(content))
    assert [module["task"] for module in panel_of(run).data["modules"]] == [0, None, None]
