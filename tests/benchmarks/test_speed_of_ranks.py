"""The benchmark of steps that several processes share."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks.speed import ranks
from benchmarks.speed.report import load_measurements

RESULTS = Path(ranks.__file__).parent / "results" / "ranks"


def test_a_measurement_of_several_processes_says_what_was_measured(tmp_path, monkeypatch, capsys):
    out, name = tmp_path / "ranks.json", "rows-47k-50"
    words = ["ranks", "--configs", name, "--rounds", "4", "--json", str(out)]
    monkeypatch.setattr(sys, "argv", words)
    ranks.main()
    (m,) = json.loads(out.read_text())["measurements"]
    assert (m["config"], m["ranks"], m["rounds"]) == (name, 2, 4)
    assert m["parameters"] == pytest.approx(47_000, rel=0.01)
    for times in (m["seconds"], m["cpu_seconds"]):
        assert times.keys() == {"threads1", "threads2", "ranks"} and min(times.values()) > 0
    for middle, low, high in (*m["ratios"].values(), m["cpu_ratio"]):
        assert 0 < low <= middle <= high
    assert capsys.readouterr().out.startswith(f"{name}  47182  threads1 ")


def test_the_readme_says_where_a_second_process_pays():
    measured = {m["config"]: m["cpu_ratio"] for m in load_measurements(RESULTS)}
    assert measured.keys() == ranks.CONFIGS.keys()
    small, large = (measured[name] for name in ("rows-47k-50", "text-3M-100"))
    assert small[0] > large[2] and large[2] < 0.75  # the upper quartile
