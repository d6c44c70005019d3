"""The speed benchmark: its tables and measurements."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks.markdown import with_table
from benchmarks.speed import run
from benchmarks.speed.report import load_measurements, pick, report

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_the_speed_table_is_made_from_the_raw_results():
    readme = BENCHMARKS / "speed" / "README.md"
    table = report(BENCHMARKS / "speed" / "results")
    assert table.count("\n") > 20
    assert with_table(readme.read_text(), table) == readme.read_text()


def test_the_readmes_tell_the_measured_speed():
    cpu = [m for m in load_measurements(BENCHMARKS / "speed" / "results") if m["device"] == "cpu"]
    ratios = [
        pick(cpu, config, "cpp", threads)["ratio_to_gru"]
        for config in ("mnist50", "mnist256", "cifar50", "text8")
        for threads in {m["threads"] for m in cpu}
    ]
    low, high = f"{min(ratios):.2f}", f"{max(ratios):.2f}"
    phrases = f"{low} to {high} times on a CPU", f"{low}–{high}×"
    for folder in (BENCHMARKS.parent, BENCHMARKS):
        text = (folder / "README.md").read_text()
        assert any(phrase in text for phrase in phrases), (folder, phrases)


def test_a_speed_measurement_says_what_was_measured(tmp_path, monkeypatch, capsys):
    out = tmp_path / "speed.json"
    monkeypatch.setattr(run, "add_memory", lambda measurements: None)
    threads = torch.get_num_threads()
    words = ["run", "--configs", "mnist50", "--paths", "cpp", "--rounds", "1", "--json", str(out)]
    monkeypatch.setattr("sys.argv", words)
    try:
        run.main()
    finally:
        torch.set_num_threads(threads)
    measurements = json.loads(out.read_text())["measurements"]
    assert {m["path"] for m in measurements} == {"gru4", "gru1", "lstm4", "cpp"}
    for m in measurements:
        assert m["seconds"] > 0 and m["device"] == "cpu" and m["precision"] == "fp32"
        assert m["ratio_to_gru"] == pytest.approx(m["seconds"] / m["baseline_seconds"])
        assert abs(m["parameters"] / 46_852 - 1) < 0.03
    assert len(capsys.readouterr().out.splitlines()) == len(measurements)
