"""What the modules of a run are is told from ``topology.json`` alone."""

import json

import pytest
from run_fixtures import add_structure, make_run

from thalnet_mtl.errors import UserError
from thalnet_mtl.runs.topology_file import (
    history_rows,
    module_rows,
    read_structure,
    task_rows,
    totals,
)


def test_every_module_says_what_it_reads_and_whose_it_is(tmp_path):
    structure = read_structure(add_structure(make_run(tmp_path / "a")))
    first, second, _ = module_rows(structure)
    assert first == {
        "module": "eye", "slot": "0–32", "features": "32", "context": "16", "inputs": "28",
        "output": "–", "design": "ff_gru", "reading": "weight_norm",
        "reads": "eye, trunk, +mouth", "tasks": "digits_rows", "frozen": "–",
        "parameters": "1,000",
    }  # fmt: skip
    assert (second["reads"], second["tasks"], second["frozen"]) == ("all", "shared", "yes")
    assert second["inputs"] == "–"


def test_a_module_that_reads_some_names_them(tmp_path):
    run = add_structure(make_run(tmp_path / "a"))
    content = json.loads((run / "topology.json").read_text())
    content["modules"][1]["reads"] = ["mouth", "trunk"]
    (run / "topology.json").write_text(json.dumps(content))
    assert module_rows(read_structure(run))[1]["reads"] == "mouth, trunk"


def test_tasks_changes_and_totals_are_those_of_the_file(tmp_path):
    structure = read_structure(add_structure(make_run(tmp_path / "a"), (1200, "freeze", "trunk")))
    assert task_rows(structure) == [{
        "task": "digits_rows", "into": "eye", "out of": "mouth", "active": "all",
        "sub-steps": "1 + 0", "frozen": "–", "parameters": "330",
    }]  # fmt: skip
    assert history_rows(structure) == [{
        "#": "1", "step": "1,200", "time (s)": "120.0", "change": "freeze", "what": "trunk",
        "parameters": "51,200",
    }]  # fmt: skip
    assert totals(structure) == (
        "3 modules around a center of 96; 3,333 parameters: 3,003 in modules, 330 in encoders "
        "and heads; 1,001 frozen; after step 30"
    )


def test_a_run_without_modules_says_why(tmp_path):
    with pytest.raises(UserError, match="no run directory"):
        read_structure(tmp_path / "nowhere")
    with pytest.raises(UserError, match="not a run directory"):
        read_structure(tmp_path)
    with pytest.raises(UserError, match="the run has not started"):
        read_structure(make_run(tmp_path / "new", finished=False))
    with pytest.raises(UserError, match="a gru has no modules"):
        read_structure(make_run(tmp_path / "gru", flags={"model.body": "gru"}))
