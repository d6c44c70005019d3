import itertools
import json
import math

import kill_and_resume
import pytest
import torch
from run_fixtures import interrupt_at, lines
from toy_tasks import toy

from thalnet_mtl.config.schema import Config
from thalnet_mtl.console import Console
from thalnet_mtl.errors import UserError
from thalnet_mtl.models.body import map_state
from thalnet_mtl.models.model_folder import load_weights
from thalnet_mtl.tasks.rows import RowsTask
from thalnet_mtl.training import setup as prepare_module
from thalnet_mtl.training import trainer as training
from thalnet_mtl.training.monitor import Diverged
from thalnet_mtl.training.sampling import reset_states
from thalnet_mtl.training.setup import fetch_with, set_up
from thalnet_mtl.training.step import TrainStep
from thalnet_mtl.training.trained_run import load_run
from thalnet_mtl.training.trainer import Interrupted, train


@pytest.mark.parametrize("optimizer", ["rmsprop", "adam", "adamw"])
def test_every_optimizer_learns_the_toy_task(tmp_path, optimizer):
    # At a constant rate the last steps are chaotic: rounding would decide.
    options = {"optimizer": optimizer, "steps": 400, "learning_rate": 0.03, "schedule": "cosine"}
    options["clip"] = 1.0
    result = train(toy(model={"modules": 1, "features": 16}, train=options), tmp_path).to_json()
    scores = result["tasks"]["toy_rows"]
    assert scores["test"]["accuracy"] > 0.9 > scores["untrained"]["accuracy"] + 0.3


