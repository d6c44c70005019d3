"""Best weights, early stopping and divergence, for metrics and losses of any kind."""

import json
import math
from contextlib import closing

import pytest
import torch
from page_parts import panels
from toy_tasks import toy

from thalnet_mtl.config.load import with_value
from thalnet_mtl.console import Console
from thalnet_mtl.errors import UserError
from thalnet_mtl.metrics.metric import Metric
from thalnet_mtl.registry import register
from thalnet_mtl.report.html import write
from thalnet_mtl.runs.directory import RunDirectory
from thalnet_mtl.runs.records import read_run
from thalnet_mtl.tasks.evaluation import guess_scores
from thalnet_mtl.tasks.sequences import SequenceTask
from thalnet_mtl.training.mean_losses import loss_limit
from thalnet_mtl.training.monitor import Monitor
from thalnet_mtl.training.setup import set_up
from thalnet_mtl.training.stacked import train_stacked
from thalnet_mtl.training.trainer import train


def numbers_task(**options):
    """The mean of the first column, in a unit that ``scale`` sets; every tenth is missing."""
    scale, offset = options.pop("scale", 1.0), options.pop("offset", 0.0)
    xs = torch.rand(160, 4, 3, generator=torch.Generator().manual_seed(0))
    ys = scale * xs[:, :, :1].mean(1) + offset
    ys[::10] = torch.nan
    parts = {"train": slice(0, 80), "validation": slice(80, 120), "test": slice(120, 160)}
    splits = {name: (xs[part], ys[part]) for name, part in parts.items()}
    return SequenceTask("numbers", splits, target="numbers", **options)


@register("task", "toy_numbers")
def toy_numbers(scale: float = 1.0, offset: float = 0.0) -> SequenceTask:
    return numbers_task(scale=scale, offset=offset, metrics=("mae", "r2", "rmse"))


@register("task", "toy_classes")
def toy_classes(one_class: str = "") -> SequenceTask:
    xs = torch.rand(150, 4, 3, generator=torch.Generator().manual_seed(0))
    ys = (xs[:, 0, 0] > 0.7).long()
    parts = {"train": slice(0, 60), "validation": slice(60, 110), "test": slice(110, 150)}
    splits = {name: (xs[part], ys[part].clone()) for name, part in parts.items()}
    if one_class:
        splits[one_class][1][:] = 1
    return SequenceTask("classes", splits)


@register("task", "toy_still")
def toy_still() -> SequenceTask:
    """Numbers whose validation part is the mean of the training part."""
    xs, ys = torch.rand(40, 4, 3), torch.tensor([[1.0], [3.0]]).repeat(20, 1)
    splits = dict.fromkeys(("train", "test"), (xs, ys)) | {"validation": (xs, ys * 0 + 2)}
    return SequenceTask("still", splits, target="numbers", metrics=("mae",))


def config(*metrics, task="toy_classes", **options):
    entry = {"name": task, **options} | ({"metrics": list(metrics)} if metrics else {})
    return toy(task=entry, train={"steps": 20}, evaluate={"every": 10})


@pytest.fixture
def monitor(tmp_path, monkeypatch):
    """A monitor of two tasks, for which scores are given by hand."""
    tasks = {"a": {"name": "toy_classes"}, "b": {"name": "toy_numbers"}}
    run = set_up(toy(tasks=tasks), lambda name: None)
    given = {}
    guesses = {"a": {"accuracy": 0.7, "loss": 0.6}, "b": {"mae": 2.0, "loss": 1.0}}
    monkeypatch.setattr(run, "score", lambda task, split: given[task] | {"loss": 0.0, "count": 1})
    monkeypatch.setattr(run, "guess", lambda task, split: guesses[task])
    with closing(RunDirectory(tmp_path / "run", run.config)) as directory:
        monitor = Monitor(run, directory, Console())
        monitor.given = given
        yield monitor


