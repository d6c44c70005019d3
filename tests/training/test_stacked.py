"""Seeds that are trained together end as each does alone."""

import json
import signal
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from disks import PowerCut
from random_networks import assert_same
from toy_tasks import JOINT, toy

from benchmarks.continual.strategy_table import KINDS
from thalnet_mtl import cli, load_config
from thalnet_mtl.console import Console
from thalnet_mtl.errors import Interrupted, RunError
from thalnet_mtl.models.readings.base import Reading
from thalnet_mtl.registry import register
from thalnet_mtl.training import cuda_graphs as graphs
from thalnet_mtl.training import stacked, step
from thalnet_mtl.training import trainer as training
from thalnet_mtl.training.loop import Trainer
from thalnet_mtl.training.stacked_step import StackedStep
from thalnet_mtl.training.step import TrainStep

SEEDS = (0, 1, 2)


@register("reading", "toy_fixed")
class ToyFixed(Reading):
    """Drawn with the seed, and never learned."""

    def __init__(self, *sizes, **options):
        super().__init__(*sizes, **options)
        self.register_buffer("fixed", torch.randn(self.context, self.center) / self.center)

    def weights(self, features=None):
        return self.fixed


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


def trained(folder):
    return torch.load(folder / "checkpoint" / "last.pt")


def assert_same_runs(one, other):
    """Equal but for rounding, which grows with every step, tenfold in some fifty.

    Some tens of steps in, 2e-7 of losses and scores and 2e-6 of weights were measured.
    """
    assert {n for n in tree(one) if "tensorboard" not in n} == {
        n for n in tree(other) if "tensorboard" not in n
    }
    assert (one / "config.yaml").read_text() == (other / "config.yaml").read_text()
    mine, others = logged(one), logged(other)
    assert mine.keys() == others.keys()
    for key, value in mine.items():
        assert value == pytest.approx(others[key], rel=1e-5), key
    results = [json.loads((folder / "result.json").read_text()) for folder in (one, other)]
    assert plain(results[0]) == plain(results[1])
    first, second = trained(one), trained(other)
    assert first.keys() == second.keys()
    for name, weight in (second["network"] | second["weighting"]).items():
        found = (first["network"] | first["weighting"])[name]
        torch.testing.assert_close(found, weight, rtol=1e-5, atol=2e-5)
    assert first["optimizer"]["groups"] == second["optimizer"]["groups"]
    moments = first["optimizer"]["state"]
    assert moments.keys() == second["optimizer"]["state"].keys()
    for name, own in second["optimizer"]["state"].items():
        assert own.keys() == moments[name].keys()
        for key, value in own.items():
            torch.testing.assert_close(moments[name][key], value, rtol=1e-3, atol=1e-5)


def plain(result):
    """All keys, and the values that rounding does not touch."""
    tasks = {name: one.keys() for name, one in result["tasks"].items()}
    same = {key: result[key] for key in ("body", "best_step", "steps", "parameters", "seed")}
    return result.keys(), tasks, same


def both(tmp_path, **sections):
    """The same runs stacked and alone."""
    for folder, config in configs(tmp_path / "alone", **sections).items():
        training.train(config, folder)
    stacked.train_stacked(configs(tmp_path / "stacked", **sections), Console())
    for seed in SEEDS:
        assert_same_runs(tmp_path / "stacked" / f"seed{seed}", tmp_path / "alone" / f"seed{seed}")


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "rmsprop", "sgd"])
def test_stacked_seeds_go_the_way_of_each_alone(tmp_path, optimizer):
    options = {"steps": 20, "optimizer": optimizer, "clip": 0.5, "learning_rate": 0.003}
    options |= {"weight_decay": 0.01, "schedule": "cosine", "warmup": 3}
    both(tmp_path, train=options)


