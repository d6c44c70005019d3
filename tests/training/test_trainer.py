"""The training loop: what it writes, which weights it keeps, and when it diverges."""

import json
import math

import pytest
import torch
from run_fixtures import lines
from toy_tasks import JOINT, toy

from thalnet_mtl.console import Console
from thalnet_mtl.files import PART
from thalnet_mtl.models.sequences import map_state
from thalnet_mtl.training import loop
from thalnet_mtl.training.continuation import due_after_step
from thalnet_mtl.training.divergence import Diverged
from thalnet_mtl.training.sampling import reset_states
from thalnet_mtl.training.setup import fetch_with, set_up
from thalnet_mtl.training.step import TrainStep
from thalnet_mtl.training.trained_run import load_run
from thalnet_mtl.training.trainer import train


@pytest.mark.parametrize("optimizer", ["rmsprop", "adam", "adamw"])
def test_every_optimizer_learns_the_toy_task(tmp_path, optimizer):
    # At a constant rate the last steps are chaotic: rounding would decide.
    options = {"optimizer": optimizer, "steps": 400, "learning_rate": 0.03, "schedule": "cosine"}
    options["clip"] = 1.0
    result = train(toy(model={"modules": 1, "features": 16}, train=options), tmp_path).to_json()
    scores = result["tasks"]["toy_rows"]
    assert scores["test"]["accuracy"] > 0.9 > scores["untrained"]["accuracy"] + 0.3


def test_text_carries_its_state_from_chunk_to_chunk_and_forgets_it_with_the_epoch(
    tmp_path, monkeypatch
):
    seen = []
    real = TrainStep.__call__

    def watching(self, inputs):
        run, batches = self.run, inputs.batches
        state = run.state.carried_states.get("toy_text")
        carried = state is None or state.center.abs().sum().item()
        seen.append((batches["toy_text"].starts_sequence, carried))
        return real(self, inputs)

    monkeypatch.setattr(TrainStep, "__call__", watching)
    train(toy(task={"name": "toy_text"}), tmp_path)
    epoch = 199 // 7  # (2,000 - 1) // 10 places, chunks of 7
    assert [fresh for fresh, _ in seen] == [step % epoch == 0 for step in range(60)]
    assert all(carried > 0 for fresh, carried in seen[1:])


def test_the_run_directory_holds_what_was_promised(tmp_path):
    result = train(toy(), tmp_path).to_json()
    assert {path.name for path in tmp_path.iterdir()} >= {
        *("config.yaml", "metrics.jsonl", "accuracy_matrix.csv", "result.json"),
        *("environment.json", "topology.json", "checkpoint", "model", "tensorboard"),
    }
    assert json.loads((tmp_path / "result.json").read_text()) == result
    assert result["parameters"]["total"] == result["parameters"]["trainable"] > 0
    matrix = (tmp_path / "accuracy_matrix.csv").read_text().split()
    assert matrix[0] == "stage,toy_rows"
    scores = result["tasks"]["toy_rows"]
    assert scores["classes"] == load_run(tmp_path).tasks["toy_rows"].spec.outputs
    assert float(matrix[1].split(",")[1]) == scores["untrained"]["accuracy"]
    assert float(matrix[2].split(",")[1]) == scores["test"]["accuracy"]
    logged = [x["step"] for x in lines(tmp_path) if (x["split"], x["metric"]) == ("train", "loss")]
    assert logged == [8, 16, 24, 32, 40, 48, 56, 60]
    assert not list(tmp_path.rglob(f"{PART}*"))
    assert (tmp_path / "model" / "model.safetensors").stat().st_mode & 0o044


def test_the_best_weights_by_validation_are_kept_and_reported(tmp_path):
    config = toy(train={"learning_rate": 0.3, "steps": 120})
    result = train(config, tmp_path).to_json()
    scores = {
        x["step"]: x["value"]
        for x in lines(tmp_path)
        if (x["split"], x["metric"]) == ("validation", "accuracy")
    }
    assert result["tasks"]["toy_rows"]["validation"]["accuracy"] == max(scores.values())
    assert result["best_step"] == min(k for k, v in scores.items() if v == max(scores.values()))


@pytest.mark.parametrize("broken", [torch.nan, torch.inf, 1e6])
def test_divergence_names_step_and_task_and_keeps_the_last_good_checkpoint(
    tmp_path, monkeypatch, broken
):
    real = TrainStep.__call__

    def diverging(self, inputs):
        loss = real(self, inputs)
        return torch.full_like(loss, broken) if self.run.step == 33 else loss

    monkeypatch.setattr(TrainStep, "__call__", diverging)
    with pytest.raises(Diverged, match=r"at step 34 of task 'toy_rows'.*learning_rate"):
        train(toy(), tmp_path)
    assert torch.load(tmp_path / "checkpoint" / "last.pt", weights_only=True)["step"] == 30
    assert not (tmp_path / "result.json").exists()


