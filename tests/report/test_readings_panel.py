"""Readings are shown as change against the start, beside the change that chance would give."""

import json
from dataclasses import replace

import numpy as np
import pytest
from run_fixtures import make_run

from thalnet_mtl.report.panels.readings import readings_panel
from thalnet_mtl.report.reading_changes import (
    mean_change,
    reading_change,
    slot_means,
    standard_error,
)
from thalnet_mtl.runs.readings import ReadingLine, ReadingLog
from thalnet_mtl.runs.records import read_run

NAMES = ("input", "side", "output")
WIDTH = 8


@pytest.fixture
def record(tmp_path):
    return read_run(make_run(tmp_path / "a"))


def with_readings(record, start, end, log=True):
    """A run whose readers had these weights by name: at the start all that are not None."""
    widths = dict.fromkeys(end, WIDTH)
    starts = {
        reader: {
            source: np.abs(matrix[:, k * WIDTH : (k + 1) * WIDTH]).mean(0).tolist()
            for k, source in enumerate(widths)
            if np.abs(matrix[:, k * WIDTH : (k + 1) * WIDTH]).any()
        }
        for reader, matrix in start.items()
    }
    means = {r: {s: sum(x) / WIDTH for s, x in sources.items()} for r, sources in starts.items()}
    lines = [ReadingLine(0, means, starts)] if log else []
    return replace(record, reading_weights=end, slot_widths=widths, readings=ReadingLog(lines))


def weights(seed, scale=0.1):
    draw = np.random.default_rng(seed)
    return {name: draw.normal(0, scale, (16, WIDTH * len(NAMES))) for name in NAMES}


def moved(start, seed, scale=0.02):
    noise = weights(seed, scale)
    return {name: start[name] + noise[name] for name in NAMES}


def test_change_is_the_end_minus_the_start_by_reader_and_source(record):
    start, end = weights(0), moved(weights(0), 1)
    change = reading_change(with_readings(record, start, end))
    for row, reader in enumerate(NAMES):
        for column in range(3):
            block = slice(column * WIDTH, (column + 1) * WIDTH)
            expected = np.abs(end[reader][:, block]).mean() - np.abs(start[reader][:, block]).mean()
            assert change.change[row, column] == pytest.approx(expected)


def test_the_standard_error_is_that_of_means_of_random_draws():
    draw = np.random.default_rng(0)
    values = draw.exponential(size=24)
    means = [draw.permutation(values)[:8].mean() for _ in range(20_000)]
    assert standard_error(values, 8) == pytest.approx(np.std(means), rel=0.03)
    assert standard_error(values, 24) == 0


def test_noise_is_not_framed_and_is_pale(record):
    framed, strengths = 0, []
    for seed in range(60):
        start = weights(seed)
        change = reading_change(with_readings(record, start, moved(start, 1000 + seed)))
        framed += change.beyond.sum()
        strengths += (np.abs(change.change) / change.limit).ravel().tolist()
    assert framed <= 5  # of 540
    assert np.median(strengths) < 0.4


def test_a_source_that_was_learned_is_framed_and_dark(record):
    start = weights(0)
    end = moved(start, 1)
    end["output"][:, :WIDTH] *= 3
    change = reading_change(with_readings(record, start, end))
    assert [tuple(cell) for cell in np.argwhere(change.beyond)] == [(2, 0)]
    assert change.change[2, 0] == pytest.approx(change.limit)
    panel = readings_panel("a", [with_readings(record, start, end)])
    [shown] = panel.data["sets"]
    assert shown["beyond"] == [[0, 0, 0], [0, 0, 0], [1, 0, 0]]
    [row] = [row for row in panel.table if row["beyond chance"]]
    assert (row["reader"], row["reads"]) == ("output", "input") and row["change"].startswith("+")


def test_weights_that_did_not_move_do_not_stand_out(record):
    start = weights(0)
    change = reading_change(with_readings(record, start, start))
    assert not change.beyond.any() and change.limit == pytest.approx(0, abs=1e-12)


def test_a_slot_that_was_opened_later_began_at_zero_and_one_that_is_not_read_is_empty(record):
    start, end = weights(0), moved(weights(0), 1)
    for name in ("side", "output"):
        start[name][:, :WIDTH] = 0
    end["side"][:, :WIDTH] = 0
    change = reading_change(with_readings(record, start, end))
    assert change.start[2, 0] == 0 < change.end[2, 0]
    assert np.isnan(change.end[1, 0]) and np.isnan(change.start[1, 0])
    panel = readings_panel("a", [with_readings(record, start, end)])
    assert panel.data["sets"][0]["change"][1][0] is None
    json.dumps(panel.data, allow_nan=False)


def test_a_module_of_the_same_name_begins_anew():
    log = ReadingLog([
        ReadingLine(0, {"a": {"b": 1.0}, "b": {"b": 1.0}}, {"a": {"b": [1.0]}, "b": {"b": [1.0]}}),
        ReadingLine(5, {"a": {}, "b": None}),
        ReadingLine(6, {"a": {"b": 0.0}, "b": {"b": 2.0}}, {"b": {"b": [2.0, 2.0]}}),
    ])  # fmt: skip
    starts = log.starts()
    assert starts["a"] == {} and starts["b"]["b"].tolist() == [2.0, 2.0]


def test_runs_of_earlier_versions_show_the_end_and_say_what_is_missing(record):
    run = with_readings(record, weights(0), weights(1), log=False)
    panel = readings_panel("a", [run])
    assert "did not record the weights before training" in panel.sentence
    assert set(panel.data["sets"][0]) == {"name", "end"}
    assert panel.table[0].keys() == {"reader", "reads", "|R| at the end"}
    assert readings_panel("a", [record]) is None


def test_seeds_are_their_mean_and_one_by_one(record):
    runs = [with_readings(record, weights(k), moved(weights(k), 100 + k)) for k in range(4)]
    changes = [reading_change(run) for run in runs]
    whole = mean_change(changes)
    np.testing.assert_allclose(whole.change, np.mean([c.change for c in changes], axis=0))
    squares = np.mean([c.error**2 for c in changes], axis=0)
    np.testing.assert_allclose(whole.error, np.sqrt(squares / 4))
    panel = readings_panel("a", runs)
    assert [shown["name"] for shown in panel.data["sets"]] == ["mean of 4 seeds", *["seed 0"] * 4]
    other = replace(runs[0], slot_widths={"else": WIDTH}, reading_weights={"else": np.ones((2, 8))})
    assert "1 of the 5 runs have other modules" in readings_panel("a", [*runs, other]).sentence


def test_block_means_are_over_a_reader_and_a_slot():
    weights = {
        "input": np.array([[1.0, -3.0, 0.0, 0.0]]),
        "output": np.array([[2.0, 2.0, -5.0, 7.0]]),
    }
    slots = {"input": 2, "output": 2}
    np.testing.assert_array_equal(slot_means(weights, slots), [[2, 0], [2, 6]])
    slots = {"input": 1, "output": 3}
    np.testing.assert_allclose(slot_means(weights, slots), [[1, 1], [2, 14 / 3]])
