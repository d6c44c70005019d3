"""A run records how strongly its modules read one another, from before its first step."""

import kill_and_resume
import numpy as np
import pytest
from run_fixtures import interrupt_at
from toy_tasks import GROWTH, JOINT, STREAM, toy

from thalnet_mtl.errors import UserError
from thalnet_mtl.runs.readings import read_reading_log
from thalnet_mtl.runs.records import read_run
from thalnet_mtl.training import readings
from thalnet_mtl.training.setup import set_up
from thalnet_mtl.training.trainer import train

EVERY_READING = ["linear", "weight_norm", "fast_softmax"]


def blocks(weights, slots):
    """The mean of |R| over the context at each position, by reader and source."""
    edges = np.cumsum([0, *slots.values()])
    return {
        reader: {
            source: np.abs(np.asarray(matrix))[:, edges[k] : edges[k + 1]].mean(0)
            for k, source in enumerate(slots)
        }
        for reader, matrix in weights.items()
    }


@pytest.mark.parametrize("reading", EVERY_READING)
def test_start_and_end_are_the_readings_of_the_untrained_and_the_trained_network(tmp_path, reading):
    config = toy(model={"reading": reading}, evaluate={"every": 60})
    run = set_up(config, fetch=print)
    untrained = run.network.body
    xs = next(run.tasks["toy_rows"].iterate("validation", 20, 20)).xs
    rows = run.network.adapter("toy_rows").encode(xs, untrained.input_modules)
    slots = {name: slot.stop - slot.start for name, slot in untrained.slots.items()}
    expected = blocks(untrained.reading_weights(rows), slots)
    train(config, tmp_path)
    record = read_run(tmp_path)
    starts = record.readings.starts()
    assert starts.keys() == expected.keys() and len(starts) == 3
    for reader, sources in expected.items():
        for source, values in sources.items():
            np.testing.assert_allclose(starts[reader][source], values, rtol=1e-5)
    (_, first), *_, (step, last) = record.readings.at()
    ends = blocks(record.reading_weights, record.slot_widths)
    assert step == record.result.best_step == 60
    for reader in expected:
        for source in slots:
            assert first[reader][source] == pytest.approx(starts[reader][source].mean(), rel=1e-5)
            assert last[reader][source] == pytest.approx(ends[reader][source].mean(), rel=1e-5)
    assert first != last


def test_changes_are_recorded_when_they_are_made(tmp_path):
    train(toy(**JOINT, changes=GROWTH, evaluate={"every": 60}), tmp_path)
    log = read_run(tmp_path).readings
    at = dict(log.at())
    assert list(at) == [0, 10, 20, 25, 30, 40, 60]
    assert at[10]["trunk"]["late"] == 0 < at[20]["trunk"]["late"]  # opened with weights of zero
    assert "late" not in at[40] and all("late" not in sources for sources in at[40].values())
    # The clone starts as its source is at that moment, and reads itself in place of it.
    renamed = {"twin" if name == "trunk" else name: x for name, x in at[20]["trunk"].items()}
    assert at[20]["twin"] == pytest.approx(renamed)
    assert log.starts()["twin"].keys() == at[60]["twin"].keys()
    assert "late" not in log.starts() and log.starts().keys() == at[60].keys()


def test_frozen_modules_are_recorded_once_and_cost_nothing(tmp_path, monkeypatch):
    read, learns = readings.reading_matrix, []

    def reading_matrix(reading):
        learns.append(any(parameter.requires_grad for parameter in reading.parameters()))
        return read(reading)

    monkeypatch.setattr(readings, "reading_matrix", reading_matrix)
    growth = {"when": "per_task", "modules": {"in": {"input": True}, "out": {"output": True}}}
    train(toy(**STREAM, growth=growth, evaluate={"every": 5}), tmp_path)
    lines = read_run(tmp_path).readings.lines
    first = {"input", "side1", "output"}  # of the first task, for which nothing is attached
    assert lines[0].starts.keys() == first
    assert all(first.isdisjoint(line.means) for line in lines if line.step > 20)
    starts = [name for line in lines for name in line.starts]
    assert len(starts) == len(set(starts)) == 7
    assert learns and all(learns)


def test_a_long_experience_is_recorded_at_fewer_and_fewer_of_its_validations(tmp_path):
    train(toy(train={"steps": 50}, evaluate={"every": 1}), tmp_path)
    steps = [line.step for line in read_run(tmp_path).readings.lines]
    assert steps == [*range(21), *range(22, 41, 2), 44, 48]


def test_a_killed_run_records_what_a_whole_one_does(tmp_path, monkeypatch):
    config = toy(**JOINT, changes=GROWTH, evaluate={"every": 5, "checkpoint_every": 7})
    train(config, tmp_path / "whole")
    for step in (9, 21, 33):
        with monkeypatch.context() as patch, pytest.raises(SystemExit):
            interrupt_at(step, patch)
            train(config, tmp_path / "cut")
    train(config, tmp_path / "cut")
    assert kill_and_resume.differences(tmp_path / "whole", tmp_path / "cut") == []
    whole, cut = ((tmp_path / name / "readings.jsonl").read_text() for name in ("whole", "cut"))
    assert whole == cut


def test_what_was_recorded_after_the_last_checkpoint_is_dropped(tmp_path, monkeypatch):
    train(toy(), tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        interrupt_at(33, patch)
        train(toy(), tmp_path / "cut")
    with (tmp_path / "cut" / "readings.jsonl").open("a") as file:
        file.write('{"step":32,"means":{"output":{"input":9.0}}}\n')
    train(toy(), tmp_path / "cut")
    whole, cut = ((tmp_path / name / "readings.jsonl").read_text() for name in ("whole", "cut"))
    assert whole == cut


def test_a_run_that_an_earlier_version_began_records_nothing(tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        interrupt_at(33, patch)
        train(toy(), tmp_path)
    (tmp_path / "readings.jsonl").unlink()
    train(toy(), tmp_path)
    log = read_run(tmp_path).readings
    assert log.at() == [] and log.starts() == {}


def test_a_damaged_line_is_named(tmp_path):
    path = tmp_path / "readings.jsonl"
    whole = '{"step":0,"means":{"a":{"a":0.5}},"starts":{"a":{"a":[0.5]}}}\n'
    path.write_text(whole + '{"step":')  # torn
    assert read_reading_log(path).at() == [(0, {"a": {"a": 0.5}})]
    for damage in ("{", "7", '{"step":1}', '{"step":1,"means":{"a":{"a":"x"}}}',
                   '{"step":1,"means":{},"starts":{"a":{"a":[1]}}}'):  # fmt: skip
        path.write_text(whole + damage + "\n")
        with pytest.raises(UserError, match=r"readings\.jsonl, line 2 is damaged|line 2: ") as told:
            read_reading_log(path)
        assert "\n" not in str(told.value)
