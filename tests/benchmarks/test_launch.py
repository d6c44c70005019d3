"""Launching several runs."""

import json

import pytest
import torch

from benchmarks import launch

JOB = ["digits", "debug", "--train.steps", "2"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="launches on the GPU")
def test_launched_runs_are_recorded_whether_they_succeed_or_not_and_not_repeated(tmp_path, capsys):
    runs, results = tmp_path / "runs", tmp_path / "results"
    jobs = {"good": JOB, "bad": [*JOB, "--train.batch", "many"]}
    launch.launch(jobs, runs, results, 2)
    good, bad = (json.loads((results / f"{name}.json").read_text()) for name in jobs)
    assert good["command"] == "thalnet train digits debug --train.steps 2"
    assert good["result"]["steps"] == 2
    assert "train.batch" in bad["failed"] and "result" not in bad
    (results / "good.json").write_text(json.dumps(good | {"kept": True}))
    launch.launch({"good": JOB}, runs, results, 2)
    assert json.loads((results / "good.json").read_text())["kept"]
