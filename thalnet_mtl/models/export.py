"""A trained network for other programs, each form checked to give the same outputs."""

import importlib.util
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from thalnet_mtl.errors import UserError
from thalnet_mtl.models.network import Network
from thalnet_mtl.models.saving import load_model
from thalnet_mtl.training.trained_run import TrainedRun

TRACED, CHECKED = 3, 5  # batches: a program takes any, so it is checked on another


class Step(nn.Module):
    """One step of a network for one task, with the state as plain tensors in and out."""

    def __init__(self, network: Network, task: str):
        super().__init__()
        self.network, self.task = network, task
        self.kind = type(network.initial(task, 1))

    def forward(self, x: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """Logits, then the next state. ``x`` is (batch, inputs), or (batch,) tokens."""
        carried = state[0] if self.kind is Tensor else self.kind(*state)
        logits, carried = self.network(self.task, x.unsqueeze(1), carried)
        logits = logits.flatten(0, -2)
        return (logits, carried) if self.kind is Tensor else (logits, *carried)

    def example(self, batch: int) -> tuple[Tensor, ...]:
        """An input and a state that no symmetry makes easy."""
        task = self.network.adapter(self.task).task
        generator = torch.Generator().manual_seed(0)
        if task.tokens:
            x = torch.randint(task.inputs, (batch,), generator=generator)
        else:
            x = torch.rand(batch, task.inputs, generator=generator)
        zeros = self.network.initial(self.task, batch)
        parts = [zeros] if self.kind is Tensor else list(zeros)
        return x, *(torch.rand(part.shape, generator=generator) - 0.5 for part in parts)


def to_safetensors(run: TrainedRun, folder: Path, task: str | None = None) -> None:
    """A folder with ``config.json`` and ``model.safetensors``; ``load_model`` reads it back."""
    source = run.folder / "model"
    if not source.is_dir():
        raise UserError(f"{run.folder} is not finished: it has no model/ yet.")
    shutil.copytree(source, folder)
    for name in run.network.adapters:
        step, again = (Step(net, name) for net in (run.network, load_model(folder)))
        inputs = step.example(CHECKED)
        _check(step(*inputs), again(*inputs), "safetensors", exact=True)


def to_torch(run: TrainedRun, path: Path, task: str | None = None) -> None:
    """A ``torch.export`` program of one streaming step, for any batch."""
    step = Step(run.network, run.task(task).head_name)
    inputs = step.example(CHECKED)
    torch.export.save(_program(step), path)
    _check(step(*inputs), torch.export.load(path).module()(*inputs), "torch")


def to_onnx(run: TrainedRun, path: Path, task: str | None = None) -> None:
    """The same step as ONNX: inputs x, state0, …; outputs logits, state0_next, …"""
    missing = [n for n in ("onnx", "onnxscript", "onnxruntime") if not importlib.util.find_spec(n)]
    if missing:
        raise UserError(f"onnx needs {', '.join(missing)}: pip install 'thalnet-mtl[onnx]'.")
    import onnxruntime

    step = Step(run.network, run.task(task).head_name)
    inputs = step.example(CHECKED)
    names = ["x", *(f"state{k}" for k in range(len(inputs) - 1))]
    outputs = ["logits", *(f"{name}_next" for name in names[1:])]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own, about torch and onnxscript
        program = torch.onnx.export(
            _program(step), input_names=names, output_names=outputs, verbose=False
        )
    assert program is not None
    program.save(path)
    session = onnxruntime.InferenceSession(path)
    feed = {name: x.numpy() for name, x in zip(names, inputs, strict=True)}
    _check(step(*inputs), tuple(torch.from_numpy(y) for y in session.run(None, feed)), "onnx")


FORMATS: dict[str, tuple[Callable[[TrainedRun, Path, str | None], None], str]] = {
    "safetensors": (to_safetensors, "model"),
    "torch": (to_torch, "step.pt2"),
    "onnx": (to_onnx, "step.onnx"),
}


def export(run: TrainedRun, form: str, out: Path | None = None, task: str | None = None) -> Path:
    """Write one of ``FORMATS``, by default into the run; nothing is left of one that failed.

    A step is that of one task, which has to be named if the run has several.

    Raises:
        UserError: ``out`` is there already or cannot be written, or a package is missing.
    """
    write, name = FORMATS[form]
    if task:
        run.task(task)  # raises if there is none of that name
    path = out or run.folder / "export" / name
    if out and out.exists():
        raise UserError(f"{out} is there already.")
    part = path.with_name(f"part-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove(part)
        write(run, part, task)
        _remove(path)
        part.rename(path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}.") from error
    finally:
        _remove(part)
    return path


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    elif path.parent.is_dir():
        path.unlink(missing_ok=True)


def _program(step: Step) -> Any:
    inputs = step.example(TRACED)
    batch = torch.export.Dim("batch", min=1)
    shapes = {"x": {0: batch}, "state": tuple({0: batch} for _ in inputs[1:])}
    with warnings.catch_warnings():
        # nn.GRU and nn.LSTM keep a list of their weights beside the weights themselves.
        warnings.filterwarnings("ignore", "The tensor attributes .*_flat_weights", UserWarning)
        return torch.export.export(step, inputs, dynamic_shapes=shapes)


@torch.no_grad()
def _check(expected: Any, found: Any, what: str, exact: bool = False) -> None:
    """Raise unless both give the same, to float32 rounding or to the bit."""
    for a, b in zip(expected, found, strict=True):
        if exact:
            assert torch.equal(a, b), f"{what}: outputs differ"
        else:
            torch.testing.assert_close(b, a, msg=lambda m: f"{what}: outputs differ: {m}")
