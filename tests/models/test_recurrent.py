"""Bodies of one's own: modules that are called like nn.GRU, from Python and as plug-ins."""

import json
import math
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from kill_and_resume import differences
from own_bodies import Leaky, Nested
from properties import assert_close, assert_same_gradients, drawn, gradients, normal
from torch import nn
from toy_tasks import toy

from thalnet_mtl import Network, cli, load_run, registry
from thalnet_mtl.config.schema import ModelConfig
from thalnet_mtl.errors import UserError
from thalnet_mtl.models.baselines import StackedLSTM
from thalnet_mtl.models.build import build
from thalnet_mtl.models.export import export as network_export
from thalnet_mtl.models.recurrent import RecurrentBody
from thalnet_mtl.models.stacked_gru import StackedGRU
from thalnet_mtl.registry import register
from thalnet_mtl.topology.spec import TaskSpec
from thalnet_mtl.training.loop import Trainer
from thalnet_mtl.training.trainer import train

ROWS = TaskSpec(inputs=3, outputs=2, steps=4)
TEXT = TaskSpec(inputs=5, outputs=5, tokens=True, every_step=True)


@pytest.fixture
def own(monkeypatch):
    """Let a test register bodies that are forgotten after it."""
    monkeypatch.setitem(registry._entries, "body", dict(registry.entries("body")))


def alone(body, xs, lengths, state=None):
    """Return the outputs and the last state of each sequence by itself."""
    results = []
    for k, length in enumerate(lengths):
        start = None if state is None else type(state)(*(part[k : k + 1] for part in state))
        results.append(body(xs[k : k + 1, :length], start))
    return results


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize(("builtin", "kind"), [(StackedGRU, nn.GRU), (StackedLSTM, nn.LSTM)])
def test_a_wrapped_module_of_pytorch_is_the_built_in_body(builtin, kind, layers):
    body = drawn(lambda: builtin(3, 5, layers))
    module = kind(3, 5, layers, batch_first=True, dtype=torch.float64)
    module.load_state_dict({n.removeprefix("rnn."): p for n, p in body.state_dict().items()})
    wrapped, xs, lengths = RecurrentBody(module), normal(4, 6, 3), torch.tensor([6, 1, 4, 4])
    for options in ({}, {"lengths": lengths}, {"sub_steps": 2, "extra_steps": 1}):
        ys, state = wrapped(xs, **options)
        expected, end = body(xs, **options)
        assert torch.equal(ys, expected)
        parts = (
            (state, end)
            if isinstance(state, torch.Tensor)
            else (torch.stack(state), torch.stack(end))
        )
        assert torch.equal(*parts)
    again, _ = wrapped(xs, state)
    assert torch.equal(again, body(xs, end)[0])


@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_a_wrapped_module_of_pytorch_has_the_training_curve_of_the_built_in_body_also_resumed(
    tmp_path, monkeypatch, kind
):
    sizes, text = {"layers": 2, "features": 6}, {"task": {"name": "toy_text"}}
    train(toy(model={"body": kind, **sizes}, **text), tmp_path / "builtin")
    wrapped = toy(model={"body": "rnn", "kind": kind, **sizes}, **text)
    after_step = Trainer.after_step

    def fail_at_27(self, losses):
        after_step(self, losses)
        if self.run.step == 27:
            raise RuntimeError("the power is off")

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="power"):
        patch.setattr(Trainer, "after_step", fail_at_27)
        train(wrapped, tmp_path / "wrapped")
    assert train(wrapped, tmp_path / "wrapped").steps == 60
    curves = []
    for run in ("builtin", "wrapped"):
        lines = map(json.loads, (tmp_path / run / "metrics.jsonl").read_text().splitlines())
        curves.append([{k: v for k, v in line.items() if "seconds" not in k} for line in lines])
    assert curves[0] == curves[1] and len(curves[0]) > 9


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
def test_every_kind_of_rnn_is_the_one_of_pytorch():
    for kind, options, theirs in (
        ("rnn", {"nonlinearity": "relu", "bias": False}, nn.RNN),
        ("gru", {"dropout": 0.5}, nn.GRU),
        ("lstm", {"projection": 2}, nn.LSTM),
    ):
        model = ModelConfig(body="rnn", features=5, layers=2, options={"kind": kind, **options})
        module = build(model, {"t": ROWS}).body.module
        names = {"projection": "proj_size"}
        expected = theirs(
            3, 5, 2, batch_first=True, **{names.get(k, k): v for k, v in options.items()}
        )
        assert repr(module) == repr(expected)


def test_a_state_of_any_form_is_found_and_comes_with_the_batch_first():
    body = drawn(lambda: RecurrentBody(Nested()))
    xs = normal(5, 6, 3)
    ys, state = body(xs)
    assert [tuple(part.shape) for part in state] == [(5, 4), (5,)]
    assert_close(state.part1, xs.mean(2).sum(1))
    assert not any(part.any() for part in body.initial(xs))
    assert not state.detach().part0.requires_grad and state.part0.requires_grad
    first, middle = body(xs[:, :2])
    second, end = body(xs[:, 2:], tuple(middle))
    assert_close(torch.cat([first, second], 1), ys)
    assert_close(end.part0, state.part0)


