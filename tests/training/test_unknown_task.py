"""Where nobody says the task, inputs choose the path: rightly, repeatably, and as reported."""

import kill_and_resume
import pytest
import torch
from random_networks import assert_same
from run_fixtures import interrupt_at
from toy_tasks import PER_TASK, toy

from thalnet_mtl import SequenceTask, TextTask, load_config, load_run, train
from thalnet_mtl.cli import main
from thalnet_mtl.console import Console
from thalnet_mtl.errors import UserError
from thalnet_mtl.models.path_choice import PathChooser
from thalnet_mtl.runs.results import RunResult
from thalnet_mtl.tasks.evaluation import Evaluation
from thalnet_mtl.tasks.targets import target_of
from thalnet_mtl.training.checkpoint import load_checkpoint
from thalnet_mtl.training.setup import set_up
from thalnet_mtl.training.unknown_task import fit_paths

DIGITS = "digits_rows"
UPRIGHT = {"name": DIGITS}
SMALL = {"name": "variant", "of": DIGITS, "train_per_class": 20}
OTHER_LABELS = SMALL | {"label_order": 7, "sample_seed": 1}
OTHER_COLUMNS = SMALL | {"input_order": 3}


def stream_of(*tasks, unknown=True, **sections):
    named = {f"t{k}": task | {"unknown": unknown} for k, task in enumerate(tasks, 1)}
    return toy(
        tasks=named,
        stream=[{"tasks": [name], "steps": 20} for name in named],
        growth=PER_TASK,
        evaluate={"batch": 100},
        **sections,
    )


def test_clearly_different_inputs_choose_their_own_path(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")  # of a table
    folder = tmp_path / "run"
    result = train(stream_of(UPRIGHT, OTHER_COLUMNS), folder, Console())
    for name, task in result.tasks.items():
        assert task.unknown_task.chosen == {"t1": name == "t1", "t2": name == "t2"}
        assert task.unknown_task.own_batches == 1
        assert task.unknown_task.value == task.test
    mean = (result.tasks["t1"].test + result.tasks["t2"].test) / 2
    line = (
        f"task unknown: mean accuracy {100 * mean:.2f} % (known: {100 * mean:.2f} %); 100.0 % of "
        f"sequences and 100.0 % of batches choose their own path\n"
    )
    assert line in capsys.readouterr().out
    assert main(["compare", str(folder)]) == 0
    assert "(own path 100.0 %)" in capsys.readouterr().out
    assert main(["report", str(folder)]) == 0
    assert "(own path 100.0 %)" in (folder / "report.html").read_text()
    assert RunResult.load(folder).to_json() == result.to_json()
    assert "  model/paths.safetensors\n" in (folder / "SHA256SUMS").read_text()
    load_run(folder).network.save(folder / "model")  # replaces the saved model with all its files
    assert not (folder / "model" / "paths.safetensors").exists()


def test_inputs_that_tell_no_task_are_reported_with_what_they_choose(tmp_path, capsys):
    config = stream_of(UPRIGHT, SMALL, OTHER_LABELS)
    result = train(config, tmp_path, Console())
    run, chooser = load_run(tmp_path), PathChooser.load(tmp_path)
    for name, task in result.tasks.items():
        source = run.task(name).load("cpu")
        (batch,) = source.iterate("test", 1_000, 1)
        chosen = chooser.choose(batch.xs)
        answers = {path: run.network(path, batch.xs)[0].argmax(1) for path in result.tasks}
        same = ("t1", "t2") if name != "t3" else ("t3",)  # digits are digits
        right = [
            path in same and bool(answers[path][k] == batch.ys[k]) for k, path in enumerate(chosen)
        ]
        assert task.unknown_task.value == pytest.approx(sum(right) / len(right))
        shares = {path: chosen.count(path) / len(chosen) for path in result.tasks}
        assert task.unknown_task.chosen == shares
        assert 0 < task.unknown_task.own < 0.9
    line = capsys.readouterr().out.partition("paths confused by their inputs: ")[2]
    assert "t3 as t1" in line and "t1 as t3" in line


def test_a_run_goes_on_to_the_same_choices(tmp_path, monkeypatch):
    config = stream_of(UPRIGHT, SMALL, OTHER_COLUMNS)
    train(config, tmp_path / "whole")
    for step in (20, 47):
        with monkeypatch.context() as patch, pytest.raises(SystemExit):
            interrupt_at(step, patch)
            train(config, tmp_path / "cut")
    train(config, tmp_path / "cut")
    assert kill_and_resume.differences(tmp_path / "whole", tmp_path / "cut") == []
    whole, cut = (
        load_checkpoint(tmp_path / name / "checkpoint" / "last.pt")["paths"]
        for name in ("whole", "cut")
    )
    assert {key.split(".")[1] for key in whole} == {"t1", "t2", "t3"}
    assert_same(cut, whole)
    chooser = PathChooser.load(tmp_path / "cut")
    assert chooser.tasks == ["t1", "t2", "t3"]
    assert_same(chooser.state_dict(), whole)


def test_a_fit_takes_up_to_a_thousand_different_sequences_chosen_by_the_seed(monkeypatch):
    fitted = []
    monkeypatch.setattr(PathChooser, "fit", lambda self, task, spec, xs, ends: fitted.append(xs))
    for seed in (1, 1, 2):
        run = set_up(stream_of(UPRIGHT, SMALL, train={"seed": seed}), fetch=print)
        fit_paths(run, ["t1"])  # of 1,297; the second task has no path yet
    fit_paths(run, ["t2"])
    assert [len(xs) for xs in fitted] == [1_000] * 3
    assert torch.equal(fitted[0], fitted[1]) and not torch.equal(fitted[0], fitted[2])
    assert len(fitted[0].unique(dim=0)) > 990


def test_training_is_the_same_with_and_without(tmp_path):
    for option in (False, True):
        train(stream_of(UPRIGHT, SMALL, unknown=option), tmp_path / str(option))
    parts = ("network", "optimizer", "rng", "scores")
    plain, scored = (
        load_checkpoint(tmp_path / str(option) / "checkpoint" / "last.pt")
        for option in (False, True)
    )
    assert_same({key: scored[key] for key in parts}, {key: plain[key] for key in parts})
    assert plain["paths"] == {}
    assert "unknown_task" not in RunResult.load(tmp_path / "False").tasks["t1"].to_json()


def text(name, period):
    def splits():
        noise = torch.randint(2, (3000,), generator=torch.Generator().manual_seed(period))
        tokens = ((torch.arange(3000) * period) % 5 + noise) % 6
        return {"train": tokens[:2000], "validation": tokens[2000:2500], "test": tokens[2500:]}

    return TextTask(name, splits, vocabulary=6)


def test_each_chunk_of_a_text_chooses_and_states_are_carried(tmp_path):
    tasks = [text("rising", 1), text("falling", 4)]
    config = toy(
        tasks={"rising": {"unknown": True}, "falling": {"unknown": True}},
        stream=[{"tasks": ["rising"]}, {"tasks": ["falling"]}],
        evaluate={"batch": 10},
        train={"steps": 20},
    )
    result = train(config, tmp_path, tasks=tasks)
    for task in result.tasks.values():
        assert task.unknown_task.own == 1
        assert task.unknown_task.value == task.test


@pytest.mark.parametrize("answer", ["labels", "numbers"])
def test_other_answers_than_classes_are_scored(answer, tmp_path):
    tasks = {
        "a": {"name": "toy_kinds", "answer": answer},
        "b": {"name": "toy_kinds", "answer": answer, "lengths": True, "unknown": True},
    }
    result = train(toy(tasks=tasks), tmp_path)
    assert result.tasks["a"].unknown_task is None
    assert set(result.tasks["b"].unknown_task.chosen) == {"a", "b"}


def test_wrong_answers_are_never_right():
    def score(target, metrics, ys, outputs):
        splits = {n: (torch.rand(len(ys), 2, 1), ys) for n in ("train", "validation", "test")}
        task = SequenceTask("task", splits, target=target, metrics=metrics).load("cpu")
        evaluation, (batch,) = Evaluation(task), task.iterate("test", 99, 1)
        evaluation.update(target_of(target).wrong(batch.ys, outputs), batch)
        return next(iter(evaluation.compute().values())), evaluation.compute()[metrics[0]]

    frequencies = torch.tensor([-3.0, -0.1, -3.0])
    assert score("class", ["accuracy"], torch.tensor([0, 1, 2, 1, -100]), frequencies)[1] == 0
    labels = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, torch.nan]])
    assert score("labels", ["f1"], labels, torch.zeros(2))[1] == 0
    numbers = torch.tensor([[1.0], [4.0]])
    assert score("numbers", ["mae"], numbers, torch.tensor([2.5]))[1] == 1.5


