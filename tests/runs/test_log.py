"""A log of any length is read in memory that does not grow, and its curves keep what matters."""

import gc
import json
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from run_fixtures import make_run

from thalnet_mtl.metrics.continual import AccuracyMatrix
from thalnet_mtl.metrics.learning_curves import minimum_accuracy
from thalnet_mtl.metrics.metric import ACCURACY
from thalnet_mtl.runs import log
from thalnet_mtl.runs.log import ThinnedCurve, read_log
from thalnet_mtl.runs.records import read_run


def write_log(path, count: int) -> None:
    with path.open("w") as file:
        for step in range(1, count + 1):
            line = {"step": step, "task": "a", "split": "train", "metric": "loss",
                    "value": 1 / step, "seconds": step / 10}  # fmt: skip
            file.write(json.dumps(line) + "\n")


def test_reading_a_log_four_times_as_long_takes_no_more_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(log, "POINTS", 100)
    peaks = []
    for count in (2_000, 8_000):
        write_log(tmp_path / "metrics.jsonl", count)
        gc.collect()  # what earlier tests left is not of this one
        tracemalloc.start()
        read = read_log(tmp_path / "metrics.jsonl", ["a"])
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert (read.step, read.seconds) == (count, count / 10)
        assert len(read.drawn("a", "train", "loss")) <= 200 + 4
    assert peaks[1] < 1.1 * peaks[0]


def test_a_thinned_curve_can_still_be_had_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(log, "POINTS", 10)
    run = make_run(tmp_path / "a")
    write_log(run / "metrics.jsonl", 300)
    text = (run / "metrics.jsonl").read_text().replace('"a"', '"digits_rows"')
    (run / "metrics.jsonl").write_text(text)
    record = read_run(run).records[0]
    whole = record.curve("train", "loss")
    assert whole[:, 0].tolist() == list(range(1, 301))
    drawn = record.drawn_curve("train", "loss")
    assert len(drawn) < 30 and drawn[-1].tolist() == whole[-1].tolist()
    assert set(map(tuple, drawn)) <= set(map(tuple, whole))


def test_thinned_curves_of_seeds_have_the_same_steps(monkeypatch):
    monkeypatch.setattr(log, "POINTS", 16)
    steps = []
    for seed in range(3):
        curve, scores = ThinnedCurve(), np.random.RandomState(seed).rand(500)
        for step, score in enumerate(scores):
            curve.add((step, 0.0, float(score)))
        steps.append(set(curve.points()[:, 0]))
    assert len(set.intersection(*steps)) >= 16


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10**6), st.integers(5, 90), st.integers(2, 5))
def test_the_worst_score_since_a_task_was_learned_survives_thinning(seed, every, stages):
    random, ends = np.random.RandomState(seed), [100 * (k + 1) for k in range(stages)]
    steps = sorted({*range(every, 100 * stages, every), *ends})
    scores = {task: random.rand(len(steps)).tolist() for task in "ab"}
    trained = [["a"], *[["b"]] * (stages - 1)]
    matrix = AccuracyMatrix({"a": ACCURACY, "b": ACCURACY}, trained, [[0, 0]] * (stages + 1))
    curves, thinned = {}, {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log, "POINTS", 4)
        for task, values in scores.items():
            curves[task] = list(zip(steps, values, strict=True))
            curve = ThinnedCurve(ends)
            for step, value in curves[task]:
                curve.add((step, 0.0, value))
            thinned[task] = [(int(n), float(v)) for n, _, v in curve.points()]
    assert minimum_accuracy(matrix, thinned, ends) == minimum_accuracy(matrix, curves, ends)
