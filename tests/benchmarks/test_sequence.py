"""The sequence benchmark: its tables and measures."""

import pytest

from benchmarks.markdown import with_table
from benchmarks.sequence import experiments, report, run
from benchmarks.tuning import metric_of


def test_the_tables_of_the_sequence_are_made_from_the_raw_results():
    table = report.report()
    assert with_table(run.README.read_text(), table) == run.README.read_text()


def test_forgetting_transfer_and_gain_of_a_sequence_are_worked_by_hand():
    names = [*experiments.TASKS]
    scores = [[0.1, 0.1, 8.0], [0.9, 0.1, 8.0], [0.7, 0.55, 8.0], [0.6, 0.4, 3.0]]
    forgot = {"permuted_mnist": 0.3, "cifar10_rows": 0.15}
    ends = zip(names, scores[-1], strict=True)
    record = {
        "result": {
            "tasks": {name: {"test": {metric_of(name).name: score}} for name, score in ends},
            "continual": {
                "trained": [[name] for name in names],
                "scores": scores,
                "measures": {"forgetting": {"values": forgot}},
            },
        }
    }
    alone = {"permuted_mnist": 0.8, "cifar10_rows": 0.5, "text8": 4.0}
    assert report.forgetting_and_transfer(record, alone) == pytest.approx(
        {("forgetting", "images"): 22.5, ("transfer", "images"): 5, ("transfer", "text"): 1.0}
    )

    def single(name, validation, score):
        metric = metric_of(name).name
        of = {"metric": metric, "validation": {metric: validation}, "test": {metric: score}}
        return {3: {"result": {"tasks": {name: of}}}}

    runs = {"never": {3: record}}
    for name, score in alone.items():
        better, worse = (3.0, 5.0) if name == "text8" else (0.7, 0.2)
        runs[f"single_{name}_at_0.1"] = single(name, worse, 0.123)
        runs[f"single_{name}_at_0.01"] = single(name, better, score)
    # −25 %, −20 %, and a quarter fewer bits.
    assert report.mean_gains(runs, "never") == pytest.approx({3: -20 / 3})
