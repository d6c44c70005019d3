"""Hyperparameter search."""

import json

import pytest
from table_fixtures import task_entry, write_record

from benchmarks import tuning
from benchmarks.launch import arguments


def test_trials_are_ranked_on_validation_alone(tmp_path):
    for number, (validation, test) in enumerate([(0.5, 0.9), (0.7, 0.2), (0.6, 0.3), (0.7, 0.1)]):
        tasks = {"toy": task_entry(test, validation=validation)}
        config = {"task": {"name": "toy"}, "train": {"seed": 102}}
        write_record(tmp_path / f"trial_a-{number}.json", config, tasks)
    (tmp_path / "trial_a-4.json").write_text(json.dumps({"config": config, "failed": "diverged"}))
    settings = [{"x": str(k)} for k in range(6)]  # the last one is not there yet
    assert tuning.ranked_trials(tmp_path, "a", settings) == [1, 3, 2, 0]
    assert tuning.best_setting(tmp_path, "a", settings) == {"x": "1"}
    assert tuning.best_if_complete(tmp_path, "a", settings) == []
    assert tuning.best_if_complete(tmp_path, "a", settings[:5]) == [{"x": "1"}]
    with pytest.raises(SystemExit, match="no trial of b has succeeded"):
        tuning.best_setting(tmp_path, "b", settings)


def test_trials_of_several_tasks_are_ranked_by_normalized_scores(tmp_path):
    config = {"tasks": {"a": {"name": "toy"}, "b": {"name": "toy"}}, "train": {"seed": 102}}
    # of guessing among 10 classes: accuracy 0.1, bits per character log2(10) = 3.32
    for number, (accuracy, bits) in enumerate([(0.55, 2.4914), (0.7, 3.0), (0.4, 2.0)]):
        text = task_entry(1.0, "bits_per_character", validation=bits)
        tasks = {"a": task_entry(0.5, validation=accuracy), "b": text}
        write_record(tmp_path / f"trial_a-{number}.json", config, tasks)
    # means of 0.5 and 0.25, of 0.667 and 0.097, of 0.333 and 0.398
    assert tuning.ranked_trials(tmp_path, "a", [{}] * 3) == [1, 0, 2]


def test_a_trial_has_the_trial_seed_and_the_flags_of_its_setting():
    jobs = tuning.trial_jobs("a", [{"x": "1"}, {}], lambda seed, f: [f"{seed}", *arguments(f)])
    assert jobs == {"trial_a-0": ["102", "--x", "1"], "trial_a-1": ["102"]}
