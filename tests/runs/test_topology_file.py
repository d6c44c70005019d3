"""The modules of a run are read from ``topology.json`` alone."""

import json

import pytest
from run_fixtures import add_topology, make_run

from thalnet_mtl.errors import UserError
from thalnet_mtl.report.topology import history_rows, module_rows, task_rows, totals
from thalnet_mtl.runs.topology_file import TopologySnapshot, read_topology


def test_every_module_says_what_it_reads_and_whose_it_is(tmp_path):
    topology = read_topology(add_topology(make_run(tmp_path / "a")))
    first, second, _ = module_rows(topology)
    assert first == {
        "module": "eye", "slot": "0–32", "features": "32", "context": "16", "inputs": "28",
        "output": "–", "design": "ff_gru", "reading": "weight_norm",
        "reads": "eye, trunk, +mouth", "tasks": "digits_rows", "frozen": "–",
        "parameters": "1,000",
    }  # fmt: skip
    assert (second["reads"], second["tasks"], second["frozen"]) == ("all", "shared", "yes")
    assert second["inputs"] == "–"


def test_a_module_that_reads_some_names_them(tmp_path):
    run = add_topology(make_run(tmp_path / "a"))
    content = json.loads((run / "topology.json").read_text())
    content["modules"][1]["reads"] = ["mouth", "trunk"]
    (run / "topology.json").write_text(json.dumps(content))
    assert module_rows(read_topology(run))[1]["reads"] == "mouth, trunk"


def test_tasks_changes_and_totals_are_those_of_the_file(tmp_path):
    topology = read_topology(add_topology(make_run(tmp_path / "a"), (1200, "freeze", "trunk")))
    assert task_rows(topology) == [{
        "task": "digits_rows", "input modules": "eye", "output modules": "mouth", "active": "all",
        "sub-steps": "1 + 0", "frozen": "–", "parameters": "330",
    }]  # fmt: skip
    assert history_rows(topology) == [{
        "#": "1", "step": "1,200", "time (s)": "120.0", "change": "freeze", "modules": "trunk",
        "parameters": "51,200",
    }]  # fmt: skip
    assert totals(topology) == (
        "3 modules around a center of 96; 3,333 parameters: 3,003 in modules, 330 in encoders "
        "and heads; 1,001 frozen; after step 30"
    )


def test_a_run_without_modules_says_why(tmp_path):
    with pytest.raises(UserError, match="no run directory"):
        read_topology(tmp_path / "nowhere")
    with pytest.raises(UserError, match="not a run directory"):
        read_topology(tmp_path)
    with pytest.raises(UserError, match="the run has not started"):
        read_topology(make_run(tmp_path / "new", finished=False))
    with pytest.raises(UserError, match="a gru has no modules"):
        read_topology(make_run(tmp_path / "gru", flags={"model.body": "gru"}))


def test_a_topology_is_written_as_it_was_read(tmp_path):
    run = add_topology(make_run(tmp_path / "a"), (1200, "freeze", "trunk"))
    content = json.loads((run / "topology.json").read_text())
    content["tasks"]["digits_rows"] |= {"task": {"inputs": 8, "outputs": 10}, "encode": False}
    topology = TopologySnapshot.from_json(content, "topology.json")
    assert json.loads(json.dumps(topology.to_json())) == content
    later = content | {"new": 1, "modules": [m | {"new": 1} for m in content["modules"]]}
    assert TopologySnapshot.from_json(later, "topology.json") == topology
    assert topology.modules[0].slot == (0, 32)
    assert topology.tasks["digits_rows"].input_modules == ("eye",)


def test_a_decision_has_exactly_one_chosen_candidate(tmp_path):
    run = add_topology(make_run(tmp_path / "a"))
    content = json.loads((run / "topology.json").read_text())
    alone = {"candidate": "alone", "parameters": 9, "score": 0.5, "chosen": True}
    decision = {"step": 9, "changes": 0, "experience": 2, "task": "b", "about": "task",
                "reason": "why", "candidates": [alone]}  # fmt: skip
    topology = TopologySnapshot.from_json(content | {"decisions": [decision]}, "topology.json")
    assert topology.decisions[0].chosen.candidate == "alone"
    saved = json.loads(json.dumps(topology.to_json()))
    assert TopologySnapshot.from_json(saved, "topology.json") == topology
    for changes in ([1], [-1], [0, -1]):
        decisions = [decision | {"changes": number} for number in changes]
        with pytest.raises(UserError, match="decisions and history are in another order"):
            TopologySnapshot.from_json(content | {"decisions": decisions}, "topology.json")
    for count, entries in ((0, [alone | {"chosen": False}]), (2, [alone, alone])):
        damaged = content | {"decisions": [decision | {"candidates": entries}]}
        with pytest.raises(UserError, match=rf"decisions\[0\] is damaged: {count} of its"):
            TopologySnapshot.from_json(damaged, "topology.json")
