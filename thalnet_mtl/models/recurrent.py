"""Bodies made of any module that is called like ``nn.GRU(batch_first=True)``."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from thalnet_mtl.errors import UserError, unknown
from thalnet_mtl.models.body import Body, constructor_arguments
from thalnet_mtl.models.recurrent_state import RecurrentLayout, find_layout
from thalnet_mtl.models.run_rnn import run_rnn
from thalnet_mtl.ops.lengths import Lengths
from thalnet_mtl.registry import register

# Names of the attributes that hold the width of an input and of an output, the first one counts.
INPUT_WIDTH = ("input_size", "inputs")
OUTPUT_WIDTH = ("outputs", "proj_size", "hidden_size", "features")


class RecurrentBody(Body):
    """A body around a module that is called like ``nn.GRU(batch_first=True)``.

    ``ys, state = module(xs, state)``, with ``xs`` (batch, time, inputs) and ``ys`` (batch, time,
    outputs); without a state it starts from zeros. The widths are its attributes ``input_size`` or
    ``inputs``, and ``hidden_size``, ``outputs`` or ``features``. A state is a tensor, or tensors in
    tuples or lists, nested or not. Each tensor has a batch axis at any position: the axis whose
    size changes with that of the batch. The state of the body has the same tensors with the batch
    first: a tensor, or a NamedTuple of all.

    The module is called on a few random numbers to check all this, and that a sequence in chunks
    gives the same as the whole sequence. A sequence that is shorter than its batch stops being
    computed at its end.

    >>> body = RecurrentBody(nn.LSTM(3, 5, batch_first=True))
    >>> ys, state = body(torch.zeros(2, 7, 3))
    >>> ys.shape, state.part0.shape
    (torch.Size([2, 7, 5]), torch.Size([2, 1, 5]))

    A registered module can be named in a configuration: its constructor gets ``input_size`` or
    ``inputs``, the width that the budget allows as ``hidden_size`` or ``features``, and fields of
    ``model`` under their own names, such as ``layers``. Its other arguments are options.

    A network with it can be saved if the class of the module is registered as a ``body``, and keeps
    the arguments of its constructor as attributes; an ``nn.RNN``, ``nn.GRU`` or ``nn.LSTM`` always
    can.

    Raises:
        UserError: the module does not work like this.
    """

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module
        self.inputs, self.outputs = _width(module, INPUT_WIDTH), _width(module, OUTPUT_WIDTH)
        weight = next(module.parameters(), None)
        if weight is None:
            raise UserError(f"{type(module).__name__} has no parameters, so it cannot be a body.")
        if isinstance(module, nn.RNNBase) and not module.batch_first:
            raise UserError(f"{type(module).__name__}: make it with batch_first=True.")
        if isinstance(module, nn.RNNBase) and module.bidirectional:
            raise UserError(
                f"{type(module).__name__}: a bidirectional module reads the end of a sequence "
                f"first, so it cannot carry a state from chunk to chunk."
            )
        self._layout: RecurrentLayout | None = None
        if weight.device.type != "meta":
            self._layout = find_layout(module, self.inputs, self.outputs)

    @property
    def layout(self) -> RecurrentLayout:
        """The tensors of the state, found by calls of the module when they are first needed."""
        if self._layout is None:
            self._layout = find_layout(self.module, self.inputs, self.outputs)
        return self._layout

    @property
    def entry(self) -> type[nn.Module]:
        return TorchRNN if _is_torch_rnn(self.module) else type(self.module)

    def arguments(self) -> dict[str, Any]:
        if _is_torch_rnn(self.module):
            return _torch_arguments(self.module)
        return constructor_arguments(self.module)

    def initial(self, xs: Any) -> Any:
        return self.layout.state(
            xs.new_zeros(xs.shape[0], *shape, dtype=xs.dtype if dtype.is_floating_point else dtype)
            for shape, dtype in zip(self.layout.shapes, self.layout.dtypes, strict=True)
        )

    def run(self, xs: Tensor, state: Any, lengths: Lengths | None = None) -> tuple[Tensor, Any]:
        if lengths is None or isinstance(self.module, nn.RNNBase):
            return self._run(xs, state, lengths)
        return self._run_shrinking(xs, state, lengths)

    def _run(self, xs: Tensor, state: Any, lengths: Lengths | None = None) -> tuple[Tensor, Any]:
        ys, state = run_rnn(self.module, xs, self.layout.to_module(state), lengths)
        return ys.to(xs.dtype), self.layout.from_module(state, xs.dtype)

    def _run_shrinking(self, xs: Tensor, state: Any, lengths: Lengths) -> tuple[Tensor, Any]:
        """Run the sequences that are left, from each length in the batch to the next longer one."""
        parts, segments, start = self.layout.parts(state), list[Tensor](), 0
        for end in lengths.unique().tolist():
            rows = (lengths >= end).nonzero().flatten()
            ys, left = self._run(xs[rows, start:end], self.layout.state(p[rows] for p in parts))
            new = self.layout.parts(left)
            parts = [old.index_copy(0, rows, x) for old, x in zip(parts, new, strict=True)]
            zeros = ys.new_zeros(len(xs), *ys.shape[1:])
            segments.append(zeros.index_copy(0, rows, ys))
            start = end
        segments.append(xs.new_zeros(len(xs), xs.shape[1] - start, self.outputs))
        return torch.cat(segments, 1), self.layout.state(parts)


@register("body", "rnn")
class TorchRNN(RecurrentBody):
    """An nn.RNN, nn.GRU or nn.LSTM of PyTorch with all of its options.

    Args:
        inputs, features, layers: sizes.
        kind: which of the three.
        nonlinearity: of an ``rnn``.
        bias: whether the layers have biases.
        dropout: rate between layers, while training.
        projection: ``proj_size`` of an ``lstm``; 0: none.
    """

    def __init__(
        self,
        inputs: int,
        features: int,
        layers: int = 4,
        kind: Literal["rnn", "gru", "lstm"] = "rnn",
        nonlinearity: Literal["tanh", "relu"] = "tanh",
        bias: bool = True,
        dropout: float = 0.0,
        projection: int = 0,
    ):
        if kind not in _TORCH:
            raise unknown("kind of RNN", kind, _TORCH)
        options: dict[str, Any] = {"bias": bias, "dropout": dropout, "batch_first": True}
        options |= {"nonlinearity": nonlinearity} if kind == "rnn" else {}
        options |= {"proj_size": projection} if kind == "lstm" else {}
        make: Any = _TORCH[kind]
        super().__init__(make(inputs, features, layers, **options))


_TORCH: dict[str, type[nn.RNNBase]] = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


def body_from(kind: type[nn.Module], arguments: Mapping[str, Any]) -> Body:
    """Return a body of a registered class, made from the result of its ``arguments``."""
    if issubclass(kind, Body):
        return kind.from_arguments(arguments)
    return RecurrentBody(kind(**arguments))


def sized_body(
    name: str, kind: type[nn.Module], inputs: int, features: int, options: Mapping[str, Any]
) -> Body:
    """Return a body of a registered class.

    Args:
        name: under which it is registered, for error messages.
        kind: a ``Body``, or any module that ``RecurrentBody`` takes.
        inputs: its argument ``inputs`` or ``input_size``.
        features: its argument ``features`` or ``hidden_size``.
        options: its other arguments.

    Raises:
        UserError: it is no class with these arguments.
    """
    if not inspect.isclass(kind):
        raise UserError(f"body '{name}' is a function: register a class, so that it can be saved.")
    accepted = inspect.signature(kind).parameters
    sizes = {}
    for width, names in (
        (inputs, ("inputs", "input_size")),
        (features, ("features", "hidden_size")),
    ):
        argument = next((name for name in names if name in accepted), "")
        if not argument:
            raise UserError(
                f"body '{name}': its constructor needs an argument {' or '.join(names)}."
            )
        sizes[argument] = width
    try:
        body = kind(**sizes, **options)
    except ValueError as error:
        raise UserError(f"body '{name}': {error}") from error
    return body if isinstance(body, Body) else RecurrentBody(body)


def _is_torch_rnn(module: nn.Module) -> bool:
    return type(module) in _TORCH.values()


def _torch_arguments(module: Any) -> dict[str, Any]:
    """Return the arguments of ``TorchRNN`` for an ``nn.RNN``, ``nn.GRU`` or ``nn.LSTM``."""
    return {
        "inputs": module.input_size,
        "features": module.hidden_size,
        "layers": module.num_layers,
        "kind": type(module).__name__.lower(),
        "nonlinearity": getattr(module, "nonlinearity", "tanh"),
        "bias": module.bias,
        "dropout": module.dropout,
        "projection": module.proj_size,
    }


def _width(module: nn.Module, names: Sequence[str]) -> int:
    """Return the first of some attributes that is a positive number."""
    for name in names:
        width = getattr(module, name, None)
        if isinstance(width, int) and width > 0:
            return width
    raise UserError(
        f"{type(module).__name__} cannot be a body: keep its width as one of the attributes "
        f"{', '.join(names)}."
    )
