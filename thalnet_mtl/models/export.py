"""Exports of a network to other programs; each is checked to give the same outputs."""

import importlib.util
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from thalnet_mtl.errors import UserError, unknown
from thalnet_mtl.models.network import Network
from thalnet_mtl.models.sequences import Inputs, map_inputs

TRACED, CHECKED = 3, 5  # batch sizes: an exported program takes any, so a second one checks it


class Step(nn.Module):
    """A step of a network for one task, with the state as plain tensors in and out."""

    def __init__(self, network: Network, task: str):
        super().__init__()
        self.network, self.task = network, task
        self.kind = type(network.initial(task, 1))

    def forward(self, x: Inputs, *state: Tensor) -> tuple[Tensor, ...]:
        """Return logits and the next state.

        ``x`` is (batch, inputs), or (batch,) tokens; or a mapping of such for named inputs.
        """
        carried = state[0] if self.kind is Tensor else self.kind(*state)
        xs = map_inputs(x, lambda x: x.unsqueeze(1))
        logits, carried = self.network(self.task, xs, carried)
        logits = logits.flatten(0, -2)
        return (logits, carried) if self.kind is Tensor else (logits, *carried)

    def example(self, batch: int) -> tuple[Any, ...]:
        """Return a random input and a random state."""
        task = self.network.adapter(self.task).task
        generator = torch.Generator().manual_seed(0)
        zeros = self.network.initial(self.task, batch)
        parts = [zeros] if self.kind is Tensor else list(zeros)

        def draw(name: str = "") -> Tensor:
            width = task.input_width(name)
            if task.tokens:
                x = torch.randint(width, (batch,), generator=generator)
            else:
                x = torch.rand(batch, width, generator=generator)
            return x.to(parts[0].device)

        x = {name: draw(name) for name in task.input_names} if task.input_names else draw()
        state = [(torch.rand(part.shape, generator=generator) - 0.5).to(part) for part in parts]
        return x, *state


def to_safetensors(network: Network, path: Path, task: str) -> None:
    """Write a folder that ``Network.load`` reads; ``task`` is ignored."""
    network.save(path)


def to_torch(network: Network, path: Path, task: str) -> None:
    """Write a ``torch.export`` program of one streaming step of a task, for any batch."""
    step = Step(network, task)
    inputs = step.example(CHECKED)
    torch.export.save(_program(step), path)
    _check(step(*inputs), torch.export.load(path).module()(*inputs), "torch")


def to_onnx(network: Network, path: Path, task: str) -> None:
    """Write the same step in ONNX: inputs x, state0, …; outputs logits, state0_next, …

    Named inputs have their names instead of x.
    """
    packages = "onnx", "onnxscript", "onnxruntime"
    missing = [name for name in packages if not importlib.util.find_spec(name)]
    if missing:
        raise UserError(f"onnx needs {', '.join(missing)}: pip install 'thalnet-mtl[onnx]'.")
    import onnxruntime

    step = Step(network, task)
    inputs = step.example(CHECKED)
    rows = list(inputs[0]) if isinstance(inputs[0], dict) else ["x"]
    states = [f"state{k}" for k in range(len(inputs) - 1)]
    names, outputs = [*rows, *states], ["logits", *(f"{name}_next" for name in states)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's, about torch and onnxscript
        program = torch.onnx.export(
            _program(step), input_names=names, output_names=outputs, verbose=False
        )
    assert program is not None
    program.save(path)
    session = onnxruntime.InferenceSession(path)
    feed = {name: x.numpy() for name, x in zip(names, tree_leaves(inputs), strict=True)}
    _check(step(*inputs), tuple(torch.from_numpy(y) for y in session.run(None, feed)), "onnx")


# By format: the function that writes it, and the usual name of what it writes.
FORMATS: dict[str, tuple[Callable[[Network, Path, str], None], str]] = {
    "safetensors": (to_safetensors, "model"),
    "torch": (to_torch, "step.pt2"),
    "onnx": (to_onnx, "step.onnx"),
}


def export(
    network: Network,
    form: str,
    path: Path | str,
    task: str | None = None,
    *,
    saved: Path | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a network in one of ``FORMATS`` and return the path; a failed export leaves nothing.

    Args:
        network: on the CPU for ``onnx``.
        form: ``safetensors``, a folder with the whole network; ``torch`` or ``onnx``, a program of
            one streaming step of one task.
        path: the file or folder to write.
        task: name of the task whose step is written; may be left out if there is only one.
        saved: for ``safetensors``, a folder of the same saved network to copy with its model card.
        overwrite: whether ``path`` may exist.

    Raises:
        UserError: ``path`` exists or cannot be written, or a package is missing.
    """
    path = Path(path)
    if form not in FORMATS:
        raise unknown("format", form, FORMATS)
    if path.exists() and not overwrite:
        raise UserError(f"{path} exists already; choose another path.")
    if task is not None or form != "safetensors":
        task = _task(network, task)
    write, _ = FORMATS[form]
    part = path.with_name(f"part-{path.name}")
    training = network.training
    try:
        network.eval()
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove(part)
        if saved is not None and form == "safetensors":
            shutil.copytree(saved, part)
        else:
            write(network, part, task or "")
        if form == "safetensors":
            _check_folder(network, part)
        _remove(path)
        part.rename(path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}.") from error
    finally:
        network.train(training)
        _remove(part)
    return path


def _task(network: Network, task: str | None) -> str:
    if task is None and len(network.adapters) != 1:
        raise UserError(f"name the task to export: one of {', '.join(network.adapters)}.")
    task = next(iter(network.adapters)) if task is None else task
    network.adapter(task)
    return task


def _check_folder(network: Network, folder: Path) -> None:
    loaded = Network.load(folder).to(next(network.parameters()).device)
    for name in network.adapters:
        step, again = Step(network, name), Step(loaded, name)
        inputs = step.example(CHECKED)
        _check(step(*inputs), again(*inputs), "safetensors", exact=True)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    elif path.parent.is_dir():
        path.unlink(missing_ok=True)


def _program(step: Step) -> Any:
    inputs = step.example(TRACED)
    batch = torch.export.Dim("batch", min=1)
    shapes = {
        "x": tree_map(lambda _: {0: batch}, inputs[0]),
        "state": tuple({0: batch} for _ in inputs[1:]),
    }
    with warnings.catch_warnings():
        # nn.GRU and nn.LSTM keep a list of their weights as well.
        warnings.filterwarnings("ignore", "The tensor attributes .*_flat_weights", UserWarning)
        try:
            return torch.export.export(step, inputs, dynamic_shapes=shapes)
        except Exception as error:  # a body of a user may do what cannot be traced
            reason = str(error).partition("\n")[0]
            raise UserError(
                f"{step.network.body.entry.__name__} cannot be exported as a program: {reason}"
            ) from error


@torch.no_grad()
def _check(expected: Any, actual: Any, form: str, exact: bool = False) -> None:
    """Raise unless both are equal, to float32 rounding or to the bit."""
    for a, b in zip(expected, actual, strict=True):
        if exact:
            assert torch.equal(a, b), f"{form}: outputs differ"
        else:
            torch.testing.assert_close(b, a, msg=lambda m: f"{form}: outputs differ: {m}")
