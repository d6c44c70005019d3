import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from properties import spoiled
from toy_tasks import STREAM, toy

from thalnet_mtl import load_model
from thalnet_mtl.errors import UserError
from thalnet_mtl.models import export
from thalnet_mtl.models.baselines import MLP, StackedLSTM
from thalnet_mtl.models.model_folder import FORMAT
from thalnet_mtl.models.network import Network
from thalnet_mtl.models.programs import Step
from thalnet_mtl.models.stacked_gru import StackedGRU
from thalnet_mtl.models.thalnet import ThalNet
from thalnet_mtl.ops import cpp
from thalnet_mtl.topology.spec import TaskSpec
from thalnet_mtl.training.trained_run import load_run
from thalnet_mtl.training.trainer import train

MODELS = {
    "thalnet": {"body": "thalnet"},
    "dynamic": {"body": "thalnet", "reading": "fast_gaussian", "module": "gru_ff"},
    "ff": {"body": "thalnet", "module": "ff"},
    "gru": {"body": "gru"},
    "lstm": {"body": "lstm"},
    "mlp": {"body": "mlp"},
    "settling": {"body": "thalnet", "extra_steps": 3, "sub_steps": 2},
}


def saved(body: str, arguments: dict[str, Any]) -> bytes:
    """Return the ``config.json`` of a saved network without tasks."""
    topology = {"body": body, "arguments": arguments, "frozen": False, "tasks": {}}
    return json.dumps({"thalnet_mtl": FORMAT, "topology": topology}).encode()


NO_MODULES = saved("thalnet", {"modules": []})
MISSPELLED = saved("thalnet", {"modules": [{"nmae": 1}]})
UNKNOWN_BODY = saved("gruu", {})


@pytest.fixture(scope="module", autouse=True)
def traced_once():
    """Trace a step once for all formats and tests, which takes half the time of an export."""
    trace, programs = export.traced, {}

    def program(step):
        key = type(step), step.network, step.task
        if key not in programs:
            programs[key] = trace(step)
        return programs[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "traced", program)
        yield


