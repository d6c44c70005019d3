"""The sequence benchmark: its tables and measures."""

import pytest
from table_fixtures import COST, task_entry, write_record

from benchmarks.markdown import with_table
from benchmarks.sequence import experiments, report, run
from benchmarks.tuning import metric_of
from thalnet_mtl.metrics.summary import summarize
from thalnet_mtl.runs.summaries import read_summaries


def test_the_tables_of_the_sequence_are_made_from_the_raw_results():
    table = report.report()
    assert with_table(run.README.read_text(), table) == run.README.read_text()


def entry(name, test, **scores):
    return task_entry(test, metric_of(name).name, **scores)


def test_forgetting_transfer_and_gain_of_a_sequence_are_worked_by_hand(tmp_path):
    names = [*experiments.TASKS]
    rows = [[0.1, 0.1, 8.0], [0.9, 0.1, 8.0], [0.7, 0.55, 8.0], [0.6, 0.4, 3.0]]
    summary = summarize(
        {name: metric_of(name) for name in names}, [[name] for name in names],
        [dict(zip(names, row, strict=True)) for row in rows], scenario="task-incremental",
        strategy="naive", growth="never", ends=[10, 20, 30], stages=[COST] * 4,
    )  # fmt: skip
    config = {"tasks": {name: {} for name in names}, "train": {"seed": 3},
              "stream": [{"tasks": [name]} for name in names]}  # fmt: skip
    tasks = {name: entry(name, score) for name, score in zip(names, rows[-1], strict=True)}
    paths = [
        write_record(tmp_path / "never-seed3.json", config, tasks, continual=summary.to_json())
    ]
    for name, score in (("permuted_mnist", 0.8), ("cifar10_rows", 0.5), ("text8", 4.0)):
        validations = (5.0, 3.0) if name == "text8" else (0.2, 0.7)
        for rate, validation, test in zip((0.1, 0.01), validations, (0.123, score), strict=True):
            single = {"task": {"name": name}, "train": {"seed": 3, "learning_rate": rate}}
            path = tmp_path / f"single_{name}_at_{rate}-seed3.json"
            tasks = {name: entry(name, test, validation=validation)}
            paths.append(write_record(path, single, tasks))
    never, *singles = read_summaries(paths)[0]
    chosen = [each for name in names for each in report.single_task_runs(singles, name)]
    assert [each.config.train.learning_rate for each in chosen] == [0.01] * 3
    table = report.make_methods_table([never], chosen)
    (line,) = report.method_lines(table, chosen)[2:-1]
    cells = [cell.strip() for cell in line.split("|")][7:-1]
    # Gains: −25 %, −20 %, and a quarter fewer bits. The last task cannot be forgotten.
    assert cells == ["**-6.7**", "22.50", "–", "5.00", "1.00"]
    values = {column.name: column.cells[0].mean for column in table.columns}
    assert values["gain"] == pytest.approx(-0.2 / 3)
