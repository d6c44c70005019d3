"""Records of training runs."""

import json
from pathlib import Path

import pytest
from run_fixtures import make_run

from benchmarks.quality import text_experiments
from benchmarks.records import load_runs, write_record
from thalnet_mtl.config.load import load_run_config
from thalnet_mtl.runs.summaries import read_record

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
        run = read_record(record, path)
        if not run.result:
            continue
        about = record["result"]["seed"], run.result.body
        assert (run.seed, run.config.model.body) == about, f"{path.name}: of another configuration"
        kinds = {name: task.kind for name, task in run.result.tasks.items()}
        assert kinds == {name: task.name for name, task in run.tasks.items()}
        environment = record["environment"]
        assert len(environment["commit"]) == 40, f"{path.name}: trained from changed files"
        assert environment["data"] and environment["packages"]["torch"] and environment["processor"]
        part, size = path.parent.name, record["result"]["parameters"]["total"]
        small = 1_000_000 if part in text_experiments.PARTS else budget
        assert size <= (14_100_000 if part == "text8" else small)


def test_a_record_of_a_run_is_read_back_as_the_run(tmp_path):
    run = make_run(tmp_path / "a", flags={"train.seed": "7"}, test=0.25)
    write_record("a-seed7", ["digits"], run, tmp_path / "results")
    unfinished = make_run(tmp_path / "b", finished=False)
    write_record("b-seed8", ["digits"], unfinished, tmp_path / "results", error="no memory")
    finished, failed = load_runs(tmp_path / "results")
    assert (finished.name, finished.seed) == ("a", 7)
    assert finished.result.tasks["digits_rows"].test == 0.25
    assert finished.config == load_run_config(run)
    assert finished.curve("digits_rows", "accuracy") == [(10, 0.6), (20, 0.7), (30, 0.8)]
    assert failed.result is None and failed.problem == "failed: no memory"
