"""A trained network for other programs, each form checked to give the same outputs."""

import importlib.util
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from thalnet_mtl import checkpoint
from thalnet_mtl import config as configs
from thalnet_mtl.config import Config, UserError
from thalnet_mtl.network import Network, build
from thalnet_mtl.registry import lookup
from thalnet_mtl.tasks import Task

TRACED, CHECKED = 3, 5  # batches: a program takes any, so it is checked on another


@dataclass(frozen=True)
class LoadedRun:
    """What a run directory says: its configuration, its task, its best network so far."""

    folder: Path
    config: Config
    task: Task
    network: Network
    step: int


def load_run(folder: Path) -> LoadedRun:
    """Read a run, finished or not; its data is not loaded."""
    path = folder / "config.yaml"
    if not path.is_file():
        raise UserError(f"{folder} is not a run directory: it has no config.yaml.")
    try:
        tree = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    config = configs.overlay(Config(), tree, str(path))
    task = lookup("task", config.task.name)(config.task)
    network = build(config.model, {task.name: task.interface})
    path = folder / "checkpoint" / "best.pt"
    best = checkpoint.load(path)
    checkpoint.load_weights(network, best["network"], path)
    return LoadedRun(folder, config, task, network.eval(), best["step"])


class Step(nn.Module):
    """One step of a network for one task, with the state as plain tensors in and out."""

    def __init__(self, network: Network, task: str):
        super().__init__()
        self.network, self.task = network, task
        self.kind = type(network.body.initial(torch.zeros(1, 1, 1)))

    def forward(self, x: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """Logits, then the next state. ``x`` is (batch, inputs), or (batch,) tokens."""
        carried = state[0] if self.kind is Tensor else self.kind(*state)
        logits, carried = self.network(self.task, x.unsqueeze(1), carried)
        logits = logits.flatten(0, -2)
        return (logits, carried) if self.kind is Tensor else (logits, *carried)

    def example(self, batch: int) -> tuple[Tensor, ...]:
        """An input and a state that no symmetry makes easy."""
        task = self.network.port(self.task).task
        generator = torch.Generator().manual_seed(0)
        if task.tokens:
            x = torch.randint(task.inputs, (batch,), generator=generator)
        else:
            x = torch.rand(batch, task.inputs, generator=generator)
        zeros = self.network.body.initial(torch.zeros(batch, 1, 1))
        parts = [zeros] if self.kind is Tensor else list(zeros)
        return x, *(torch.rand(part.shape, generator=generator) - 0.5 for part in parts)


def to_safetensors(run: LoadedRun, out: Path | None) -> Path:
    """A folder with ``config.json`` and ``model.safetensors``; ``load_model`` reads it back."""
    source, folder = run.folder / "model", out or run.folder / "export" / "model"
    if not source.is_dir():
        raise UserError(f"{run.folder} is not finished: it has no model/ yet.")
    shutil.copytree(source, folder, dirs_exist_ok=True)
    step, again = (Step(n, run.task.name) for n in (run.network, checkpoint.load_model(folder)))
    inputs = step.example(CHECKED)
    _check(step(*inputs), again(*inputs), "safetensors", exact=True)
    return folder


def to_torch(run: LoadedRun, out: Path | None) -> Path:
    """A ``torch.export`` program of one streaming step, for any batch."""
    step, path = Step(run.network, run.task.name), _file(run, out, "step.pt2")
    inputs = step.example(CHECKED)
    torch.export.save(_program(step), path)
    _check(step(*inputs), torch.export.load(path).module()(*inputs), "torch")
    return path


def to_onnx(run: LoadedRun, out: Path | None) -> Path:
    """The same step as ONNX: inputs x, state0, …; outputs logits, state0_next, …"""
    missing = [n for n in ("onnx", "onnxscript", "onnxruntime") if not importlib.util.find_spec(n)]
    if missing:
        raise UserError(f"onnx needs {', '.join(missing)}: pip install 'thalnet-mtl[onnx]'.")
    import onnxruntime

    step, path = Step(run.network, run.task.name), _file(run, out, "step.onnx")
    inputs = step.example(CHECKED)
    names = ["x", *(f"state{k}" for k in range(len(inputs) - 1))]
    outputs = ["logits", *(f"{name}_next" for name in names[1:])]
    program = torch.onnx.export(
        _program(step), input_names=names, output_names=outputs, verbose=False
    )
    assert program is not None
    program.save(path)
    session = onnxruntime.InferenceSession(path)
    feed = {name: x.numpy() for name, x in zip(names, inputs, strict=True)}
    _check(step(*inputs), tuple(torch.from_numpy(y) for y in session.run(None, feed)), "onnx")
    return path


FORMATS: dict[str, Callable[[LoadedRun, Path | None], Path]] = {
    "safetensors": to_safetensors,
    "torch": to_torch,
    "onnx": to_onnx,
}


def _program(step: Step) -> Any:
    inputs = step.example(TRACED)
    batch = torch.export.Dim("batch", min=1)
    shapes = {"x": {0: batch}, "state": tuple({0: batch} for _ in inputs[1:])}
    with warnings.catch_warnings():
        # nn.GRU and nn.LSTM keep a list of their weights beside the weights themselves.
        warnings.filterwarnings("ignore", "The tensor attributes .*_flat_weights", UserWarning)
        return torch.export.export(step, inputs, dynamic_shapes=shapes)


def _file(run: LoadedRun, out: Path | None, name: str) -> Path:
    path = out or run.folder / "export" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


@torch.no_grad()
def _check(expected: Any, found: Any, what: str, exact: bool = False) -> None:
    """Raise unless both give the same, to float32 rounding or to the bit."""
    for a, b in zip(expected, found, strict=True):
        if exact:
            assert torch.equal(a, b), f"{what}: outputs differ"
        else:
            torch.testing.assert_close(b, a, msg=lambda m: f"{what}: outputs differ: {m}")