def test_large_networks_take_the_threads_that_pytorch_has_and_small_ones_one(monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.setattr(prepare_module, "THREADS", 3)
    sizes = {"small": {"features": 6}, "large": {"modules": 1, "features": 300, "budget": 10**6}}
    taken = {}
    try:
        for (name, model), threads in itertools.product(sizes.items(), (0, 2)):
            set_up(toy(model=model, train={"threads": threads}), print)
            taken[name, threads] = torch.get_num_threads()
    finally:
        torch.set_num_threads(before)
    assert taken == {("small", 0): 1, ("small", 2): 2, ("large", 0): 3, ("large", 2): 2}


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(toy(train={"seed": seed}), tmp_path / name)
    assert kill_and_resume.differences(tmp_path / "a", tmp_path / "b") == []
    assert kill_and_resume.differences(tmp_path / "a", tmp_path / "c") != []


@pytest.mark.parametrize("task", ["toy_rows", "toy_text"])
@pytest.mark.parametrize("body", ["thalnet", "gru", "lstm"])
def test_a_run_cut_in_the_middle_of_an_epoch_goes_on_to_the_same_bits(
    tmp_path, monkeypatch, task, body
):
    config = toy(task={"name": task}, model={"body": body, "features": 6}, train={"clip": 0.1})
    train(config, tmp_path / "whole")
    for step in (3, 27, 41):
        with monkeypatch.context() as patch, pytest.raises(SystemExit):
            interrupt_at(step, patch)
            train(config, tmp_path / "cut")
    train(config, tmp_path / "cut")
    assert kill_and_resume.differences(tmp_path / "whole", tmp_path / "cut") == []


def test_a_run_killed_at_random_moments_ends_with_the_same_bits(capfd):
    command = ["digits", "--train.steps=800", "--evaluate.checkpoint_every=10"]
    assert kill_and_resume.main(["--kills", "2", "--window", "1", *command]) == 0


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
    assert scores["classes"] == load_run(tmp_path).tasks["toy_rows"].spec.classes
    assert float(matrix[1].split(",")[1]) == scores["untrained"]["accuracy"]
    assert float(matrix[2].split(",")[1]) == scores["test"]["accuracy"]
    logged = [x["step"] for x in lines(tmp_path) if (x["split"], x["metric"]) == ("train", "loss")]
    assert logged == [8, 16, 24, 32, 40, 48, 56, 60]
    assert not list(tmp_path.rglob("*.part"))
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


def test_a_finished_run_is_not_trained_again(tmp_path, monkeypatch):
    result = train(toy(), tmp_path).to_json()
    before = (tmp_path / "metrics.jsonl").read_bytes()
    monkeypatch.setattr(TrainStep, "__call__", None)
    assert train(toy(), tmp_path).to_json() == result
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_a_directory_of_another_configuration_is_refused_and_left_alone(tmp_path):
    train(toy(), tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    for batch in (11, 5):  # 5 is the batch of evaluation: the same word in another section
        with pytest.raises(UserError, match=rf"configuration: train.batch {batch}, there 10"):
            train(toy(train={"batch": batch}), tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


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


def test_a_finished_run_stays_even_without_its_checkpoint(tmp_path):
    result = train(toy(), tmp_path).to_json()
    (tmp_path / "checkpoint" / "last.pt").unlink()
    before = (tmp_path / "metrics.jsonl").read_bytes()
    assert train(toy(), tmp_path).to_json() == result
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_an_unfinished_run_without_its_checkpoint_is_not_overwritten(tmp_path):
    train(toy(), tmp_path)
    (tmp_path / "result.json").unlink()
    (tmp_path / "checkpoint" / "last.pt").unlink()
    before = (tmp_path / "metrics.jsonl").read_bytes()
    with pytest.raises(UserError, match=r"has lost its checkpoint. Put checkpoint/last.pt back"):
        train(toy(), tmp_path)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_a_log_that_lost_lines_is_not_padded(tmp_path):
    train(toy(), tmp_path)
    (tmp_path / "result.json").unlink()
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(UserError, match=r"metrics.jsonl has lost lines: 0 bytes of \d+ are left"):
        train(toy(), tmp_path)


def test_a_run_that_goes_on_elsewhere_says_so(tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        interrupt_at(13, patch)
        train(toy(), tmp_path)
    real = training.environment
    monkeypatch.setattr(training, "environment", lambda *a: real(*a) | {"python": "4.0"})
    train(toy(), tmp_path)
    about = json.loads((tmp_path / "environment.json").read_text())
    assert [(x["step"], x["python"]) for x in about["resumed"]] == [(12, "4.0")]
    assert about["python"] != "4.0"


def test_a_wish_to_stop_saves_the_very_step(tmp_path, monkeypatch):
    real = TrainStep.__call__

    def stopping(self, inputs):
        if self.run.step == 32:
            import signal

            signal.raise_signal(signal.SIGINT)
        return real(self, inputs)

    monkeypatch.setattr(TrainStep, "__call__", stopping)
    with pytest.raises(Interrupted, match="saved at step 33 of 60"):
        train(toy(), tmp_path)
    saved = torch.load(tmp_path / "checkpoint" / "last.pt", weights_only=True)
    assert saved["step"] == 33


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


def test_the_learning_rate_reaches_the_optimizer(tmp_path):
    config = toy(train={"schedule": "cosine", "warmup": 10})
    train(config, tmp_path)
    logged = {x["step"]: x["value"] for x in lines(tmp_path) if x["metric"] == "learning_rate"}
    assert logged[8] == pytest.approx(0.01 * 8 / 10)
    assert logged[60] == pytest.approx(0.005 * (1 + math.cos(math.pi * 49 / 50)))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (toy(train={"batch": 301}), "batch 301 is larger than the 300 sequences of toy_rows"),
        (toy(task={"name": "toy_row"}), r"unknown task 'toy_row'.*Did you mean 'toy_rows'"),
        (toy(model={"module": "ffgru"}), r"unknown module 'ffgru'.*Did you mean 'ff_gru'"),
        (toy(model={"reading": "gaussian"}), r"unknown reading 'gaussian'.*'fast_gaussian'"),
        (toy(model={"body": "thalnett"}), r"unknown body 'thalnett'.*'thalnet'"),
        (toy(model={"features": 500}), r"over model.budget 50,000"),
        (toy(model={"features": 0, "budget": 30}), "model.budget 30 is too small"),
        (toy(model={"features": 0, "budget": 0}), "both are 0"),
        (toy(task={"name": "toy_text"}, train={"chunk": 999}), "too few for batch 10"),
        (toy(task={"name": "toy_text"}, model={"extra_steps": 1}), "extra_steps.*every step"),
        (toy(task={"name": "toy_text"}, model={"body": "mlp"}), "one output a sequence"),
        (
            toy(train={"warmup": 60}),
            r"train.warmup \(60\) must be smaller .* \(60 steps\)",
        ),
        (toy(model={"features": 10**6, "budget": 0}), "parameters is over 10,000,000,000"),
        (toy(train={"device": "cuda"}), "no GPU"),
        (toy(tasks={"toy_rows": {"reset": 0.1}}), "toy_rows.reset: only a text"),
        (toy(train={"device": "cpu", "precision": "tf32"}), "only a GPU has it. .*fp32, bf16"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is_written(
    tmp_path, config: Config, message: str
):
    if "GPU" in message and torch.cuda.is_available():
        config = toy(train={"batch": 301})
        message = "batch 301"
    with pytest.raises(UserError, match=message):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["last.pt", "best.pt"])
def test_a_checkpoint_of_another_run_is_refused(tmp_path, name):
    train(toy(), tmp_path / "a")
    train(toy(train={"seed": 3}), tmp_path / "b")
    (tmp_path / "a" / "result.json").unlink()
    (tmp_path / "b" / "checkpoint" / name).replace(tmp_path / "a" / "checkpoint" / name)
    with pytest.raises(UserError, match=rf"{name} belongs to a run of another configuration"):
        train(toy(), tmp_path / "a")


def test_a_network_that_does_not_fit_its_checkpoint_is_named(tmp_path):
    train(toy(), tmp_path)
    path = tmp_path / "checkpoint" / "last.pt"
    weights = torch.load(path, weights_only=True)["network"]
    network = set_up(toy(model={"features": 7}), fetch=print).network
    with pytest.raises(UserError, match=r"another network: 'body.cells.*' is \(\d+, \d+\) in the"):
        load_weights(network, weights, path)


@pytest.mark.parametrize("damage", ["truncate", "garbage"])
def test_a_damaged_checkpoint_is_one_line_and_not_overwritten(tmp_path, damage):
    train(toy(), tmp_path)
    (tmp_path / "result.json").unlink()
    path = tmp_path / "checkpoint" / "last.pt"
    content = path.read_bytes()
    path.write_bytes(content[:1000] if damage == "truncate" else b"garbage" * 99)
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"last.pt is damaged and cannot be read"):
        train(toy(), tmp_path)
    assert path.read_bytes() == before


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"cannot write to .*file/run: Not a directory"):
        train(toy(), tmp_path / "file" / "run")


def test_two_processes_do_not_write_to_one_run(tmp_path):
    from filelock import FileLock

    (tmp_path / "run").mkdir()
    with (
        FileLock(tmp_path / "run" / ".lock"),
        pytest.raises(UserError, match="another process is writing"),
    ):
        train(toy(), tmp_path / "run")


def test_nan_in_the_input_is_refused():
    xs = torch.zeros(5, 4, 3)
    xs[2, 1, 1] = torch.nan
    data = {name: (xs, torch.zeros(5)) for name in ("train", "validation", "test")}
    with pytest.raises(UserError, match="task 'mine', train: the inputs hold NaN"):
        RowsTask("mine", (4, 3), 2, lambda: data).load("cpu")


def test_dropout_is_of_training_alone_and_goes_on_where_it_stopped(tmp_path, monkeypatch):
    plain, dropped = toy(), toy(train={"dropout": 0.5})
    train(plain, tmp_path / "plain")
    train(dropped, tmp_path / "dropped")
    with monkeypatch.context() as patch:
        interrupt_at(33, patch)
        with pytest.raises(SystemExit):
            train(dropped, tmp_path / "resumed")
    train(dropped, tmp_path / "resumed")
    ends = [torch.load(tmp_path / n / "checkpoint/last.pt") for n in ("dropped", "resumed")]
    for key, weight in ends[0]["network"].items():
        assert torch.equal(ends[1]["network"][key], weight), key
    one, two = (torch.load(tmp_path / n / "checkpoint/last.pt") for n in ("plain", "dropped"))
    name = "body.cells.input.design.stack.0.weight"
    assert not torch.equal(one["network"][name], two["network"][name])
    run = set_up(dropped, fetch_with(Console()))
    port = run.tasks["toy_rows"].head_name
    xs = torch.rand(5, 4, 3)
    run.network.train()
    assert not torch.equal(run.network(port, xs)[0], run.network(port, xs)[0])
    run.network.eval()
    assert torch.equal(run.network(port, xs)[0], run.network(port, xs)[0])


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
