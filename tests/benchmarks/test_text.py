"""The text part of the quality benchmark: its trials, their selection, its tables."""

import pytest
import torch
from table_fixtures import task_entry, write_record

from benchmarks.quality import text_experiments as text
from benchmarks.quality import text_report
from thalnet_mtl.config.load import load_configs
from thalnet_mtl.models.size import count_parameters
from thalnet_mtl.training.setup import make_network, make_tasks


def test_the_sizes_of_large_networks_are_those_of_the_configs():
    files = {"thalnet": "benchmarks/quality/text8.yaml", "gru": "paper/text8_gru"}
    for body, config in files.items():
        settings = load_configs([config])[""]
        with torch.device("meta"):
            network = make_network(settings, make_tasks(settings))
            assert f"{count_parameters(network):,}" == text_report.LARGE[body]


@pytest.mark.parametrize("trials", text.ROUNDS, ids=lambda trials: trials.name)
def test_both_bodies_have_as_many_trials_at_the_same_rates(trials):
    jobs = trials.search()
    by_body = [[words for name, words in jobs.items() if name.startswith(b)] for b in text.BODIES]
    rates = [[w[w.index("--train.learning_rate") + 1] for w in words] for words in by_body]
    assert rates[0] == rates[1] and len(rates[0]) >= 8
    assert len({" ".join(words) for words in jobs.values()}) == 2 * len(rates[0])


def test_the_best_trial_on_text_is_trained_and_fewer_bits_are_better(tmp_path, monkeypatch):
    monkeypatch.setattr(text, "RESULTS", tmp_path)
    first, trials = (
        text.Round(name, text.SHAPES, ("0.1", "0.2"), (5, 6)) for name in ("old", "new")
    )
    monkeypatch.setattr(text, "ROUNDS", [first, trials])

    def put(search, part, name, validation, test):
        config = {"task": {"name": "text8"}, "train": {"seed": int(name.rpartition("-seed")[2])}}
        entry = task_entry(test, "bits_per_character", validation=validation)
        path = search.folder(part) / f"{name}.json"
        write_record(path, config, {"text8": entry}, command=name)

    for name in trials.search():  # the third has the best seed, the fourth the best mean
        _, k, seed = name.split("-")
        bits = {("2", "seed5"): 1.0}.get((k, seed), 2.0 if k == "3" else 4.0)
        put(trials, "search", name, bits, bits)
    assert [*trials.best([7])] == ["thalnet-seed7", "gru-seed7"]
    assert trials.best([7])["gru-seed7"] == [
        *("benchmarks/quality/text.yaml", "--model.body", "gru", "--train.seed", "7"),
        *("--model.layers", "2", "--train.learning_rate", "0.2"),
    ]
    assert text_report.comparison_cells() == []
    assert "| GRU | 0 | – | – | – |" in text_report.small_table()
    for seed in range(6):
        put(first, "best", f"gru-seed{seed}", 2.5 + seed / 8, 2.5 + seed / 8)
        put(trials, "best", f"thalnet-seed{seed}", 1.5 + seed / 8, 1.5 + seed / 8)
        put(trials, "best", f"gru-seed{seed}", 3, 0.1)  # worse on validation: not selected
        put(first, "best", f"thalnet-seed{seed % 5}", 0.1, 0.1)  # five only: not compared
    put(trials, "best", "thalnet-seed6", 1, 1)  # without its pair
    assert text_report.comparison_cells()[2:] == [
        "6",
        "-1.000",
        "**better**: 6 pairs, p = 0.03125.",
    ]
    assert text_report.small_table().endswith("| 6 | -1.000 | **better**: 6 pairs, p = 0.03125. |")
    assert (
        "| ThalNet of round 2, test, bits | GRU of round 1, test, bits |"
        in text_report.small_table()
    )
    assert "| GRU | 2 layers | 0.2 | 2 | 100 | 2.000 | 2.000 |" in text_report.small_table()
