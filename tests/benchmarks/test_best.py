"""The search for the best networks: its trials, the selection, its tables."""

from collections import Counter
from itertools import pairwise

import pytest
from table_fixtures import task_entry, write_record

from benchmarks.best import experiments, report, run
from benchmarks.best.experiments import SEARCHES
from benchmarks.markdown import with_table
from thalnet_mtl.config.load import load_configs
from thalnet_mtl.training.dry_run import check_budget
from thalnet_mtl.training.setup import make_network, make_tasks

SEARCHED = [(task, body) for task, search in SEARCHES.items() for body in search.bodies]


def test_the_tables_are_made_from_the_raw_results():
    text = run.README.read_text()
    assert with_table(text, report.report()) == text


@pytest.mark.parametrize(("task", "body"), SEARCHED)
def test_every_value_of_a_choice_is_tried_equally_often(task, body):
    settings = SEARCHES[task].settings(task, body)
    assert settings == SEARCHES[task].settings(task, body)
    for key in settings[0].keys() - {"train.learning_rate"}:
        counts = Counter(setting[key] for setting in settings).values()
        assert max(counts) - min(counts) <= 1, key
    rates = sorted(float(setting["train.learning_rate"]) for setting in settings)
    assert len({*rates}) == len(rates)
    ratios = [b / a for a, b in pairwise(rates)]
    assert max(ratios) <= 1.01 * 6 ** (2 / len(settings))  # two neighboring parts of the range


@pytest.mark.parametrize("task", SEARCHES)
def test_trials_of_the_same_number_share_what_all_bodies_have(task):
    shared = [word.partition("=")[0] for word in SEARCHES[task].shared]
    first, *others = [
        [[setting[key] for key in shared] for setting in SEARCHES[task].settings(task, body)]
        for body in SEARCHES[task].bodies
        if body != "mlp"
    ]
    assert all(settings == first for settings in others)


@pytest.mark.parametrize(("task", "body"), SEARCHED)
def test_trials_are_configurations_within_the_budget(task, body):
    for words in [*experiments.trials(task, body).values()][:3]:
        flags = {key[2:]: value for key, value in zip(words[1::2], words[2::2], strict=True)}
        (config,) = load_configs(words[:1], flags).values()
        network = make_network(config, make_tasks(config))
        check_budget(network, config, "the trial", "")
        assert sum(p.numel() for p in network.parameters()) > 0.96 * config.model.budget


def write_scores(folder, name, validation, test=0.5):
    tasks = {"permuted_mnist": task_entry(test, validation=validation)}
    seed = int(name.partition("-seed")[2])
    config = {"task": {"name": "permuted_mnist"}, "train": {"seed": seed}}
    write_record(
        folder / f"{name}.json", config, tasks, command=f"thalnet train --train.seed {seed}"
    )


def test_the_setting_with_the_best_mean_over_the_seeds_of_the_finalists_is_selected(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(experiments, "RESULTS", tmp_path)
    with pytest.raises(SystemExit, match="32 trials are missing"):
        experiments.ranked("permuted_mnist", "gru")
    for k, name in enumerate(experiments.trials("permuted_mnist", "gru")):
        write_scores(tmp_path / "search", name, {5: 0.98, 7: 0.97, 9: 0.96, 11: 0.95}.get(k, 0.9))
    assert experiments.ranked("permuted_mnist", "gru")[:4] == [5, 7, 9, 11]
    jobs = experiments.finalists("permuted_mnist", "gru")
    assert [name.partition("trial")[2] for name in jobs] == [
        f"{k:02}-seed{seed}" for k in (5, 7, 9, 11) for seed in experiments.FINALIST_SEEDS
    ]
    with pytest.raises(SystemExit, match="run 'finalists' first"):
        experiments.confirm("permuted_mnist", "gru", [20])
    for name in jobs:  # trial 5 was lucky
        write_scores(tmp_path / "finalists", name, 0.94 if "trial05" in name else 0.95)
    (name,) = experiments.confirm("permuted_mnist", "gru", [20])
    assert name == "permuted_mnist_gru-trial07-seed20"


def test_the_selected_settings_are_compared_on_eight_new_seeds(tmp_path, monkeypatch):
    monkeypatch.setattr(experiments, "RESULTS", tmp_path)
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    assert report.tables("permuted_mnist") == "Not run yet."
    for body, test in (("thalnet", 0.975), ("gru", 0.97)):
        for k, name in enumerate(experiments.trials("permuted_mnist", body)):
            write_scores(tmp_path / "search", name, 0.9 + k / 1000)
        for seed in range(20, 28):
            name = f"permuted_mnist_{body}-trial31-seed{seed}"
            write_scores(tmp_path / "confirm", name, 0.98, test + seed / 10_000)
        done = report.tables("permuted_mnist").splitlines()
        assert done[2].startswith("| ThalNet | 32 | 93.10 % | 50.00 % | learning_rate ")
        compared = [line for line in done if line.startswith("ThalNet − GRU")]
        assert bool(compared) == (body == "gru")
    assert compared == [
        "ThalNet − GRU on the test set: 0.50 %; ThalNet is **better**: 8 pairs, p = 0.007812."
    ]
    assert "| permuted_mnist_gru-trial31 | 8 | 100 | 98.00 | 97.23 [97.22, 97.25] |" in done