@pytest.fixture(scope="module", params=[*MODELS, "text"])
def run(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    text = {"task": {"name": "toy_text"}, "model": {"sub_steps": 2}}
    sections = text if request.param == "text" else {"model": MODELS[request.param]}
    train(toy(**sections, train={"steps": 6}), folder)
    return load_run(folder)


def stream(run, step, steps: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of the network on a whole sequence, and of a step program fed one input at a time."""
    batch = next(run.task().load("cpu").iterate("test", 2, steps))
    xs = batch.xs[:, :steps]
    whole, _ = run.network(run.task().name, xs)
    x, *state = Step(run.network, run.task().name).example(2)
    state = [torch.zeros_like(part) for part in state]
    for x in xs.unbind(1):
        logits, *state = step(x, *state)
    return (whole[:, -1] if whole.ndim == 3 else whole).detach(), logits.detach()


def test_safetensors_hold_the_same_network(run):
    folder = run.export("safetensors")
    again = load_model(folder)
    for name, weight in run.network.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name])
    assert json.loads((folder / "config.json").read_text())["topology"]["tasks"]
    assert (folder / "README.md").exists()


def test_a_torch_program_streams_the_logits_of_a_whole_sequence(run):
    program = torch.export.load(run.export("torch")).module()
    torch.testing.assert_close(*stream(run, program))


def test_an_onnx_model_streams_the_logits_of_a_whole_sequence(run):
    import onnxruntime

    session = onnxruntime.InferenceSession(run.export("onnx"))
    names = [x.name for x in session.get_inputs()]

    def step(*inputs):
        feed = {name: x.numpy() for name, x in zip(names, inputs, strict=True)}
        return [torch.from_numpy(y) for y in session.run(None, feed)]

    assert names == ["x", *(f"state{k}" for k in range(len(names) - 1))]
    torch.testing.assert_close(*stream(run, step), rtol=1e-4, atol=1e-5)


PADDED = {
    "thalnet": (lambda: ThalNet(3, 2, 4, reading="linear"), {}),
    "settling": (lambda: ThalNet(3, 2, 4), {"sub_steps": 2, "extra_steps": 1}),
    "gru": (lambda: StackedGRU(3, 4, 2), {}),
    "lstm": (lambda: StackedLSTM(3, 4, 1), {}),
    "mlp": (lambda: MLP(3, 4, 1, window=3), {}),
}


@pytest.mark.parametrize(
    ("body", "form"),
    [
        ("settling", "torch"),
        ("lstm", "torch"),
        ("mlp", "torch"),
        ("thalnet", "onnx"),
        ("gru", "onnx"),
    ],
)
def test_a_program_of_padded_sequences_equals_the_network(body, form, tmp_path, capfd):
    """It takes any batch, and any number of steps."""
    make, options = PADDED[body]
    every = body == "thalnet"
    network = Network(make())
    network.add_task("a", TaskSpec(3, 2, steps=3, every_step=every), **options)
    path = export.export(network, form, tmp_path / "program", lengths=True)
    for steps in ([1, 9, 2, 8], [3, 3], [1]):
        lengths = torch.tensor(steps)
        xs = torch.rand(len(steps), max(steps), 3)
        spoilt = spoiled(xs, lengths)
        if form == "torch":
            (outputs,) = torch.export.load(path).module()(spoilt, lengths)
        else:
            import onnxruntime

            feed = {"x": spoilt.numpy(), "lengths": lengths.numpy()}
            outputs = torch.from_numpy(onnxruntime.InferenceSession(path).run(None, feed)[0])
        assert len(outputs) == len(steps)
        for row, x, length in zip(outputs, xs, lengths, strict=True):
            alone, _ = network("a", x[None, :length])
            assert not every or not row[length:].any()
            row = row[:length] if every else row
            assert "onnxruntime" not in capfd.readouterr().err  # it warns of a model that is untidy
            torch.testing.assert_close(row, alone[0], rtol=1e-4, atol=1e-5)


def test_an_export_warns_of_nothing_that_it_does_itself(tmp_path):
    code = (
        "from pathlib import Path\nfrom thalnet_mtl import load_run\n"
        "print(load_run('zoo:digits').export('torch', Path('step.bin')).name)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("step.bin\n", "")


def test_a_run_of_a_text_is_exported_for_padded_sequences(tmp_path):
    train(toy(model={"body": "gru"}, task={"name": "toy_text"}), tmp_path / "text")
    run = load_run(tmp_path / "text")
    path = run.export("torch", lengths=True)
    assert path == tmp_path / "text" / "export" / "sequences.pt2" and path.is_file()
    tokens, lengths = torch.tensor([[1, 2, 3], [4, 0, 777]]), torch.tensor([3, 2])
    (outputs,) = torch.export.load(path).module()(tokens, lengths)
    for row, xs, length in zip(outputs, tokens, lengths, strict=True):
        alone, _ = run.network("toy_text", xs[None, :length])
        torch.testing.assert_close(row[:length], alone[0], rtol=1e-4, atol=1e-5)


def test_a_saved_network_takes_lengths_without_being_told(tmp_path):
    network = Network(ThalNet(3, 2, 4))
    network.add_task("a", TaskSpec(3, 2, steps=5))
    with pytest.raises(UserError, match="lengths: safetensors holds the whole network"):
        export.export(network, "safetensors", tmp_path / "model", lengths=True)


def test_an_unfinished_run_can_be_evaluated_but_has_no_model_yet(tmp_path):
    train(toy(), tmp_path)
    (tmp_path / "result.json").unlink()
    for path in (tmp_path / "model").iterdir():
        path.unlink()
    (tmp_path / "model").rmdir()
    run = load_run(tmp_path)
    assert run.step > 0
    with pytest.raises(UserError, match="is not finished: it has no model/ yet"):
        run.export("safetensors")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", b"{", "config.json is damaged"),
        ("config.json", b"{}", "config.json is damaged"),
        ("config.json", NO_MODULES, "a ThalNet needs at least one"),
        ("config.json", MISSPELLED, "is damaged"),
        ("config.json", UNKNOWN_BODY, "unknown body 'gruu'"),
        ("config.json", None, "no config.json in"),
        ("model.safetensors", b"torn", "model.safetensors is missing or damaged"),
        ("model.safetensors", None, "model.safetensors is missing or damaged"),
    ],
)
def test_a_damaged_model_is_reported_in_one_line(tmp_path, file, content, message):
    train(toy(), tmp_path)
    path = tmp_path / "model" / file
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        load_model(tmp_path / "model")
    assert "\n" not in str(error.value)


def test_weights_of_another_network_are_named(tmp_path):
    train(toy(), tmp_path / "a")
    train(toy(model={"modules": 2}), tmp_path / "b")
    path = tmp_path / "a" / "model" / "model.safetensors"
    path.write_bytes((tmp_path / "b" / "model" / "model.safetensors").read_bytes())
    with pytest.raises(UserError, match=r"another network: '.*side1.*' is absent in the file"):
        load_model(tmp_path / "a" / "model")


@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_damaged_best_checkpoint_is_reported_in_one_line(tmp_path, damage):
    train(toy(), tmp_path)
    path = tmp_path / "checkpoint" / "best.pt"
    path.write_bytes(path.read_bytes()[:500]) if damage == "cut" else path.unlink()
    with pytest.raises(UserError, match=r"best.pt (has changed since|is missing)"):
        load_run(tmp_path)


@pytest.mark.parametrize("form", ["safetensors", "torch"])
def test_an_export_never_overwrites_and_leaves_no_partial_file(tmp_path, form):
    train(toy(), tmp_path / "run")
    run = load_run(tmp_path / "run")
    (tmp_path / "there").write_text("mine")
    with pytest.raises(UserError, match="there exists already"):
        run.export(form, tmp_path / "there")
    with pytest.raises(UserError, match=r"cannot write .*there/x: "):
        run.export(form, tmp_path / "there" / "x")
    assert (tmp_path / "there").read_text() == "mine"
    assert run.export(form) == run.export(form)  # its own place it may use again
    assert {path.name for path in tmp_path.iterdir()} == {"run", "there"}


def test_an_export_that_fails_its_check_is_not_kept(tmp_path, monkeypatch):
    train(toy(), tmp_path)

    def wrong(*args, **kwargs):
        raise AssertionError("outputs differ")

    monkeypatch.setattr("thalnet_mtl.models.export._check", wrong)
    with pytest.raises(AssertionError, match="outputs differ"):
        load_run(tmp_path).export("torch")
    assert not list((tmp_path / "export").iterdir())


def test_tasks_that_share_a_head_are_exported_once(tmp_path):
    tasks = {name: {"name": "toy_rows", "head": "both"} for name in ("one", "other")}
    train(toy(tasks=tasks), tmp_path)
    folder = load_run(tmp_path).export("safetensors")
    assert 'network("both", xs)' in (folder / "README.md").read_text()


def test_a_run_is_scored_by_the_requested_backend_and_loaded_with_any(tmp_path, monkeypatch):
    """Who reads it may be on another machine, or trace it."""
    with monkeypatch.context() as patch:
        patch.setattr(cpp, "sequence", None)  # would be the fastest
        train(toy(train={"ops": "reference", "steps": 4}), tmp_path)
    assert load_run(tmp_path).network.body.ops == "auto"


def test_the_model_card_names_the_step_of_the_weights(tmp_path):
    for name, sections in {"alone": {}, "stream": STREAM}.items():
        train(toy(**sections), tmp_path / name)
    cards = [(tmp_path / name / "model/README.md").read_text() for name in ("alone", "stream")]
    assert "the best on validation." in cards[0] and "the last." in cards[1]


@pytest.mark.parametrize("form", ["torch", "onnx"])
def test_a_program_names_no_folder_of_this_machine(form, tmp_path):
    network = Network(ThalNet(6, 3, 5, 4)).eval()
    network.add_task("a", TaskSpec(6, 3))
    path = export.export(network, form, tmp_path / "program", "a")
    parts = [path.read_bytes()]
    if form == "torch":
        with zipfile.ZipFile(path) as file:
            parts = [file.read(name) for name in file.namelist()]
    for folder in (Path(torch.__file__).parents[1], Path(export.__file__).parents[1]):
        assert not any(str(folder).encode() in part for part in parts)


def test_a_model_folder_with_a_link_is_not_exported(tmp_path):
    network = Network(ThalNet(6, 3, 5, 4)).eval()
    network.save(tmp_path / "model")
    (tmp_path / "secret").write_text("of somebody")
    (tmp_path / "model" / "README.md").unlink()
    (tmp_path / "model" / "README.md").symlink_to(tmp_path / "secret")
    with pytest.raises(UserError, match="is a link to another file"):
        export.export(network, "safetensors", tmp_path / "out", saved=tmp_path / "model")
    assert not (tmp_path / "out").exists()