@pytest.mark.parametrize("make", [Nested, lambda: nn.LSTM(3, 4, 2, batch_first=True)])
def test_unequal_lengths_are_each_sequence_alone(make):
    body = drawn(lambda: RecurrentBody(make()))
    lengths = torch.tensor([2, 6, 1, 4, 4])
    _, start = body(normal(5, 3, 3, seed=1))
    start = start.detach()
    xs = normal(5, 7, 3).requires_grad_()
    ys, state = body(xs, start, lengths)
    singles = alone(body, xs, lengths, start)
    weight, total = normal(5, 7, 4, seed=2), 0
    for k, (length, (single, end)) in enumerate(zip(lengths, singles, strict=True)):
        assert_close(ys[k, :length], single[0])
        assert not ys[k, length:].any()
        for part, other in zip(state, end, strict=True):
            assert_close(part[k], other[0])
        total = total + (single[0] * weight[k, :length]).sum()
    known = dict(body.named_parameters()) | {"xs": xs}
    assert_same_gradients(gradients((ys * weight).sum(), known), gradients(total, known))


def test_no_step_past_the_end_of_a_sequence_is_computed():
    body, steps = RecurrentBody(Leaky(3, 4)), []
    body.module.dense.register_forward_hook(
        lambda module, inputs, output: steps.append(len(output))
    )
    lengths = torch.tensor([2, 6, 1, 4, 4])
    body(torch.rand(5, 9, 3), lengths=lengths)
    assert len(steps) == 6 and sum(steps) == lengths.sum()


def test_wrapping_changes_neither_modes_nor_random_numbers():
    module = nn.Sequential(Leaky(3, 4)).train()[0]
    module.dense.eval()
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    RecurrentBody(module)
    assert torch.equal(torch.rand(1), expected)
    assert module.training and not module.dense.training


# Modules that are not called like nn.GRU


class Broken(nn.Module):
    """A module with a fault of a kind."""

    def __init__(self, fault: str):
        super().__init__()
        self.fault, self.input_size, self.hidden_size = fault, 3, 4
        self.dense = nn.Linear(3, 4)
        self.start = nn.Parameter(torch.ones(4))

    def forward(self, xs, state=None):
        ys = self.dense(xs).cumsum(1)
        if self.fault == "learned start":
            state = self.start.expand(len(xs), 4) if state is None else state
            ys = ys + state[:, None]
            return ys, ys[:, -1]
        if self.fault == "forgets":
            return ys, ys[:, -1]
        if self.fault == "time first":
            return ys.movedim(0, 1), ys[:, -1]
        if self.fault == "one output":
            return ys
        if self.fault == "no batch":
            return ys, ys.sum((0, 1))
        if self.fault == "text":
            return ys, "state"
        if self.fault == "wide":
            return torch.cat([ys, ys], -1), ys[:, -1]
        raise RuntimeError("mat1 and mat2\nshapes cannot be multiplied")


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("learned start", "without a state it must start from one of zeros"),
        ("forgets", "a sequence in chunks must give the same as the whole sequence"),
        ("time first", r"outputs have shape \(4, 3, 4\) for inputs \(3, 4, 3\); expected \(batch"),
        ("one output", r"must return the pair \(ys, state\)"),
        ("no batch", "expected one axis for the batch"),
        ("text", "a state must be a tensor, or tensors in tuples or lists"),
        ("wide", r"outputs have shape \(3, 4, 8\).*expected \(batch, time, 4\)"),
        ("raises", r"raised RuntimeError: mat1 and mat2$"),
    ],
)
def test_a_module_of_another_kind_is_refused_with_what_is_wrong(fault, message):
    with pytest.raises(UserError, match=message) as error:
        RecurrentBody(Broken(fault))
    assert str(error.value).startswith("Broken") and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (lambda: nn.GRU(3, 4), "GRU: make it with batch_first=True"),
        (lambda: nn.GRU(3, 4, batch_first=True, bidirectional=True), "reads the end of a sequence"),
        (lambda: nn.Linear(3, 4), "Linear cannot be a body: keep its width.*input_size, inputs"),
    ],
)
def test_what_cannot_be_a_body_is_refused(module, message):
    with pytest.raises(UserError, match=message) as error:
        RecurrentBody(module())
    assert "\n" not in str(error.value)


# Saving


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.LSTM(3, 5, 2, batch_first=True, proj_size=2, dropout=0.1),
        lambda: nn.RNN(3, 5, batch_first=True, nonlinearity="relu", bias=False),
    ],
)
def test_a_network_with_a_wrapped_module_is_saved_and_loaded(tmp_path, make):
    network = Network(RecurrentBody(make()))
    network.add_task("text", TEXT)
    network.save(tmp_path / "net")
    loaded = Network.load(tmp_path / "net")
    xs = torch.randint(5, (3, 6))
    assert torch.equal(loaded("text", xs)[0], network.eval()("text", xs)[0])
    assert loaded.describe() == network.describe()
    assert repr(loaded) == repr(network)


