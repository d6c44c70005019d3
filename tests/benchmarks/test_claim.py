"""The claim: its tables, its runs, the settings that it tries."""

import pytest
from benchmark_fixtures import claim_runs, scored_record
from table_fixtures import task_entry, write_record

from benchmarks.claim import experiments, report, run
from benchmarks.markdown import with_table


def test_the_tables_of_the_claim_are_made_from_the_raw_results():
    table = report.report()
    assert table.count("\n") > 10
    assert with_table(run.README.read_text(), table) == run.README.read_text()


def test_gains_are_paired_by_seed_and_positive_where_joint_training_helps():
    alone = {
        0: scored_record(0.5, 0.4, 2.0),
        1: scored_record(0.8, 0.5, 4.0),
        2: {"failed": "exit status 1"},
    }
    runs = {f"alone_{task}_gru": alone for task in experiments.TASKS}
    runs["weighted_gru"] = {k: scored_record(0.6, 0.4, 1.5) for k in range(4)}
    rows = report.fold_networks(claim_runs(runs))
    place = [*rows].index(("gru", "weighted"))
    gains = [column.cells[place].values for column in report.gain_columns(rows, "gru")]
    expected = [(0.2, -0.25), (0, -0.2), (0.25, 0.625)]
    assert gains[:3] == [pytest.approx(values) for values in expected]
    assert report.score_table(rows)[2:] == [
        "| GRU | single-task, a third of the size each | 30 | 2 (3 failed) | "
        "65.00 [50.00, 80.00] | 45.00 [40.00, 50.00] | 3.000 [2.000, 4.000] |",
        "| GRU | joint, fixed loss weights | 10 | 4 | 60.00 | 40.00 | 1.500 |",
    ]
    assert report.gain_table(rows)[2].endswith(
        "| 2 | -2.50 [-25.00, 20.00] | -10.00 [-20.00, 0.00] | 43.75 [25.00, 62.50] "
        "| **10.42 [5.83, 15.00]** |"
    )
    (line,) = report.verdict_table(rows)[2:]
    networks = "GRU, joint, fixed loss weights | GRU, single-task, a third of the size each"
    assert f"| {networks} | GRU | 10.42" in line
    assert "**undecided**: 2 pairs cannot go below" in line


def test_single_task_networks_are_compared_by_task_and_fewer_bits_are_better():
    scores = {"thalnet": (0.5, 0.75, 3.0), "gru": (0.6, 0.5, 2.0)}
    runs = {
        f"alone_{task}_{body}": {seed: scored_record(*values) for seed in range(8)}
        for task in experiments.TASKS
        for body, values in scores.items()
    }
    rows = report.fold_networks(claim_runs(runs))
    assert [line.partition(": 8 pairs")[0] for line in report.single_task_table(rows)[2:]] == [
        "| permuted MNIST, % | 8 | -10.00 | **worse**",
        "| CIFAR-10 by rows, % | 8 | 25.00 | **better**",
        "| text8, first 74 MB, bits | 8 | 1.000 | **worse**",
    ]


def test_later_seeds_are_for_joint_and_single_task_thalnets(monkeypatch):
    monkeypatch.setattr(experiments, "settings", lambda *_: [])
    monkeypatch.setattr(experiments, "best_setting", lambda *_: {})
    jobs = experiments.jobs([7, 8])
    assert sum(name.endswith("-seed7") for name in jobs) == 2 * (3 + 1 + 1) + 3
    alone = {
        f"{way}_{task}_thalnet-seed8" for task in experiments.TASKS for way in ("alone", "wide")
    }
    assert {name for name in jobs if name.endswith("-seed8")} == {"weighted_thalnet-seed8", *alone}


def test_the_loss_by_a_lesion_is_positive_where_it_harms():
    without = {
        "trunk": dict(zip(experiments.TASKS, (0.7, 0.5, 3.5), strict=True)),
        "eye": {"text8": 2.0},
    }
    runs = {seed: scored_record(0.9, 0.5, 2.5, lesions=without) for seed in range(2)}
    assert report.lesion_table(runs) == [
        "| lesioned module, 2 seeds | loss on permuted MNIST | loss on CIFAR-10 by rows "
        "| loss on text8 |",
        "|---|---|---|---|",
        "| trunk | 20.00 | 0.00 | 1.000 |",
        "| eye |  |  | -0.500 |",
    ]


def test_weights_and_aggregators_are_tried_at_the_best_rate(tmp_path, monkeypatch):
    monkeypatch.setattr(experiments, "RESULTS", tmp_path)
    assert experiments.settings("gru", "weighted") == experiments.JOINT_RATES
    assert experiments.settings("gru", "aggregated") == []
    for number, seen in enumerate([0.6, 0.7, 0.9]):
        config = {"task": {"name": "cifar10_rows"}, "train": {"seed": 102}}
        tasks = {"cifar10_rows": task_entry(0.5, validation=seen)}
        write_record(tmp_path / f"trial_weighted_gru-{number}.json", config, tasks)
    rate = {"train.learning_rate": "0.006"}  # trial 2 is at this rate itself
    assert experiments.settings("gru", "weighted")[2] == rate | {"tasks.cifar10_rows.weight": "3"}
    assert experiments.settings("gru", "aggregated")[0] == rate | {"train.combine": "upgrad"}
    assert experiments.settings("thalnet", "aggregated") == []
    words = experiments.trial_jobs()["trial_aggregated_gru-3"]
    assert words[-4:] == ["--train.learning_rate", "0.006", "--train.combine", "aligned_mtl"]
