"""What ``thalnet inspect`` says once, and what stands together."""

import json

import pytest
from run_fixtures import add_topology, make_run
from search_fixtures import search_run

from thalnet_mtl import cli

LONG = ("sensor_encoder_of_the_left", "trunk_that_all_tasks_share", "head_of_everything")


def inspected(capsys, monkeypatch, folder, columns="80") -> list[str]:
    monkeypatch.setenv("COLUMNS", columns)
    assert cli.main(["inspect", str(folder)]) == 0
    return capsys.readouterr().out.splitlines()


@pytest.fixture
def run(tmp_path):
    return add_topology(make_run(tmp_path / "run"))


def change(run, edit) -> None:
    content = json.loads((run / "topology.json").read_text())
    edit(content)
    (run / "topology.json").write_text(json.dumps(content))


def test_what_all_modules_have_in_common_is_said_once(capsys, monkeypatch, run):
    lines = inspected(capsys, monkeypatch, run)
    assert "every module: design ff_gru, reading weight_norm" in lines
    assert " ".join(lines).count("weight_norm") == 1
    change(run, lambda content: content["modules"][1].update(module="gru"))
    lines = inspected(capsys, monkeypatch, run)
    assert "every module: reading weight_norm" in lines
    table = next(number for number, line in enumerate(lines) if line.startswith("module  design"))
    assert [line.split()[1] for line in lines[table + 1 : table + 4]] == ["ff_gru", "gru", "ff_gru"]


def test_tasks_that_are_alike_share_a_row(capsys, monkeypatch, run):
    def more_tasks(content):
        task = content["tasks"]["digits_rows"]
        content["tasks"] |= {"again": task, "frozen": task | {"frozen": True}, "more": task}

    change(run, more_tasks)
    lines = inspected(capsys, monkeypatch, run)
    rows = [line for line in lines if " eye " in line and " 330" in line]
    assert len(rows) == 2
    assert rows[0].startswith("digits_rows, again, more  ") and rows[1].startswith("frozen ")


@pytest.mark.parametrize("columns", ["80", "120"])
def test_long_names_fit(capsys, monkeypatch, tmp_path, columns):
    changes = [(10, "attach", f"{LONG[2]}, read by {LONG[0]}"), (20, "route", " to ".join(LONG))]
    run = add_topology(make_run(tmp_path / "run"), *changes, names=LONG)
    lines = inspected(capsys, monkeypatch, run, columns)
    assert max(map(len, lines)) <= int(columns)
    assert sum(line.startswith("module ") for line in lines) == 2  # tables, not blocks


def test_a_decision_stands_with_its_reason_and_its_candidates(capsys, monkeypatch, tmp_path):
    folder = search_run(tmp_path / "run", {"a": "", "b": "all", "c": "probe"})
    lines = inspected(capsys, monkeypatch, folder)
    starts = [number for number, line in enumerate(lines) if line.startswith("decision ")]
    assert len(starts) == 2 and max(map(len, lines)) <= 80
    for start, kind in zip(starts, ("all", "probe of a"), strict=True):
        block = lines[start : lines.index("", start)]
        assert f": {kind}; " in block[0] and any(line.startswith("why: ") for line in block)
        table = next(n for n, line in enumerate(block) if line.startswith("candidate "))
        chosen = [line for line in block[table + 1 :] if line.endswith("yes")]
        assert len(chosen) == 1 and chosen[0].startswith(f"{kind} ")