def test_the_best_weights_have_the_best_mean_of_scores_relative_to_guessing(monitor):
    run = monitor.run
    best = []
    for step, (accuracy, mae) in enumerate([(0.7, 2.0), (0.85, 1.5), (0.97, 2.0), (0.7, 0.8)], 1):
        run.state.step = step
        monitor.given |= {"a": {"accuracy": accuracy}, "b": {"mae": mae, "r2": 0.0, "rmse": mae}}
        monitor.validate()
        best.append((run.state.scores.best_step, run.state.scores.best))
    # (0 + 0) / 2; (0.15/0.3 + 0.5/2) / 2; (0.9 + 0) / 2; (0 + 0.6) / 2
    assert [step for step, _ in best] == [1, 2, 3, 3]
    assert [score for _, score in best] == pytest.approx([0, 0.375, 0.45, 0.45])
    by_task = run.state.scores.best_by_task
    assert (by_task["a"]["step"], by_task["a"]["value"]) == (3, 0.97)
    assert (by_task["b"]["step"], by_task["b"]["value"]) == (4, 0.8)  # lower is better


def test_a_score_that_is_not_a_number_is_replaced_by_the_first_that_is(monitor):
    run = monitor.run
    for step, mae in enumerate([math.nan, 3.0, math.nan, 2.5], 1):
        run.state.step = step
        monitor.given |= {"a": {"accuracy": 0.7}, "b": {"mae": mae, "r2": 0.0, "rmse": mae}}
        monitor.validate()
    assert run.state.scores.best_step == 4
    assert run.state.scores.best_by_task["b"]["value"] == 2.5


def test_patience_counts_validations_without_a_lower_error(monitor):
    run, since = monitor.run, []
    for step, mae in enumerate([1.0, 1.5, 0.5, 0.6, 0.7], 1):
        run.state.step = step
        run.state.batches_seen = {"a": step, "b": step}
        monitor.given |= {"a": {"accuracy": 0.7}, "b": {"mae": mae, "r2": 0.0, "rmse": mae}}
        monitor.validate()
        since.append(run.state.scores.validations_without_improvement("b"))
    assert since == [0, 1, 0, 1, 2]


def test_a_regression_is_trained_scored_and_read_again(tmp_path):
    result = train(config(task="toy_numbers"), tmp_path)
    content = json.loads((tmp_path / "result.json").read_text())["tasks"]["toy_numbers"]
    assert content["metric"] == "mae" and [m["name"] for m in content["metrics"]] == [
        "mae", "r2", "rmse"
    ]  # fmt: skip
    assert set(content["test"]) == {"loss", "mae", "r2", "rmse", "count"}
    assert content["test"]["count"] == 36
    assert content["test"]["rmse"] == pytest.approx(math.sqrt(content["test"]["loss"]), rel=1e-6)
    guess = guess_scores(numbers_task(metrics=("mae", "r2", "rmse")).load("cpu"), "test")
    assert content["guess"]["test"] == pytest.approx(guess)
    run = read_run(tmp_path)
    assert run.result == result and run.curve("toy_numbers", "validation", "r2").shape == (2, 3)
    validation = dict(run.curve("toy_numbers", "validation", "mae")[:, [0, 2]])
    assert result.best_step == min(validation, key=validation.__getitem__)


def test_an_unfinished_run_knows_its_metrics(tmp_path):
    train(config(task="toy_numbers"), tmp_path)
    expected = read_run(tmp_path).records[0].metrics
    (tmp_path / "result.json").unlink()
    assert tuple(read_run(tmp_path).records[0].metrics) == tuple(expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (config("auroc", one_class="test"), "task 'toy_classes', test: auroc: all targets are of"),
        (config("accuracy", "auroc", one_class="validation"), "validation: auroc: all targets"),
        (
            config("accuracy", one_class="train"),
            "all training targets are 1",
        ),
        (
            config("mae", "rmse", task="toy_still"),
            "validation: the best constant answer already "
            "has the perfect mae, 0.000. Use another main metric",
        ),
        (config("mae"), "metric 'mae' is for targets of kind numbers, not class"),
        (config("calibration_error", "accuracy"), "'calibration_error' cannot be the main metric"),
        (config("top_k_accuracy"), r"top_k_accuracy: k = 5 must lie in 1 … 1"),
    ],
)
def test_a_metric_that_cannot_be_used_is_refused_before_training(settings, message, tmp_path):
    with pytest.raises(UserError, match=message):
        train(settings, tmp_path / "run")
    assert (
        not (tmp_path / "run" / "metrics.jsonl").exists()
        or not (tmp_path / "run" / "metrics.jsonl").read_text()
    )