@pytest.mark.parametrize("reading", ["weight_norm", "fast_softmax", "random"])
def test_several_tasks_and_carried_states_are_stacked_too(tmp_path, reading):
    both(tmp_path, **JOINT, model={"reading": reading, "features": 6}, train={"steps": 20})


def test_learned_weights_of_the_tasks_are_stacked_too(tmp_path):
    options = {"steps": 20, "combine": "uncertainty", "clip": 0.3, "weight_decay": 0.01}
    both(tmp_path, **JOINT, train=options)
    learned = [trained(tmp_path / "stacked" / f"seed{seed}")["weighting"] for seed in SEEDS]
    assert len({one["log_variance.toy_rows"].item() for one in learned}) == 3


def test_buffers_that_differ_by_seed_are_stacked_too(tmp_path):
    both(tmp_path, model={"reading": "toy_fixed"}, train={"steps": 20, "optimizer": "sgd"})


def test_seeds_that_stop_improving_end_at_a_step_of_their_own(tmp_path):
    look = {"every": 5, "log_every": 5}
    both(tmp_path, train={"steps": 60, "patience": 1}, evaluate=look)
    ends = {max(step for step, *_ in logged(tmp_path / "stacked" / f"seed{k}")) for k in SEEDS}
    assert len(ends) > 1 and min(ends) < 60


def test_without_the_kernel_they_are_stacked_in_pytorch(tmp_path):
    both(tmp_path, train={"steps": 10, "ops": "batched"})


@pytest.mark.parametrize("ops", ["cpp", "batched"])
def test_every_kind_of_target_is_stacked_with_unequal_lengths(tmp_path, ops):
    """Batches of the seeds differ in their longest sequence."""
    kinds = ["one class", "labels", "numbers at every step", "unequal lengths"]
    tasks = {KINDS[kind]: {} for kind in kinds}
    both(
        tmp_path, tasks=tasks, train={"steps": 10, "batch": 2, "ops": ops, "combine": "uncertainty"}
    )


def test_named_inputs_are_stacked(tmp_path):
    task = {"name": KINDS["named inputs"]}
    both(tmp_path, task=task, train={"steps": 10})


def test_a_stacked_run_that_was_stopped_goes_on_stacked_or_alone(tmp_path, monkeypatch):
    whole, part = tmp_path / "whole", tmp_path / "part"
    options = {"steps": 24}
    stacked.train_stacked(configs(whole, train=options), Console())
    real = StackedStep.step

    def failing(self, requests):
        if self.runs[0].step == 17:
            raise SystemExit
        return real(self, requests)

    monkeypatch.setattr(StackedStep, "step", failing)
    with pytest.raises(SystemExit):
        stacked.train_stacked(configs(part, train=options), Console())
    monkeypatch.setattr(StackedStep, "step", real)
    alone, *others = configs(part, train=options).items()
    training.train(alone[1], alone[0])
    stacked.train_stacked(dict(others), Console())
    for seed in SEEDS:
        assert_same_runs(part / f"seed{seed}", whole / f"seed{seed}")
    before = tree(part)
    stacked.train_stacked(configs(part, train=options), Console())  # nothing is left to do
    assert tree(part) == before


def test_a_seed_that_was_saved_earlier_catches_up(tmp_path, monkeypatch):
    options, look = {"steps": 24}, {"checkpoint_every": 6, "every": 6}
    stacked.train_stacked(configs(tmp_path / "whole", train=options, evaluate=look), Console())
    runs = configs(tmp_path / "part", train=options, evaluate=look)

    real = TrainStep.__call__
    for at, (folder, config) in zip((8, 20, 14), runs.items(), strict=True):

        def failing(self, inputs, at=at):
            if self.run.step == at:
                raise SystemExit
            return real(self, inputs)

        monkeypatch.setattr(TrainStep, "__call__", failing)
        with pytest.raises(SystemExit):
            training.train(config, folder)
    monkeypatch.setattr(TrainStep, "__call__", real)
    stacked.train_stacked(runs, Console())
    for seed in SEEDS:
        assert_same_runs(tmp_path / "part" / f"seed{seed}", tmp_path / "whole" / f"seed{seed}")