def test_a_joint_run_that_stops_early_is_scored(tmp_path):
    tasks = {"t1": UPRIGHT | {"unknown": True}, "t2": OTHER_COLUMNS}
    training = {"patience": 1, "learning_rate": 1e-12, "steps": 600}
    result = train(toy(tasks=tasks, train=training), tmp_path)
    assert result.steps < 600
    assert result.tasks["t1"].unknown_task.own == 1


@pytest.mark.parametrize(
    "others",
    [
        {},
        {"t2": OTHER_COLUMNS | {"head": "t1"}},
        {"t2": SMALL | {"steps_joined": 2}},
        {"t2": SMALL | {"head": "t1", "only_scored": True}},
    ],
)
def test_without_a_choice_of_paths_the_option_is_refused(others):
    config = load_config(tasks={"t1": UPRIGHT | {"unknown": True}, **others})
    with pytest.raises(UserError, match=r"tasks\.t1\.unknown: there is no path to choose"):
        set_up(config, fetch=print)


def test_inputs_that_are_scaled_by_task_are_refused(tmp_path):
    def task(name, factor):
        xs, ys = factor * torch.randn(60, 5, 3), torch.arange(60) % 2
        splits = dict.fromkeys(("train", "validation", "test"), (xs, ys))
        return SequenceTask(name, splits, standardize=True)

    config = toy(tasks={"a": {}, "b": {"unknown": True}})
    with pytest.raises(UserError, match=r"tasks\.b\.unknown: its inputs and those of .a. are sc"):
        train(config, tmp_path / "never", tasks=[task("a", 1), task("b", 100)])


def test_a_single_training_sequence_is_refused(tmp_path):
    def task(name, count):
        xs, ys = torch.rand(40, 5, 3), torch.arange(200).view(40, 5) % 2
        splits = {"train": (xs[:count], ys[:count]), "validation": (xs, ys), "test": (xs, ys)}
        return SequenceTask(name, splits)

    config = toy(tasks={"a": {"unknown": True}, "b": {}}, train={"batch": 1})
    with pytest.raises(UserError, match="task 'b' has a single training sequence"):
        train(config, tmp_path / "never", tasks=[task("a", 40), task("b", 1)])


def test_a_flag_that_is_no_truth_value_is_one_line_and_status_2(tmp_path, capsys):
    folder = str(tmp_path / "never")
    flags = ["--tasks.digits_rows.unknown", "maybe"]
    assert main(["train", "joint/digits", *flags, "--out", folder]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "tasks.digits_rows.unknown" in err
