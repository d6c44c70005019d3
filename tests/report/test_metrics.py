"""Tables and reports of runs with any metrics, also one of a plug-in that is not installed."""

import json

import pytest
from rich.console import Console
from run_fixtures import make_run

from thalnet_mtl import cli
from thalnet_mtl.config.schema import Config
from thalnet_mtl.errors import UserError
from thalnet_mtl.metrics.metric import ACCURACY, MAE, R2, Metric
from thalnet_mtl.report import html
from thalnet_mtl.report.baselines import caveats, compare_with_baselines, table_rows
from thalnet_mtl.report.rows import table
from thalnet_mtl.report.terminal import runs_table
from thalnet_mtl.runs.records import read_run, read_runs
from thalnet_mtl.runs.results import RunResult
from thalnet_mtl.sweep import plan as grid
from thalnet_mtl.sweep.summary import summarize

OWN = Metric("cost_of_errors", False, -1.0, "€", factor=10.0, decimals=1, label="cost (€)")


def with_metrics(folder, guess=None, task="digits_rows", **values):
    """The run in a folder with other metrics: by name, a value for all splits, or one for each."""
    known = {metric.name: metric for metric in (ACCURACY, MAE, R2, OWN)}
    path = folder / "result.json"
    content = json.loads(path.read_text())
    entry = content["tasks"][task]
    entry["metric"] = next(iter(values))
    entry["metrics"] = [known[name].to_json() for name in values]
    for split in ("train", "validation", "test", "untrained"):
        scores = {n: v[split] if isinstance(v, dict) else v for n, v in values.items()}
        entry[split] = {"loss": 1.0, **scores, "count": 100}
    if guess is not None:
        entry["guess"] = {"validation": guess, "test": guess}
    path.write_text(json.dumps(content))
    return folder


def test_a_metric_is_read_from_the_result_not_from_what_is_installed(tmp_path):
    run = with_metrics(make_run(tmp_path / "a"), {"cost_of_errors": 4.0}, cost_of_errors=2.0)
    task = RunResult.load(run).tasks["digits_rows"]
    assert task.metrics == (OWN,) and (task.test, task.guess_score("test")) == (2.0, 4.0)
    [row] = table([read_run(run)])
    assert (row["metric"], row["test"]) == ("cost of errors ↓", "20.0 €")
    page = html.write([run], tmp_path / "r.html").read_text()
    assert "cost (€), lower is better" in page and "20.0 €" in page


def test_further_metrics_have_rows_of_their_own_and_fit_80_columns(tmp_path):
    run = with_metrics(
        make_run(tmp_path / "digits_run"), mae=2.0, r2={"train": 0.9, "validation": 0.8,
        "test": 0.7, "untrained": -3.0}, accuracy=0.5,
    )  # fmt: skip
    rows = table([read_run(run)])
    assert [(row["run"], row["metric"], row["test"]) for row in rows] == [
        ("digits_run", "mae ↓", "2.000"),
        ("", "r2 ↑", "0.7000"),
        ("", "accuracy ↑", "50.00 %"),
    ]
    console = Console(width=80)
    with console.capture() as shown:
        console.print(runs_table([run]))
    lines = shown.get().splitlines()
    assert len(lines) == 4 and max(map(len, lines)) <= 80
    assert "mode" not in lines[0] and lines[2].split() == ["r2", "↑", "0.9000", "0.8000", "0.7000"]
    page = html.write([run], tmp_path / "r.html").read_text()
    assert "mean absolute error, lower is better" in page
    assert page.count("<small>r2 ↑: test 0.7000, training 0.9000, validation 0.8000</small>") == 1


def test_skill_and_gain_of_any_metric(tmp_path):
    """The skill of an error of 1.0 between guessing, 4.0, and 2.0 is 3/2; the gain 1/2."""
    run = with_metrics(make_run(tmp_path / "run"), {"mae": 4.0}, mae=1.0)
    alone = with_metrics(make_run(tmp_path / "alone"), {"mae": 4.0}, mae=2.0)
    row, total = table_rows(compare_with_baselines(read_runs([run]), read_runs([alone])))
    assert (row["skill"], row["gain"], total["gain"]) == ("1.500", "+50.00 %", "+50.00 %")
    assert (row["metric"], row["guessing"], row["single-task"]) == ("mae ↓", "4.000", "2.000")


def test_no_gain_over_a_baseline_that_is_worse_than_its_mean(tmp_path):
    run = with_metrics(make_run(tmp_path / "run"), {"r2": -0.1}, r2=0.5)
    alone = with_metrics(make_run(tmp_path / "alone"), {"r2": -0.1}, r2=-0.05)
    comparisons = compare_with_baselines(read_runs([run]), read_runs([alone]))
    row, total = table_rows(comparisons)
    assert (row["skill"], row["gain"], total["gain"]) == ("12.00", "–", "–")
    assert any("run on digits_rows: no relative gain: the r2 of" in n for n in caveats(comparisons))


def test_a_baseline_of_another_metric_is_refused(tmp_path):
    run = with_metrics(make_run(tmp_path / "run"), {"r2": 0.0}, r2=0.5)
    alone = make_run(tmp_path / "alone")
    with pytest.raises(UserError, match=r"its main metric is r2, that of baseline alone is acc"):
        compare_with_baselines(read_runs([run]), read_runs([alone]))


def test_the_best_row_of_a_sweep_has_the_lowest_error(tmp_path):
    plan = grid.plan({"": Config()}, {"train.clip": ["0", "1", "2"]}, [0], {})
    for planned, error in zip(plan, (3.0, 1.0, 2.0), strict=True):
        make_run(tmp_path / planned.name, {"permuted_mnist": {}})
        with_metrics(tmp_path / planned.name, task="permuted_mnist", mae=error, accuracy=0.1)
    rows, _ = summarize(plan, dict.fromkeys([p.name for p in plan], "done"), tmp_path)
    assert [row[""] for row in rows] == ["", "*", ""]
    assert [row["validation"] for row in rows] == ["3.000", "1.000", "2.000"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metrics": []}, "'mae' is not its first metric"),
        ({"metrics": [{"name": "mae"}]}, "it has no 'higher_is_better'"),
        (
            {"metrics": [MAE.to_json() | {"perfect": "zero"}]},
            "'zero' is not a number",
        ),
        ({"guess": {"test": {"rmse": 1.0}}}, "guess: test is damaged: it has no 'mae'"),
        ({"test": {"loss": 1.0, "count": 3}}, "test is damaged: it has no 'mae'"),
    ],
)
def test_a_damaged_metric_is_one_line(tmp_path, change, message):
    run = with_metrics(make_run(tmp_path / "a"), {"mae": 4.0}, mae=1.0)
    content = json.loads((run / "result.json").read_text())
    content["tasks"]["digits_rows"] |= change
    (run / "result.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=message) as error:
        RunResult.load(run)
    assert "\n" not in str(error.value)


def test_thalnet_lists_the_metrics_with_their_kinds_of_target(capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)  # as into a pipe: a line for each name
    assert cli.main(["list", "metrics"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "targets: class, labels;" in lines["f1"] and "average" in lines["f1"]
    assert lines["r2"].endswith("targets: numbers")