def test_a_metric_that_a_task_has_without_computing_it_is_refused_before_training(tmp_path):
    class Mine(SequenceTask):
        metric = Metric("toy_mine", True, 1.0)

    xs, ys = torch.rand(20, 3, 2), torch.arange(20) % 2
    task = Mine("mine", dict.fromkeys(("train", "validation", "test"), (xs, ys)))
    with pytest.raises(
        UserError, match=r"'mine': nothing computes its metric 'toy_mine'. Register"
    ):
        train(toy(task={"name": "mine"}), tmp_path / "run", tasks=[task])


def test_the_limit_of_the_loss_follows_guessing_and_the_untrained_network():
    run = set_up(config(), lambda name: None)
    guess = run.guess("toy_classes", "validation")["loss"]
    assert loss_limit(run, "toy_classes") == pytest.approx(guess + 100)  # guess is below 1
    run.state.scores.untrained = {"toy_classes": {"loss": 5.0}}
    assert loss_limit(run, "toy_classes") == pytest.approx(guess + 500)
    large = set_up(config(task="toy_numbers", scale=1e4), lambda name: None)
    guess = large.guess("toy_numbers", "validation")["loss"]
    assert guess > 1e4 and loss_limit(large, "toy_numbers") == pytest.approx(101 * guess)


def test_small_targets_do_not_look_like_divergence(tmp_path):
    result = train(config(task="toy_numbers", scale=1e-4), tmp_path)
    assert result.steps == 20


def test_replicas_show_the_mean_and_the_range_of_every_metric(tmp_path, capsys):
    settings = config(task="toy_numbers")
    configs = {
        tmp_path / str(seed): with_value(settings, "train.seed", seed, "test") for seed in (0, 1)
    }
    train_stacked(configs, Console())
    out = capsys.readouterr().out
    runs = [read_run(folder) for folder in configs]
    for metric in runs[0].records[0].metrics:
        values = [run.curve("toy_numbers", "validation", metric.name)[0, 2] for run in runs]
        mean, least, most = map(metric.format, (sum(values) / 2, min(values), max(values)))
        line = f"validation {metric.name} {mean} ({least} to {most} of 2 seeds)"
        assert f"step 10  {line}" in out
    alone = train(settings, tmp_path / "alone")
    found = runs[0].result.tasks["toy_numbers"].scores["test"].values
    assert found == pytest.approx(alone.tasks["toy_numbers"].scores["test"].values, rel=1e-4)


def test_a_stream_of_two_metrics_is_trained_and_drawn(tmp_path):
    tasks = {
        "a": {"name": "toy_classes", "metrics": ["f1", "accuracy"]},
        "b": {"name": "toy_numbers"},
    }
    stream = [{"tasks": ["a"], "steps": 10}, {"tasks": ["b"], "steps": 10}]
    result = train(toy(tasks=tasks, stream=stream, evaluate={"every": 5}), tmp_path)
    last = result.continual.scores[-1]
    assert last == [result.tasks["a"].scores["test"].values["f1"], result.tasks["b"].test]
    normalized = [
        task.metrics[0].normalized_score(score, task.guess_score("test"))
        for score, task in zip(last, result.tasks.values(), strict=True)
    ]
    acc = result.continual.measures["average_accuracy"].mean
    assert acc == pytest.approx(sum(normalized) / 2)
    page = write([tmp_path], tmp_path / "r.html").read_text()
    assert "the tasks differ in their metric, so this is a mean of normalized scores" in page
    assert "F1 score, higher is better" in page and len(panels(page, "matrix")) == 1