def test_weights_that_are_not_finite_are_never_saved(tmp_path):
    model = {"reading": "linear", "module": "ff"}
    wild = toy(model=model, train={"learning_rate": 1e38, "optimizer": "adam"})
    with pytest.raises(Diverged, match=r"of task 'toy_rows': training has diverged"):
        train(wild, tmp_path)
    saved = list((tmp_path / "checkpoint").glob("*.pt"))
    assert saved
    for path in saved:
        weights = torch.load(path, weights_only=True)["network"]
        assert all(weight.isfinite().all() for weight in weights.values())


def test_bf16_narrows_products_but_not_state_or_weights(tmp_path):
    config = toy(task={"name": "toy_text"}, train={"precision": "bf16"})
    train(config, tmp_path)
    saved = torch.load(tmp_path / "checkpoint" / "last.pt", weights_only=True)
    assert {part.dtype for part in saved["carried_states"]["toy_text"]} == {torch.float32}
    assert {weight.dtype for weight in saved["network"].values()} == {torch.float32}
    full = toy(task={"name": "toy_text"})
    train(full, tmp_path / "fp32")
    other = torch.load(tmp_path / "fp32" / "checkpoint" / "last.pt", weights_only=True)
    assert not torch.equal(saved["loss_log"], other["loss_log"])
    torch.testing.assert_close(saved["loss_log"], other["loss_log"], rtol=0.05, atol=0.05)


def test_the_schedule_is_the_one_of_torch():
    config = toy(train={"learning_rate": 0.5, "schedule": "cosine", "warmup": 4, "steps": 20})
    run = set_up(config, fetch=print)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=0.5)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=16)
    rates = []
    for run.state.step in range(20):
        rates.append(run.learning_rate())
    assert rates[:4] == pytest.approx([0.125, 0.25, 0.375, 0.5])
    for rate in rates[4:]:
        assert rate == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-12)
        optimizer.step()
        schedule.step()
    run.config = toy(train={"learning_rate": 0.5})
    assert run.learning_rate() == 0.5


def test_a_cooldown_is_linear_in_the_last_fifth_after_warm_up():
    config = toy(train={"learning_rate": 0.5, "schedule": "cooldown", "warmup": 4, "steps": 24})
    run, rates = set_up(config, fetch=print), []
    for run.state.step in range(24):
        rates.append(run.learning_rate())
    assert rates[:4] == pytest.approx([0.125, 0.25, 0.375, 0.5]) and rates[4:20] == [0.5] * 16
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=0.5)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=4)
    for rate in rates[20:]:
        assert rate == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-12)
        optimizer.step()
        schedule.step()


def test_the_learning_rate_reaches_the_optimizer(tmp_path):
    config = toy(train={"schedule": "cosine", "warmup": 10})
    train(config, tmp_path)
    logged = {x["step"]: x["value"] for x in lines(tmp_path) if x["metric"] == "learning_rate"}
    assert logged[8] == pytest.approx(0.01 * 8 / 10)
    assert logged[60] == pytest.approx(0.005 * (1 + math.cos(math.pi * 49 / 50)))


def test_places_of_a_text_begin_anew_at_the_odds_that_are_given():
    config = toy(tasks={"toy_text": {"reset": 0.3}}, train={"batch": 50})
    run = set_up(config, fetch_with(Console()))
    state = map_state(torch.ones_like, run.network.initial("toy_text", 50))
    anew = []
    for run.state.step in range(40):
        parts = reset_states(run, "toy_text", state, 50)
        rows = [part.flatten(1) for part in parts]
        assert all(bool(((row == 0).all(1) | (row == 1).all(1)).all()) for row in rows)
        assert torch.equal(rows[0][:, 0], rows[1][:, 0])
        anew.append(int((rows[0][:, 0] == 0).sum()))
    assert sum(anew) / (40 * 50) == pytest.approx(0.3, abs=0.03) and len(set(anew)) > 3
    again = reset_states(run, "toy_text", state, 50)
    assert all(torch.equal(a, b) for a, b in zip(parts, again, strict=True))


def test_steps_after_which_nothing_is_due_are_not_asked_what_is_due(tmp_path, monkeypatch):
    asked: list[int] = []

    def counted(run):
        asked.append(run.step)
        return due_after_step(run)

    monkeypatch.setattr(loop, "due_after_step", counted)
    changes = [{"step": 13, "verb": "freeze", "name": "trunk"}]
    evaluate = {"every": 20, "log_every": 8, "checkpoint_every": 15}
    config = toy(**JOINT, changes=changes, train={"steps": 50}, evaluate=evaluate)
    train(config, tmp_path)
    due = {s for s in range(1, 51) if s % 20 == 0 or s % 8 == 0 or s % 15 == 0} | {13, 50}
    assert asked == sorted(due)
