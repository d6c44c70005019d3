"""Seeds side by side are what each is alone."""

import json
from dataclasses import replace

import pytest
import torch
from toys import GROWTH, JOINT, toy

from thalnet_mtl import cli, stacked
from thalnet_mtl import train as training
from thalnet_mtl.config import RunError, UserError
from thalnet_mtl.tracking import Screen

SEEDS = (0, 1, 2)


def configs(folder, seeds=SEEDS, **sections):
    config = toy(**sections)
    return {
        folder / f"seed{seed}": replace(config, train=replace(config.train, seed=seed))
        for seed in seeds
    }


def logged(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {(m["step"], m["task"], m["split"], m["metric"]): m["value"] for m in lines}


def tree(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def assert_same_runs(one, other, but=("tensorboard",)):
    assert {n for n in tree(one) if but[0] not in n} == {n for n in tree(other) if but[0] not in n}
    assert (one / "config.yaml").read_text() == (other / "config.yaml").read_text()
    mine, others = logged(one), logged(other)
    assert mine.keys() == others.keys()
    for key, value in mine.items():
        # Rounding of single precision grows a little with every step.
        assert value == pytest.approx(others[key], rel=2e-3, abs=2e-3), key
    first = torch.load(one / "checkpoint" / "last.pt")
    second = torch.load(other / "checkpoint" / "last.pt")
    assert first.keys() == second.keys()
    for name, weight in second["network"].items():
        torch.testing.assert_close(first["network"][name], weight, rtol=1e-3, atol=1e-3)
    moments = first["optimizer"]["state"]
    assert moments.keys() == second["optimizer"]["state"].keys()
    for name, own in second["optimizer"]["state"].items():
        assert own.keys() == moments[name].keys()
        assert all(moments[name][key].shape == value.shape for key, value in own.items())


def both(tmp_path, **sections):
    """The same runs stacked and alone."""
    for folder, config in configs(tmp_path / "alone", **sections).items():
        training.train(config, folder)
    stacked.train_stacked(configs(tmp_path / "stacked", **sections), Screen())
    for seed in SEEDS:
        assert_same_runs(tmp_path / "stacked" / f"seed{seed}", tmp_path / "alone" / f"seed{seed}")


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "rmsprop", "sgd"])
def test_stacked_seeds_go_the_way_of_each_alone(tmp_path, optimizer):
    options = {"steps": 20, "optimizer": optimizer, "clip": 0.5, "learning_rate": 0.003}
    options |= {"weight_decay": 0.01, "schedule": "cosine", "warmup": 3}
    both(tmp_path, train=options)


@pytest.mark.parametrize("reading", ["weight_norm", "fast_softmax"])
def test_several_tasks_and_carried_states_are_stacked_too(tmp_path, reading):
    both(tmp_path, **JOINT, model={"reading": reading, "features": 6}, train={"steps": 20})


def test_without_the_kernel_they_are_stacked_in_pytorch(tmp_path):
    both(tmp_path, train={"steps": 10, "ops": "batched"})


def test_a_stacked_run_that_was_stopped_goes_on_stacked_or_alone(tmp_path, monkeypatch):
    whole, part = tmp_path / "whole", tmp_path / "part"
    options = {"steps": 24}
    stacked.train_stacked(configs(whole, train=options), Screen())
    real = stacked.Stack.step

    def failing(self, requests):
        if self.runs[0].step == 17:
            raise SystemExit
        return real(self, requests)

    monkeypatch.setattr(stacked.Stack, "step", failing)
    with pytest.raises(SystemExit):
        stacked.train_stacked(configs(part, train=options), Screen())
    monkeypatch.setattr(stacked.Stack, "step", real)
    alone, *others = configs(part, train=options).items()
    training.train(alone[1], alone[0])
    stacked.train_stacked(dict(others), Screen())
    for seed in SEEDS:
        assert_same_runs(part / f"seed{seed}", whole / f"seed{seed}")
    before = tree(part)
    stacked.train_stacked(configs(part, train=options), Screen())  # nothing is left to do
    assert tree(part) == before


def test_a_seed_that_was_saved_earlier_catches_up(tmp_path, monkeypatch):
    options, look = {"steps": 24}, {"checkpoint_every": 6, "every": 6}
    stacked.train_stacked(configs(tmp_path / "whole", train=options, evaluate=look), Screen())
    runs = configs(tmp_path / "part", train=options, evaluate=look)

    real = training.train_step
    for at, (folder, config) in zip((8, 20, 14), runs.items(), strict=True):

        def failing(run, *rest, at=at):
            if run.step == at:
                raise SystemExit
            return real(run, *rest)

        monkeypatch.setattr(training, "train_step", failing)
        with pytest.raises(SystemExit):
            training.train(config, folder)
    monkeypatch.setattr(training, "train_step", real)
    stacked.train_stacked(runs, Screen())
    for seed in SEEDS:
        assert_same_runs(tmp_path / "part" / f"seed{seed}", tmp_path / "whole" / f"seed{seed}")


def test_a_seed_that_diverges_does_not_take_the_others_down(tmp_path, monkeypatch, capsys):
    real = stacked.Stack._losses

    def poisoned(self, task, batches):
        losses = real(self, task, batches)
        if self.runs[1].step == 7:
            losses = losses * torch.tensor([1.0, torch.nan, 1.0])
        return losses

    monkeypatch.setattr(stacked.Stack, "_losses", poisoned)
    runs = configs(tmp_path, train={"steps": 20})
    with pytest.raises(
        RunError, match=r"1 of 3 seeds failed, the others are done\. seed1: .*step 8"
    ):
        stacked.train_stacked(runs, Screen())
    assert [(folder / "result.json").exists() for folder in runs] == [True, False, True]
    assert "The other seeds go on" in capsys.readouterr().out
    training.train(list(configs(tmp_path / "own", train={"steps": 20}).values())[2], tmp_path / "x")
    assert_same_runs(tmp_path / "seed2", tmp_path / "x")


@pytest.mark.parametrize(
    "sections",
    [
        {"model": {"body": "gru"}},
        {"train": {"combine": "uncertainty"}, **JOINT},
        {"train": {"draw": 1.0}, **JOINT},
        {"train": {"patience": 1}},
        {"changes": GROWTH, **JOINT},
        {"train": {"ops": "fused"}},
    ],
)
def test_what_cannot_be_stacked_is_refused_in_one_line(tmp_path, sections):
    with pytest.raises(
        UserError, match=r"^--stacked: .* cannot be stacked; leave --stacked away\.$"
    ):
        stacked.train_stacked(configs(tmp_path, **sections), Screen())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "1", "1"], "every seed once"),
        (["--stacked"], "--stacked needs --seeds"),
        (["--seeds", "1", "--train.seed", "2"], "give one of them"),
        (["--seeds", "-1"], "must be between 0"),
    ],
)
def test_seeds_that_make_no_sense_are_refused(arguments, message, capsys):
    assert cli.main(["train", "digits", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_the_command_line_trains_seeds_one_by_one_or_stacked(tmp_path, capsys):
    short = [
        "train",
        "digits",
        "--train.steps",
        "6",
        "--evaluate.batches",
        "1",
        "--seeds",
        "3",
        "5",
    ]
    for name, more in (("one", []), ("all", ["--stacked"])):
        assert cli.main([*short, *more, "--out", str(tmp_path / name)]) == 0
    assert "seed3, seed5" in capsys.readouterr().out
    for seed in (3, 5):
        assert_same_runs(tmp_path / "one" / f"seed{seed}", tmp_path / "all" / f"seed{seed}")
    assert (tmp_path / "all" / "report.html").exists()
