"""A CSV file of one's own becomes a trained, scored and exported forecaster by one YAML file."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
import toy_tasks  # noqa: F401

from thalnet_mtl import cli, load_run
from thalnet_mtl.registry import lookup

# Passengers of airlines in thousands, 1949 to 1960 (Box and Jenkins, Time Series Analysis, 1976).
AIRLINE = """
112 118 132 129 121 135 148 148 136 119 104 118 115 126 141 135 125 149 170 170 158 133 114 140
145 150 178 163 172 178 199 199 184 162 146 166 171 180 193 181 183 218 230 242 209 191 172 194
196 196 236 235 229 243 264 272 237 211 180 201 204 188 235 227 234 264 302 293 259 229 203 229
242 233 267 269 270 315 364 347 312 274 237 278 284 277 317 313 318 374 413 405 355 306 271 306
315 301 356 348 355 422 465 467 404 347 305 336 340 318 362 348 363 435 491 505 404 359 310 337
360 342 406 396 420 472 548 559 463 407 362 405 417 391 419 461 472 535 622 606 508 461 390 432
"""
YAML = """
task:
  name: csv
  path: airline.csv
  inputs: [passengers]
  outputs: [passengers]
  time: month
  window: 24
  horizon: 1
  every_step: true
  change: true
model: {budget: 5000}
train: {steps: 200, batch: 16, optimizer: adam, learning_rate: 0.01, schedule: cosine, clip: 1}
evaluate: {every: 40}
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a table and a configuration."""
    monkeypatch.chdir(tmp_path)
    values = AIRLINE.split()
    rows = [f"{1949 + k // 12}-{k % 12 + 1:02d},{value}\n" for k, value in enumerate(values)]
    (tmp_path / "airline.csv").write_text("month,passengers\n" + "".join(rows))
    (tmp_path / "airline.yaml").write_text(YAML)
    return tmp_path


def call(capsys, command):
    capsys.readouterr()
    status = cli.main(command.split())
    output = capsys.readouterr()
    return status, output.out, output.err


def test_a_table_becomes_a_forecaster_by_one_yaml_file(capsys, here):
    assert len(YAML.strip().splitlines()) < 15
    status, out, _ = call(capsys, "data check airline.yaml")
    assert status == 0 and max(map(len, out.splitlines())) <= 80
    passengers = np.array(AIRLINE.split(), float)
    naive = np.abs(np.diff(passengers)[121:]).mean()
    assert f"mae {naive:.4g}" in out.partition("repeating the last value, on test")[2]
    assert call(capsys, "train airline.yaml")[0] == 0
    status, out, _ = call(capsys, "evaluate runs/airline")
    assert status == 0 and " (standardized), 22 targets" in out
    result = json.loads((here / "runs/airline/result.json").read_text())
    scores = result["tasks"]["csv"]
    assert scores["validation"]["mae"] < 38.5  # repeating the last value
    status, out, _ = call(capsys, "export runs/airline --to onnx")
    assert status == 0 and max(map(len, out.splitlines())) <= 80
    assert out.splitlines()[0] == "runs/airline/export/step.onnx"
    assert out.splitlines()[1] == "x: (batch, 1) float32: passengers"
    assert "\noutputs: (batch, 1): change of passengers\n" in out and "in the units of" in out

    # The program reads and returns passengers, as the file has them.
    session = onnxruntime.InferenceSession("runs/airline/export/step.onnx")
    names = [entry.name for entry in session.get_inputs()]
    assert next(entry.name for entry in session.get_outputs()) == "outputs"
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["inputs"])[0]["columns"] == ["passengers"] and facts["task"] == "csv"
    assert json.loads(facts["outputs"])[0]["columns"] == ["change of passengers"]
    state = {n.name: np.zeros([1, *n.shape[1:]], np.float32) for n in session.get_inputs()[1:]}
    run = load_run("runs/airline")
    task = run.task().load("cpu")
    batch = next(task.iterate("test", 1, 0))
    with torch.no_grad():
        expected = task.in_units(run.network("csv", batch.xs)[0])[0, :, 0]
    first = task.scalings[0].invert(batch.xs)[0, :, 0].round()
    assert first[0] in passengers
    for passenger, change in zip(first, expected, strict=True):
        x = np.full((1, 1), float(passenger), np.float32)
        answer, *parts = session.run(None, {"x": x} | state)
        state = dict(zip(names[1:], parts, strict=True))
        assert answer.item() == pytest.approx(change.item(), rel=1e-3, abs=0.01)


@pytest.mark.parametrize("horizon", [2, 24])
def test_numbers_of_several_columns_are_scored_one_by_one(capsys, tmp_path, monkeypatch, horizon):
    monkeypatch.chdir(tmp_path)
    values = np.random.RandomState(0).rand(200, 2) * [1, 1000]
    rows = "".join(f"{a},{b}\n" for a, b in values)
    (tmp_path / "a.csv").write_text(f"temp,load\n{rows}")
    (tmp_path / "a.yaml").write_text(
        f"task: {{name: csv, path: a.csv, inputs: [temp], outputs: [temp, load], window: 4, "
        f"horizon: {horizon}}}\ntrain: {{steps: 2, batch: 8}}"
    )
    status, out, _ = call(capsys, "data check a.yaml")
    names = [f"{name} +{k}" for k in range(1, horizon + 1) for name in ("temp", "load")]
    shown = names if horizon == 2 else [*names[:3], "… 42 more …", *names[-3:]]
    guess = out.partition("guessing scores on test")[2].partition("repeating")[0].splitlines()[1:]
    assert status == 0 and [line.strip().partition(":")[0] for line in guess] == shown
    # The first forecast is of the row behind the window; training has the first 140 rows.
    test = values[170:]
    first = test[: len(test) - horizon + 1]
    errors = np.abs(first - values[4 : 141 - horizon].mean(0)).mean(0)
    numbers = [float(line.rpartition(" ")[2]) for line in guess[:2]]
    assert numbers == pytest.approx(errors.tolist(), rel=1e-3)
    assert call(capsys, "train a.yaml --out run --model.budget 2000")[0] == 0
    lines = call(capsys, "evaluate run")[1].splitlines()[2:]
    assert [line.strip().partition(":")[0] for line in lines] == shown
    task = load_run("run").task().load("cpu")
    batch = next(task.iterate("test", 500, 0))
    with torch.no_grad():
        outputs = load_run("run").network("csv", batch.xs)[0]
    error = task.in_units(outputs) - task.in_units(batch.ys)
    for k in (0, 1, -2, -1):
        mae = float(lines[k].rpartition(" mae ")[2])
        assert mae == pytest.approx(error[:, k].abs().mean().item(), rel=1e-3)


PATIENTS = {  # with programs of whole sequences, or of a step
    "number": ("outputs: [died], target: class", "class", {"torch": False, "onnx": True}),
    "rows": (
        "outputs: [next, pressure], every_step: true",
        "number",
        {"torch": True, "onnx": False},
    ),
}


@pytest.mark.parametrize(("options", "kind", "programs"), PATIENTS.values(), ids=PATIENTS)
def test_sequences_of_unequal_lengths_are_exported_as_the_usage_says(
    capsys, tmp_path, monkeypatch, options, kind, programs
):
    monkeypatch.chdir(tmp_path)
    lines = ["patient,hr,died,next,pressure"]
    for patient in range(24):
        rows = 3 if patient > 20 else 2 + patient % 4
        died = ("no", "yes")[patient % 2]
        lines += [f"p{patient},{60 + k},{died},{61 + k},{90 - k * k}" for k in range(rows)]
    (tmp_path / "p.csv").write_text("\n".join(lines))
    config = f"task: {{name: csv, path: p.csv, group: patient, inputs: [hr], {options}}}"
    (tmp_path / "p.yaml").write_text(f"{config}\ntrain: {{steps: 2, batch: 4}}")
    assert call(capsys, "train p.yaml --out run --model.budget 2000")[0] == 0
    run = load_run("run")
    xs, lengths = torch.full((2, 5, 1), 60.0), torch.tensor([5, 2])
    for form, whole in programs.items():
        status, out, err = call(capsys, f"export run --to {form}{' --lengths' * whole}")
        assert status == 0 and max(map(len, out.splitlines())) <= 80, err
        assert ("x: (batch, time, 1) float32" in out) == whole
        code = "\n".join(line[2:] for line in out.splitlines() if line.startswith("  "))
        names = {"x": xs if whole else xs[:, 0], "lengths": lengths}
        states = [line.split(":")[0] for line in out.splitlines() if "zeros before" in line]
        assert bool(states) != whole
        zeros = run.network.initial("csv", 2)
        parts = [zeros] if isinstance(zeros, torch.Tensor) else list(zeros)
        names |= dict(zip(states, parts, strict=False))
        if form == "onnx":
            names = {name: part.numpy() for name, part in names.items()}
        exec(code, names)
        assert names["outputs"].shape[0] == 2 and names["outputs"].shape[-1] == 2
    answers = {"class": "(the largest is the answer): no, yes", "number": ": next, pressure"}
    assert answers[kind] in " ".join(out.split())
    extra = {"metadata.json": ""}
    [program] = Path("run/export").glob("*.pt2")
    torch.export.load(program, extra_files=extra)
    facts = json.loads(extra["metadata.json"])
    assert json.loads(facts["outputs"])[0]["columns"][0] == {"class": "no", "number": "next"}[kind]


def test_data_that_has_changed_since_training_is_refused(capsys, here):
    assert call(capsys, "train airline.yaml --train.steps 2 --evaluate.every 2")[0] == 0
    table = here / "airline.csv"
    table.write_text(table.read_text().replace("1949-01,112", "1949-01,12"))
    folder = next((here / "runs").iterdir()).name
    for command in (f"evaluate runs/{folder}", f"export runs/{folder} --to torch"):
        status, _, err = call(capsys, command)
        assert status == 2 and "its data is not that of the training of" in err


def test_a_mistake_in_the_data_is_one_line_and_status_2(capsys, here):
    table = here / "airline.csv"
    table.write_text(table.read_text().replace("1949-03,132", "1949-03,many"))
    for command in ("data check airline.yaml", "train airline.yaml"):
        status, _, err = call(capsys, command)
        assert status == 2 and err.count("\n") == 1
        assert "airline.csv, line 4, column 'passengers': 'many' is no finite number" in err


@pytest.mark.parametrize("task", ["toy_rows", "toy_wide", "digits_rows"])
def test_the_data_of_any_task_can_be_checked(capsys, monkeypatch, tmp_path, task):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.yaml").write_text(f"task: {{name: {task}}}")
    status, out, _ = call(capsys, "data check a.yaml")
    assert status == 0 and max(map(len, out.splitlines())) <= 80
    rows = out.partition("\nclass ")[2].partition("\n\n")[0].splitlines()[1:]
    outputs = lookup("task", task)().spec.outputs
    assert [row.split()[0] for row in rows] == [str(k) for k in range(outputs)]
    assert "guessing scores on test: accuracy" in out and "example 3 of train:" in out


def test_a_program_of_standardized_arrays_keeps_their_units(capsys, here):
    rng = np.random.default_rng(0)
    xs = rng.normal(500, 20, (60, 4, 1)).astype(np.float32)
    np.savez(here / "far.npz", xs=xs, ys=xs.mean(1) + 1000)
    (here / "far.yaml").write_text(
        "task: {name: npz, path: far.npz, target: numbers, standardize: true}\n"
        "model: {budget: 1000}\ntrain: {steps: 2, batch: 8}\nevaluate: {every: 2}\n"
    )
    status, _, err = call(capsys, "train far.yaml")
    assert status == 0, err
    assert call(capsys, "export runs/far --to torch --lengths")[0] == 0
    program = torch.export.load("runs/far/export/sequences.pt2").module()
    answers = program(torch.tensor(xs[:5]), torch.full((5,), 4))[0]
    task = load_run("runs/far").task().load("cpu")
    mean = task.scalings[1].mean[0]
    assert mean > 1400 and answers.mean().item() == pytest.approx(mean, abs=100)