def test_seeds_that_were_killed_between_two_saves_catch_up_to_the_same_bits(tmp_path, monkeypatch):
    digits = load_config(
        "digits", train={"steps": 24, "batch": 20}, evaluate={"checkpoint_every": 6, "every": 12}
    )

    def runs(name):
        return {
            tmp_path / name / str(seed): replace(digits, train=replace(digits.train, seed=seed))
            for seed in SEEDS
        }

    stacked.train_stacked(runs("whole"), Console())
    real, saves = Trainer.save, []

    def killed(self):
        saves.append(self.run.step)
        if len(saves) == 8:  # of the first saves: three before training, three at step 6
            raise PowerCut
        real(self)

    with monkeypatch.context() as patch, pytest.raises(PowerCut):
        patch.setattr(Trainer, "save", killed)
        stacked.train_stacked(runs("part"), Console())
    assert saves[-3:] == [6, 12, 12]  # one seed is at step 12, the others at step 6
    stacked.train_stacked(runs("part"), Console())
    for whole, part in zip(runs("whole"), runs("part"), strict=True):
        whole, part = trained(whole), trained(part)
        for state in ("network", "optimizer"):
            assert_same(part[state], whole[state])


def test_a_stacked_run_stops_where_it_is_asked_to_and_goes_on(tmp_path, monkeypatch):
    whole, part = (configs(tmp_path / name, **JOINT) for name in ("whole", "part"))
    stacked.train_stacked(whole, Console())
    real = StackedStep.step

    def stopping(self, requests):
        if self.runs[0].step == 32:
            signal.raise_signal(signal.SIGINT)
        return real(self, requests)

    with monkeypatch.context() as patch:
        patch.setattr(StackedStep, "step", stopping)
        with pytest.raises(Interrupted, match="saved at step 33 of 60"):
            stacked.train_stacked(part, Console())
    assert [trained(folder)["step"] for folder in part] == [33, 33, 33]
    stacked.train_stacked(part, Console())
    for one, other in zip(part, whole, strict=True):
        assert_same_runs(one, other)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_seed_that_diverges_does_not_take_the_others_down(tmp_path, monkeypatch, capsys, which):
    real = StackedStep.step

    def poisoned(self, requests):
        losses = real(self, requests)
        if self.runs[0].step == 7:
            losses[which] = losses[which] * torch.nan
        return losses

    # The rate changes with every step, and the text begins anew after the 28th.
    sections = JOINT | {"train": {"steps": 36, "schedule": "cosine"}}
    runs, alone = (configs(tmp_path / name, **sections) for name in ("stacked", "alone"))
    monkeypatch.setattr(StackedStep, "step", poisoned)
    match = rf"1 of 3 seeds failed, the others are done\. seed{which}: .*step 8"
    with pytest.raises(RunError, match=match):
        stacked.train_stacked(runs, Console())
    shown = capsys.readouterr().out
    assert f"seed{which}  loss nan at step 8" in shown and "2 seeds side by side" in shown
    for seed, (folder, (own, config)) in enumerate(zip(runs, alone.items(), strict=True)):
        assert (folder / "result.json").exists() == (seed != which)
        if seed != which:
            training.train(config, own)
            assert_same_runs(folder, own)


def test_the_screen_shows_means_of_losses_and_ranges_of_scores(tmp_path, capsys):
    runs = configs(tmp_path, train={"steps": 20})
    stacked.train_stacked(runs, Console())
    shown = capsys.readouterr().out
    losses = [logged(folder)[8, "toy_rows", "train", "loss"] for folder in runs]
    assert f"3 seeds  step 8/20  loss {sum(losses) / 3:.4f}" in shown
    scores = [100 * logged(folder)[20, "toy_rows", "validation", "accuracy"] for folder in runs]
    between = f"({min(scores):.2f} % to {max(scores):.2f} % of 3 seeds)"
    line = f"  step 20  validation accuracy {sum(scores) / 3:.2f} % {between}"
    assert shown.splitlines().count(line) == 1


