"""Published tables are what their raw results say."""

import importlib.util
import json
from pathlib import Path

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def load(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_quality_tables_are_made_from_the_raw_results():
    quality = load(BENCHMARKS / "quality" / "run.py")
    table = quality.table()
    assert table.count("\n") > 1
    for readme in quality.READMES:
        assert quality.with_table(readme.read_text(), table) == readme.read_text()


def test_every_published_run_says_where_it_comes_from():
    for path in (BENCHMARKS / "quality" / "results").glob("*.json"):
        record = json.loads(path.read_text())
        assert record["command"].startswith("thalnet train ")
        if "failed" in record:
            continue
        about = record["environment"]
        assert len(about["commit"]) == 40, f"{path.name}: trained from changed files"
        assert about["data"] and about["packages"]["torch"] and about["processor"]
        assert record["result"]["parameters"]["total"] <= 50_000
