"""Exports of a network to other programs; each is checked to give the same outputs."""

import importlib.util
import json
import shutil
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from thalnet_mtl.errors import UserError, unknown
from thalnet_mtl.files import new_file, staged
from thalnet_mtl.models.modes import evaluation_mode
from thalnet_mtl.models.network import Network
from thalnet_mtl.ops.inputs import Inputs, first_input, map_inputs
from thalnet_mtl.topology.scaling import Scaling

Scalings = tuple[Scaling | None, Scaling | None]  # of inputs, and of targets

METADATA = "metadata.json"  # of a torch program
TRACED, CHECKED = 3, 5  # batch sizes: an exported program takes any, so a second one checks it


class Program(nn.Module):
    """A function of a network for one task, from tensors to tensors, that can be exported."""

    input_mean: Tensor | None
    input_deviation: Tensor | None
    output_mean: Tensor | None
    output_deviation: Tensor | None

    def __init__(self, network: Network, task: str, scalings: Scalings = (None, None)):
        super().__init__()
        self.network, self.task = network, task
        self.generator = torch.Generator()
        for name, scaling in zip(("input", "output"), scalings, strict=True):
            for part in ("mean", "deviation"):
                values = None if scaling is None else torch.tensor(getattr(scaling, part))
                self.register_buffer(f"{name}_{part}", values)

    def scale(self, x: Inputs) -> Inputs:
        """Return inputs (…, inputs) as the network was trained on them."""
        mean, deviation = self.input_mean, self.input_deviation
        if mean is None or deviation is None:
            return x
        return map_inputs(lambda x: (x - mean) / deviation, x)

    def in_units(self, outputs: Tensor) -> Tensor:
        """Return outputs (…, outputs) of the network in the units of the targets."""
        if self.output_mean is None or self.output_deviation is None:
            return outputs
        return outputs * self.output_deviation + self.output_mean

    def example(self, batch: int) -> tuple[Any, ...]:
        """Return random arguments of ``forward``, always the same for a batch size."""
        raise NotImplementedError

    def names(self) -> tuple[list[str], list[str]]:
        """Return the names of the inputs behind those of the task, and of the outputs."""
        raise NotImplementedError

    def draw(self, *shape: int) -> Any:
        """Return random inputs of the task: (…, inputs), or (…) tokens; by name if it has names."""
        task = self.network.adapter(self.task).task
        device = next(self.network.parameters()).device

        def draw(name: str = "") -> Tensor:
            width = task.input_width(name)
            if task.tokens:
                return torch.randint(width, shape, generator=self.generator).to(device)
            return torch.rand(*shape, width, generator=self.generator).to(device)

        return {name: draw(name) for name in task.input_names} if task.input_names else draw()


class Step(Program):
    """A step of a network for one task, with the state as plain tensors in and out."""

    def __init__(self, network: Network, task: str, scalings: Scalings = (None, None)):
        super().__init__(network, task, scalings)
        self.kind = type(network.initial(task, 1))

    def forward(self, x: Inputs, *state: Tensor) -> tuple[Tensor, ...]:
        """Return outputs and the next state.

        ``x`` is (batch, inputs), or (batch,) tokens; or a mapping of such for named inputs.
        """
        carried = state[0] if self.kind is Tensor else self.kind(*state)
        xs = map_inputs(lambda x: x.unsqueeze(1), self.scale(x))
        logits, carried = self.network(self.task, xs, carried)
        logits = self.in_units(logits.flatten(0, -2))
        return (logits, carried) if self.kind is Tensor else (logits, *carried)

    def example(self, batch: int) -> tuple[Any, ...]:
        self.generator.manual_seed(0)
        zeros = self.network.initial(self.task, batch)
        parts = [zeros] if self.kind is Tensor else list(zeros)
        x = self.draw(batch)
        return x, *(
            (torch.rand(part.shape, generator=self.generator) - 0.5).to(part) for part in parts
        )

    def names(self) -> tuple[list[str], list[str]]:
        states = [f"state{k}" for k in range(len(self.example(1)) - 1)]
        return states, ["outputs", *(f"{name}_next" for name in states)]


class Sequences(Program):
    """A network for one task on padded sequences of unequal lengths, from their first step."""

    def __init__(self, network: Network, task: str, scalings: Scalings = (None, None)):
        super().__init__(network, task, scalings)
        self.steps = network.adapter(task).task.steps
        if not self.steps:
            raise UserError(f"lengths: task '{task}' has no longest sequence; export its step.")

    def forward(self, x: Inputs, lengths: Tensor) -> tuple[Tensor, ...]:
        """Return (batch, outputs), or at every step (batch, steps, outputs).

        ``x`` is (batch, steps, inputs), or (batch, steps) tokens; or a mapping of such for named
        inputs. ``lengths`` (batch,) are int64 from 1 to the steps of the task.
        """
        return (self.in_units(self.network(self.task, self.scale(x), None, lengths)[0]),)

    def example(self, batch: int) -> tuple[Any, ...]:
        self.generator.manual_seed(0)
        x = self.draw(batch, self.steps)
        lengths = torch.randint(1, self.steps + 1, (batch,), generator=self.generator)
        return x, lengths.to(first_input(x).device)

    def names(self) -> tuple[list[str], list[str]]:
        return ["lengths"], ["outputs"]


def to_torch(program: Program, path: Path, metadata: Mapping[str, str]) -> None:
    """Write a ``torch.export`` program for any batch, with ``METADATA`` among its extra files."""
    inputs = program.example(CHECKED)
    with new_file(path) as file:
        extra = {METADATA: json.dumps(dict(metadata), ensure_ascii=False)}
        torch.export.save(_program(program), file, extra_files=extra)
    _check(program(*inputs), torch.export.load(path).module()(*inputs), "torch")


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

    inputs = program.example(CHECKED)
    names, outputs = program.names()
    names = [*(inputs[0] if isinstance(inputs[0], dict) else ["x"]), *names]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's, about torch and onnxscript
        exported = torch.onnx.export(
            _program(program), input_names=names, output_names=outputs, verbose=False
        )
    assert exported is not None
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


def _program(program: Program) -> Any:
    inputs = program.example(TRACED)
    batch = torch.export.Dim("batch", min=1)
    first, *rest = tree_map(lambda _: {0: batch}, inputs)
    shapes = {"x": first} | (
        {"state": tuple(rest)} if isinstance(program, Step) else {"lengths": rest[0]}
    )
    with warnings.catch_warnings():
        # nn.GRU and nn.LSTM keep a list of their weights as well.
        warnings.filterwarnings("ignore", "The tensor attributes .*_flat_weights", UserWarning)
        try:
            exported = torch.export.export(program, inputs, dynamic_shapes=shapes)
        except Exception as error:  # a body of a user may do what cannot be traced
            reason = str(error).partition("\n")[0]
            raise UserError(
                f"{program.network.body.entry.__name__} cannot be exported as a program: {reason}"
            ) from error
    for part in exported.graph_module.modules():
        for node in part.graph.nodes if isinstance(part, torch.fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)  # it names folders of this machine
    return exported


@torch.no_grad()
def _check(expected: Any, actual: Any, form: str, exact: bool = False) -> None:
    """Raise unless both are equal, to float32 rounding or to the bit."""
    for a, b in zip(expected, actual, strict=True):
        if exact:
            assert torch.equal(a, b), f"{form}: outputs differ"
        else:
            torch.testing.assert_close(b, a, msg=lambda m: f"{form}: outputs differ: {m}")