def test_the_command_line_trains_seeds_one_by_one_or_stacked(tmp_path, capsys):
    short = ["train", "digits", "--train.steps", "6", "--evaluate.batches", "1"]
    for name, more in (("one", []), ("all", ["--stacked"])):
        assert cli.main([*short, "--seeds", "3", "5", *more, "--out", str(tmp_path / name)]) == 0
    assert "seed3, seed5" in capsys.readouterr().out
    for seed in (3, 5):
        assert_same_runs(tmp_path / "one" / f"seed{seed}", tmp_path / "all" / f"seed{seed}")
    assert (tmp_path / "all" / "report.html").exists()


def test_each_of_several_runs_is_trained_with_each_seed(tmp_path):
    (tmp_path / "two.yaml").write_text(
        "runs: {ff: {model: {module: ff}}, gru: {model: {module: gru}}}"
    )
    short = ["train", "digits", str(tmp_path / "two.yaml"), "--train.steps", "6"]
    short += ["--evaluate.batches", "1", "--seeds", "3", "5"]
    for name, more in (("one", []), ("all", ["--stacked"])):
        assert cli.main([*short, *more, "--out", str(tmp_path / name)]) == 0
    names = {f"{run}-seed{seed}" for run in ("ff", "gru") for seed in (3, 5)}
    for name in names:
        assert_same_runs(tmp_path / "one" / name, tmp_path / "all" / name)
    assert {path.name for path in (tmp_path / "all").iterdir()} == {*names, "report.html"}


def test_on_a_gpu_every_run_takes_its_own_captured_steps(tmp_path, monkeypatch):
    """Here without one; runs need not be alike, and one that diverges leaves the others."""
    lone = {
        "gru": toy(model={"body": "gru", "features": 8}, train={"steps": 30}),
        "long": toy(train={"steps": 45, "dropout": 0.1}),
        "mad": toy(train={"steps": 30, "learning_rate": 1e9, "optimizer": "sgd"}),
    }
    for name in ("gru", "long"):
        training.train(lone[name], tmp_path / "alone" / name)
    captured = []
    monkeypatch.setattr(stacked, "can_capture", lambda config, device: True)
    monkeypatch.setattr(step, "can_capture", lambda config, device: True)
    monkeypatch.setattr(graphs, "cuda_recorder", lambda: lambda act: captured.append(act) or act)
    monkeypatch.setattr(stacked, "streams", lambda count: [nullcontext()] * count)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    together = {tmp_path / "together" / name: config for name, config in lone.items()}
    with pytest.raises(RunError, match=r"1 of 3 .* failed, the others are done. mad: "):
        stacked.train_stacked(together, Console())
    assert len(captured) == 3
    for name in ("gru", "long"):
        mine, other = (trained(tmp_path / where / name) for where in ("together", "alone"))
        if name == "gru":  # dropout draws from one stream of random numbers for all
            for key, weight in other["network"].items():
                assert torch.equal(mine["network"][key], weight), key
        assert mine["step"] == other["step"] == lone[name].train.steps
        assert (tmp_path / "together" / name / "result.json").exists()


def test_a_step_without_targets_is_no_loss_of_zero(tmp_path):
    task = {"name": "toy_kinds", "answer": "numbers", "missing": 0.9}
    options = {"batch": 2, "steps": 20}
    both(tmp_path, task=task, train=options, evaluate={"log_every": 1})
    for seed in SEEDS:
        lines = logged(tmp_path / "stacked" / f"seed{seed}")
        losses = [x for (*_, split, name), x in lines.items() if (split, name) == ("train", "loss")]
        assert 0 < len(losses) < 20 and min(losses) > 0
