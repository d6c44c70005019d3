"""Published tables are what their raw results say."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks.attach import run as attach
from benchmarks.claim import run as claim
from benchmarks.continual import run as continual
from benchmarks.continual import tables as continual_tables
from benchmarks.quality import run as quality
from benchmarks.shared import with_table
from benchmarks.speed import run as speed
from benchmarks.speed.tables import measurements, pick, tables

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def test_the_quality_tables_are_made_from_the_raw_results():
    table = quality.table()
    assert table.count("\n") > 1
    for readme in quality.READMES:
        assert with_table(readme.read_text(), table) == readme.read_text()


def test_the_claim_table_is_made_from_the_raw_results():
    table = claim.table()
    assert table.count("\n") > 1
    assert with_table(claim.README.read_text(), table) == claim.README.read_text()


def test_gains_are_paired_by_seed_and_point_up():
    def record(**scores):
        metrics = {"a": "accuracy", "b": "bits_per_character"}
        tasks = {t: {"metric": metrics[t], "test": {metrics[t]: x}} for t, x in scores.items()}
        return {"result": {"tasks": tasks}}

    joint = {0: record(a=0.6, b=2.0), 1: record(a=0.5, b=3.0), 2: record(a=0.9, b=1.0)}
    singles = {
        "a": {0: record(a=0.5), 1: record(a=0.5), 2: {"failed": "exit status 1"}},
        "b": {0: record(b=2.5), 1: record(b=2.0), 2: record(b=1.0)},
    }
    found = claim.gains(joint, singles)
    assert found == [pytest.approx({"a": 0.2, "b": 0.2}), pytest.approx({"a": 0.0, "b": -0.5})]
    # Mean -0.025, deviation 0.45 / √2; Student's t of one degree of freedom is 12.7062.
    assert claim.interval([0.2, -0.25]) == "-2.50 [-288.39, +283.39]"


def test_the_continual_tables_are_made_from_the_raw_results():
    table = continual_tables.report()
    assert table.count("\n") > 40
    assert with_table(continual.README.read_text(), table) == continual.README.read_text()


def test_the_table_of_attaching_is_made_from_the_raw_results():
    table = attach.table()
    assert table.count("\n") > 8
    assert with_table(attach.README.read_text(), table) == attach.README.read_text()


def test_what_a_method_does_on_the_way_is_worked_by_hand():
    def task(test, untrained):
        return {"test": {"accuracy": test}, "untrained": {"accuracy": untrained}}

    record = {
        "result": {
            "tasks": {"a": task(0.6, 0.1), "b": task(0.8, 0.2)},
            "continual": {
                "trained": [["a"], ["b"]],
                "ends": [300, 600],
                "scores": [[0.1, 0.2], [0.9, 0.2], [0.6, 0.8]],
            },
        },
        "curves": {
            "a": {
                "validation_step": [100, 300, 400, 600],
                "validation_accuracy": [0.5, 0.9, 0.4, 0.6],
            },
            "b": {
                "validation_step": [100, 300, 400, 600],
                "validation_accuracy": [0.9, 0.9, 0.3, 0.8],
            },
        },
    }
    assert continual_tables.lowest(record) == 0.4  # of a, in the second experience
    # 0.9 · 0.9 is reached by a after 300 steps; b was better before its time, and never in it.
    assert continual_tables.steps(record, {"a": 0.9, "b": 0.95}) == 300
    assert continual_tables.steps(record, {"a": 0.5, "b": 0.3}) == 100
    skilled, gain = continual_tables.against(record, {"a": 0.6, "b": 0.5})
    assert skilled == pytest.approx((1 + 2) / 2)
    assert gain == pytest.approx((0 + 0.6) / 2)
    assert continual_tables.against(record, {"a": 0.6}) == (None, None)
    assert (
        continual_tables.percent([0.5, None]) == "50.00" and continual_tables.percent([0]) == "0.0"
    )
    assert continual_tables.number([]) == continual_tables.number([None]) == "–"


@pytest.mark.parametrize(
    ("benchmark", "budget"),
    [("quality", 50_000), ("claim", 150_000), ("continual", 50_000), ("attach", 50_000)],
)
def test_every_published_run_says_where_it_comes_from(benchmark, budget):
    paths = list((BENCHMARKS / benchmark / "results").glob("*.json"))
    assert paths
    for path in paths:
        record = json.loads(path.read_text())
        assert record["command"].startswith("thalnet train ")
        if "failed" in record:
            continue
        about = record["environment"]
        assert len(about["commit"]) == 40, f"{path.name}: trained from changed files"
        assert about["data"] and about["packages"]["torch"] and about["processor"]
        assert record["result"]["parameters"]["total"] <= budget


def test_the_speed_table_is_made_from_the_raw_results():
    readme = BENCHMARKS / "speed" / "README.md"
    table = tables(BENCHMARKS / "speed" / "results")
    assert table.count("\n") > 20
    assert with_table(readme.read_text(), table) == readme.read_text()


def test_the_first_readme_tells_the_measured_speed():
    found = measurements(BENCHMARKS / "speed" / "results")
    many = max(m["threads"] for m in found)
    ratios = [
        pick(found, config, "cpp", many)["ratio_to_gru"]
        for config in ("mnist50", "mnist256", "cifar50", "text8")
    ]
    told = f"{min(ratios):.2f} to {max(ratios):.2f} times on a CPU"
    assert told in (BENCHMARKS.parent / "README.md").read_text(), told


def test_a_speed_measurement_says_what_was_measured(tmp_path, monkeypatch, capsys):
    out = tmp_path / "speed.json"
    monkeypatch.setattr(speed, "add_memory", lambda found: None)
    threads = torch.get_num_threads()
    given = ["run", "--configs", "mnist50", "--paths", "cpp", "--rounds", "1", "--json", str(out)]
    monkeypatch.setattr("sys.argv", given)
    try:
        speed.main()
    finally:
        torch.set_num_threads(threads)
    found = json.loads(out.read_text())["measurements"]
    assert {m["path"] for m in found} == {"gru4", "gru1", "lstm4", "cpp"}
    for m in found:
        assert m["seconds"] > 0 and m["device"] == "cpu" and m["precision"] == "fp32"
        assert m["ratio_to_gru"] == pytest.approx(m["seconds"] / m["baseline_seconds"])
        assert abs(m["parameters"] / 46_852 - 1) < 0.03
    assert len(capsys.readouterr().out.splitlines()) == len(found)
