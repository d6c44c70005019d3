"""Exports of a network to other programs; each is checked to give the same outputs."""

import importlib.util
import json
import shutil
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from thalnet_mtl.errors import UserError, unknown
from thalnet_mtl.files import new_file, staged
from thalnet_mtl.models.modes import evaluation_mode
from thalnet_mtl.models.network import Network
from thalnet_mtl.models.programs import Program, Scalings, Sequences, Step, traced

METADATA = "metadata.json"  # of a torch program
CHECKED = 5  # a batch size, other than that of the trace: a program takes any


def to_torch(program: Program, path: Path, metadata: Mapping[str, str]) -> None:
    """Write a ``torch.export`` program for any batch, with ``METADATA`` among its extra files."""
    inputs = program.example(CHECKED)
    with new_file(path) as file:
        extra = {METADATA: json.dumps(dict(metadata), ensure_ascii=False)}
        torch.export.save(traced(program), file, extra_files=extra)
    with path.open("rb") as file:  # by its path PyTorch warns of any name without .pt2
        loaded = torch.export.load(file)
    _check(program(*inputs), loaded.module()(*inputs), "torch")


def to_onnx(program: Program, path: Path, metadata: Mapping[str, str]) -> None:
    """Write the same in ONNX, with its metadata properties.

    The inputs of a step are x, state0, …, and its results outputs, state0_next, …; the inputs of
    sequences are x and lengths. Named inputs have their names instead of x.
    """
    packages = "onnx", "onnxscript", "onnxruntime"
    missing = [name for name in packages if not importlib.util.find_spec(name)]
    if missing:
        raise UserError(f"onnx needs {', '.join(missing)}: pip install 'thalnet-mtl[onnx]'.")
    import onnxruntime
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    inputs = program.example(CHECKED)
    names, outputs = program.names()
    names = [*(inputs[0] if isinstance(inputs[0], dict) else ["x"]), *names]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's, about torch and onnxscript
        exported = torch.onnx.export(
            traced(program), input_names=names, output_names=outputs, verbose=False
        )
    assert exported is not None
    RemoveUnusedNodesPass()(exported.model)  # onnxruntime would warn of them whenever it loads it
    exported.model.metadata_props.update(metadata)
    exported.save(path)
    session = onnxruntime.InferenceSession(path)
    feed = {name: x.numpy() for name, x in zip(names, tree_leaves(inputs), strict=True)}
    _check(program(*inputs), tuple(torch.from_numpy(y) for y in session.run(None, feed)), "onnx")


# By format: the function that writes a program, None for the whole network.
FORMATS: dict[str, Callable[[Program, Path, Mapping[str, str]], None] | None] = {
    "safetensors": None,
    "torch": to_torch,
    "onnx": to_onnx,
}
SUFFIXES = {"torch": ".pt2", "onnx": ".onnx"}


def default_name(form: str, lengths: bool = False) -> str:
    """Return the usual name of an exported file or folder."""
    if form not in SUFFIXES:
        return "model"
    return ("sequences" if lengths else "step") + SUFFIXES[form]


def export(
    network: Network,
    form: str,
    path: Path | str,
    task: str | None = None,
    *,
    lengths: bool = False,
    scalings: Scalings = (None, None),
    metadata: Mapping[str, str] | None = None,
    saved: Path | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a network in one of ``FORMATS`` and return the path; a failed export leaves nothing.

    Args:
        network: on the CPU for ``onnx``.
        form: ``safetensors``, a folder with the whole network; ``torch`` or ``onnx``, a program of
            one task.
        path: the file or folder to write.
        task: name of the task of a program; may be left out if there is only one.
        lengths: whether the program computes padded sequences with their lengths, see
            ``Sequences``, instead of one streaming step.
        scalings: of the inputs and of the targets on which it was trained, if they were scaled; a
            program does both, so that its inputs and outputs are in units of the data.
        metadata: texts by name that a program holds.
        saved: for ``safetensors``, a folder of the same saved network to copy with its model card.
        overwrite: whether ``path`` may exist.

    Raises:
        UserError: ``path`` exists, or a package is missing.
        OSError: ``path`` cannot be written.
    """
    path = Path(path)
    if form not in FORMATS:
        raise unknown("format", form, FORMATS)
    if path.exists() and not overwrite:
        raise UserError(f"{path} exists already; choose another path.")
    write = FORMATS[form]
    if write is None and lengths:
        raise UserError(f"lengths: {form} holds the whole network, which takes them already.")
    if task is not None or write is not None:
        task = _task(network, task)
    with evaluation_mode(network), staged(path) as part:
        if write is not None:
            assert task is not None
            program = (Sequences if lengths else Step)(network, task, scalings)
            write(program, part, metadata or {})
        else:
            if saved is not None:
                if links := [path for path in saved.rglob("*") if path.is_symlink()]:
                    raise UserError(f"{links[0]} is a link to another file: nothing is exported.")
                shutil.copytree(saved, part)
            else:
                network.save(part)
            _check_folder(network, part)
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


@torch.no_grad()
def _check(expected: Any, actual: Any, form: str, exact: bool = False) -> None:
    """Raise unless both are equal, to float32 rounding or to the bit."""
    for a, b in zip(expected, actual, strict=True):
        if exact:
            assert torch.equal(a, b), f"{form}: outputs differ"
        else:
            torch.testing.assert_close(b, a, msg=lambda m: f"{form}: outputs differ: {m}")