def test_a_class_that_is_not_registered_is_refused_when_it_is_saved(tmp_path, own):
    class Own(Nested):
        pass

    network = Network(RecurrentBody(Own()))
    with pytest.raises(UserError, match=r"Own cannot be saved: register it with @register"):
        network.save(tmp_path / "net")
    register("body", "own")(Own)
    network.save(tmp_path / "net")
    assert Network.load(tmp_path / "net").describe() == network.describe()


def test_a_module_that_cannot_be_traced_is_refused_when_it_is_exported(tmp_path, own):
    @register("body", "hasty")
    class Hasty(Leaky):
        def forward(self, xs, state=None):
            if xs.sum() > 100:
                return xs, state
            return super().forward(xs, state)

    network = Network(RecurrentBody(Hasty(3, 4)))
    network.add_task("t", ROWS)
    with pytest.raises(UserError, match=r"^Hasty cannot be exported as a program: ") as error:
        network_export(network, "torch", tmp_path / "step.pt2")
    assert "\n" not in str(error.value) and not list(tmp_path.iterdir())


# As plug-ins


def test_a_module_is_named_in_a_configuration_with_its_options():
    network = build(ModelConfig("leaky", options={"leak": 0.25}), {"t": ROWS})
    module = network.body.module
    assert (module.leak, module.gain, module.input_size) == (0.25, 1.0, 3)
    width = module.hidden_size
    sizes = [n * (n + 3) + n + 2 * n + 2 for n in (width, width + 1)]
    assert sizes[0] <= 50_000 < sizes[1]
    assert math.isclose(sum(p.numel() for p in network.parameters()), sizes[0])


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"leek": 0.5}, r"^model: unknown field 'leek'.*Did you mean 'leak'"),
        ({"leak": "much"}, r"^model\.leak: expected a number, got 'much'"),
    ],
)
def test_a_wrong_option_of_a_body_is_one_line(model, message):
    with pytest.raises(UserError, match=message):
        build(ModelConfig("leaky", options=model), {"t": ROWS})


def test_a_body_without_arguments_for_its_sizes_is_refused(own):
    @register("body", "narrow")
    class Narrow(nn.GRU):
        def __init__(self, width: int):
            super().__init__(width, width)

    @register("body", "made")
    def made(input_size: int, hidden_size: int): ...

    with pytest.raises(UserError, match=r"body 'narrow'.*needs an argument inputs or input_size"):
        build(ModelConfig("narrow", options={"width": 3}), {"t": ROWS})
    with pytest.raises(UserError, match="body 'made' is a function: register a class"):
        build(ModelConfig("made"), {"t": ROWS})


PROGRAM = """
import os, signal, sys
sys.path.insert(0, {tests!r})
import own_bodies, toy_tasks
from thalnet_mtl import cli
from thalnet_mtl.training.loop import Trainer
after = Trainer.after_step
def after_step(self, losses):
    after(self, losses)
    if self.run.step == 27:
        os.kill(os.getpid(), signal.SIGKILL)
Trainer.after_step = after_step
sys.exit(cli.main(sys.argv[1:]))
"""


def test_a_plug_in_is_trained_killed_resumed_evaluated_compared_and_exported(tmp_path, capsys):
    program = PROGRAM.format(tests=str(Path(__file__).parents[1]))
    config = tmp_path / "leaky.yaml"
    config.write_text(
        "task: {name: toy_text}\n"
        "model: {body: leaky, leak: 0.3, features: 6}\n"
        "train: {steps: 40, batch: 10, chunk: 7, learning_rate: 0.01}\n"
        "evaluate: {every: 20, batch: 24, log_every: 8, checkpoint_every: 6}\n"
    )

    command = ["train", str(config), "--out"]
    process = [sys.executable, "-W", "ignore", "-c", program, *command, str(tmp_path / "killed")]
    assert subprocess.run(process, capture_output=True).returncode == -signal.SIGKILL
    for folder in ("killed", "alone"):
        assert cli.main([*command, str(tmp_path / folder)]) == 0
    assert differences(tmp_path / "alone", tmp_path / "killed") == []
    assert "leak: 0.3" in (tmp_path / "alone" / "config.yaml").read_text()
    assert "gain: 1.0" in (tmp_path / "alone" / "config.yaml").read_text()
    run = load_run(tmp_path / "alone")
    assert run.network.body.module.leak == 0.3
    text = str(tmp_path / "alone")
    assert cli.main(["evaluate", text]) == 0
    assert cli.main(["compare", text, str(tmp_path / "killed")]) == 0
    rows = [line.split()[:2] for line in capsys.readouterr().out.splitlines()]
    assert ["alone", "toy_text"] in rows and ["killed", "toy_text"] in rows
    assert cli.main(["export", text, "--to", "safetensors"]) == 0
    program = torch.export.load(run.export("torch")).module()
    x, state = torch.tensor([1, 4]), torch.rand(2, 1, 6)
    expected, end = run.network("toy_text", x[:, None], state)
    logits, after = program(x, state)
    torch.testing.assert_close(logits, expected[:, 0])
    torch.testing.assert_close(after, end)
