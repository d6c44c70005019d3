"""The image part of the quality benchmark: its tables, its trials, their selection."""

import json

import pytest
from table_fixtures import task_entry, write_record

from benchmarks.markdown import with_table
from benchmarks.quality import experiments, report, run


def test_the_quality_tables_are_made_from_the_raw_results():
    table = report.report()
    assert table.count("\n") >= 3
    assert with_table(run.README.read_text(), table) == run.README.read_text()


def test_trials_are_as_many_for_each_and_within_the_budget():
    jobs = experiments.search()
    for task in experiments.TASKS:
        names = [name for name in jobs if name.startswith(task)]
        counts = [sum(f"_{body}-" in name for name in names) for body in ("gru", "thalnet")]
        assert counts == ([28, 28] if task == "cifar10" else [16, 16])
    assert len({" ".join(command) for command in jobs.values()}) == len(jobs)


def test_a_trial_is_selected_on_validation_and_trained_with_other_seeds(tmp_path, monkeypatch):
    trial = experiments.search()["cifar10_gru-trial01"]
    command = " ".join(["thalnet train", *trial, "--train.precision tf32"])

    def record(validation, test):
        scores = {"validation": {"accuracy": validation}, "test": {"accuracy": test}}
        return {"command": command, "result": {"tasks": {"a": scores}}}

    (tmp_path / "search").mkdir()
    records = {"cifar10_gru-trial00": record(0.8, 0.9), "cifar10_gru-trial01": record(0.9, 0.7)}
    records["cifar10_gru-trial02"] = {"command": "thalnet train recipe.yaml", "failed": "diverged"}
    for name, content in records.items():
        (tmp_path / "search" / f"{name}.json").write_text(json.dumps(content))
    monkeypatch.setattr(experiments, "RESULTS", tmp_path)
    assert experiments.best_trials() == {("cifar10", "gru"): ["cifar10_gru-trial01"]}
    (job,) = experiments.best([4], ["--train.threads", "1"]).items()
    words = " ".join(trial).replace("--train.seed 100", "--train.seed 4")
    assert job == ("cifar10_gru-seed4", [*words.split(), "--train.threads", "1"])


def test_where_trials_tie_two_of_each_body_are_trained_and_their_seeds_decide(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(experiments, "RESULTS", tmp_path)
    monkeypatch.setattr(report, "RESULTS", tmp_path)

    def put(part, name, validation, test=0.5):
        _, _, seed = name.rpartition("-seed")
        config = {"task": {"name": "toy"}, "train": {"seed": int(seed) if seed.isdecimal() else 0}}
        tasks = {"toy": task_entry(test, train=test, validation=validation)}
        command = f"thalnet train {name}.yaml --train.seed 100 --train.precision tf32"
        write_record(tmp_path / part / f"{name}.json", config, tasks, command=command)

    for number, validation in enumerate((0.8, 0.9, 0.7, 0.9)):
        put("search", f"cifar10_thalnet-trial{number:02}", validation)
        put("search", f"cifar10_gru-trial{number:02}", validation + number / 100)
        put("search", f"permuted_mnist_gru-trial{number:02}", validation + number / 100)
    assert experiments.best_trials() == {
        ("cifar10", "gru"): ["cifar10_gru-trial03", "cifar10_gru-trial01"],
        ("cifar10", "thalnet"): ["cifar10_thalnet-trial01", "cifar10_thalnet-trial03"],
        ("permuted_mnist", "gru"): ["permuted_mnist_gru-trial03"],
    }
    names = ["cifar10_thalnet-seed0", "cifar10_thalnet-trial03-seed0"]
    assert [n for n in experiments.best([0]) if "thalnet" in n] == names
    for seed in range(6):
        put("best", f"cifar10_thalnet-seed{seed}", 0.8, 0.9)
        put("best", f"cifar10_thalnet-trial03-seed{seed}", 0.81, 0.6)
        put("best", f"cifar10_gru-seed{seed}", 0.8, 0.5)
    (comparison,) = report.compare(report.load_table("best"), report.finalists())
    assert comparison.difference.values == pytest.approx([0.1] * 6)
    assert "| ThalNet, trial03 | 100 | 6 | 81.00 | 60.00 | 60.00 |" in report.best_table()
    again = experiments.confirm([9])
    assert [*again] == ["cifar10_gru-seed9", "cifar10_thalnet-seed9"]
    assert again["cifar10_thalnet-seed9"] == ["cifar10_thalnet-trial03.yaml", "--train.seed", "9"]
    assert "new seeds" not in report.best_table()
    for body, test in {"thalnet": 0.4, "gru": 0.5}.items():
        put("confirm", f"cifar10_{body}-seed8", 0.8, test)
        put("confirm", f"cifar10_{body}-seed9", 0.8, test)
    assert "| CIFAR-10 by rows | -10.00 | **undecided**: 2 pairs" in report.best_table()
