"""Records of training runs."""

import json
from pathlib import Path

import pytest

from benchmarks.quality import text_experiments

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.parametrize(
    ("benchmark", "budget"),
    [
        ("quality", 50_000),
        ("claim", 150_000),
        ("continual", 50_000),
        ("attach", 50_000),
        ("sequence", 150_000),
    ],
)
def test_every_published_record_has_its_command_and_provenance(benchmark, budget):
    results = BENCHMARKS / benchmark / "results"
    paths = [path for path in results.rglob("*.json") if path.name != "initial.json"]
    assert paths
    for path in paths:
        record = json.loads(path.read_text())
        assert record["command"].startswith("thalnet train ")
        if "failed" in record:
            continue
        environment = record["environment"]
        assert len(environment["commit"]) == 40, f"{path.name}: trained from changed files"
        assert environment["data"] and environment["packages"]["torch"] and environment["processor"]
        part, size = path.parent.name, record["result"]["parameters"]["total"]
        small = 1_000_000 if part in text_experiments.PARTS else budget
        assert size <= (14_100_000 if part == "text8" else small)
