"""Hyperparameter search."""

import json

import pytest

from benchmarks import tuning
from benchmarks.launch import arguments


def test_a_trial_is_selected_on_validation_alone(tmp_path):
    for number, (validation, test) in enumerate([(0.5, 0.9), (0.7, 0.2), (0.6, 0.3)]):
        scores = {"metric": "accuracy"} | {
            split: {"accuracy": x} for split, x in (("validation", validation), ("test", test))
        }
        record = {"result": {"tasks": {"cifar10_rows": scores}}}
        (tmp_path / f"trial_a-{number}.json").write_text(json.dumps(record))
    (tmp_path / "trial_a-3.json").write_text(json.dumps({"failed": "diverged"}))
    settings = [{"x": str(k)} for k in range(4)]
    assert tuning.best_setting(tmp_path, "a", settings) == {"x": "1"}
    with pytest.raises(SystemExit, match="no trial of b has succeeded"):
        tuning.best_setting(tmp_path, "b", settings)


def test_a_trial_has_the_trial_seed_and_the_flags_of_its_setting():
    jobs = tuning.trial_jobs("a", [{"x": "1"}, {}], lambda seed, f: [f"{seed}", *arguments(f)])
    assert jobs == {"trial_a-0": ["102", "--x", "1"], "trial_a-1": ["102"]}


def test_a_normalized_score_is_0_for_guessing_and_1_for_perfection():
    tasks = {
        "cifar10_rows": {"metric": "accuracy", "validation": {"accuracy": 0.55}},
        "text8": {"metric": "bits_per_character", "validation": {"bits_per_character": 2.0}},
    }
    assert tuning.normalized_scores({"result": {"tasks": tasks}}) == pytest.approx([0.5, 0.75])
