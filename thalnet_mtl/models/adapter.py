"""The adapter of a task: encoders in front of a body and a head behind it."""

from collections.abc import Collection, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from thalnet_mtl.models.body import WHOLE, Body
from thalnet_mtl.models.modes import Freezable
from thalnet_mtl.models.readings.base import IndexMap
from thalnet_mtl.ops.inputs import Inputs, map_inputs
from thalnet_mtl.ops.lengths import Lengths, last_steps, zero_past_end
from thalnet_mtl.topology.spec import AdapterSpec, TaskSpec


class OneHot(nn.Module):
    """An encoder of tokens as one-hot rows of unit mean square: √vocabulary at the token, else 0.

    The usual initial weights expect inputs of that size; a plain 1 is hardly seen beside a context.
    """

    def __init__(self, vocabulary: int):
        super().__init__()
        self.vocabulary = vocabulary

    def forward(
        self, xs: Tensor, dtype: torch.dtype | None = None
    ) -> Float[Tensor, "*batch vocabulary"]:
        size = torch.full((), self.vocabulary**0.5, dtype=dtype, device=xs.device)
        return F.one_hot(xs, self.vocabulary) * size


class TaskAdapter(Freezable):
    """The encoders and the head of one task."""

    def __init__(self, body: Body, spec: AdapterSpec):
        super().__init__()
        self.spec = spec
        self.encoders = nn.ModuleDict()
        for name, width in body.input_widths(spec.input_modules).items():
            self.encoders[name] = encoder(spec.task, width, name, spec.encode)
        self.head = nn.Linear(body.feature_width(spec.output_modules), spec.task.outputs)

    def connect(self, body: Body, spec: AdapterSpec) -> dict[str, IndexMap]:
        """Follow other input and output modules. Returns changes of shape by parameter name."""
        before, old, self.spec = self.spec.output_modules, self.head, spec
        widths = body.input_widths(spec.input_modules)
        for name in [name for name in self.encoders if name not in widths]:
            del self.encoders[name]
        for name, width in widths.items():
            if name not in self.encoders:
                new = encoder(spec.task, width, name, spec.encode).to(old.weight)
                self.encoders[name] = new.train(self.training)
        if spec.output_modules == before:
            return {}
        columns, new_columns = (
            head_columns(body, names) for names in (before, spec.output_modules)
        )
        source = [
            k for name, new in new_columns.items() for k in columns.get(name, [None] * len(new))
        ]
        remap = IndexMap(1, tuple(source))
        self.head = nn.Linear(len(source), spec.task.outputs).to(old.weight).train(self.training)
        self.head.weight = nn.Parameter(remap(old.weight.detach()), old.weight.requires_grad)
        self.head.bias = old.bias
        return {"head.weight": remap}

    @property
    def task(self) -> TaskSpec:
        """The shape of the task."""
        return self.spec.task

    def zeros(self, *shape: int) -> Tensor:
        """Return zeros in the type of what the body computes, on its device."""
        weight = self.head.weight
        return torch.zeros(shape) if callable(weight) else weight.new_zeros(shape)

    @property
    def dtype(self) -> torch.dtype:
        """The type of what the body computes."""
        weight = self.head.weight
        # Dynamic quantization: weights are integers behind a method, all else is in float32.
        return torch.get_default_dtype() if callable(weight) else weight.dtype

    def answer(self, ys: Tensor, lengths: Lengths | None = None) -> Tensor:
        """Return the outputs of the head for those of the body: at every step, or at the last.

        With ``lengths``, the last step is that of each sequence, and steps past it get zeros.
        """
        if self.task.every_step:
            return zero_past_end(self.head(ys), lengths)
        return self.head(last_steps(ys, lengths))

    def encode(self, xs: Inputs, active: Collection[str] = ()) -> Inputs:
        """Return the input of the body in the type of its weights, by active input module."""
        dtype = self.dtype
        xs = map_inputs(Tensor.long if self.task.tokens else lambda x: x.to(dtype), xs)

        def encode(name: str, encoder: nn.Module) -> Tensor:
            x = xs[name] if isinstance(xs, Mapping) else xs
            return encoder(x, dtype) if isinstance(encoder, OneHot) else encoder(x).to(dtype)

        encoders = self.encoders.items()
        rows = {name: encode(name, e) for name, e in encoders if name in (WHOLE, *active)}
        return rows.get(WHOLE, rows)


def head_columns(body: Body, modules: Sequence[str]) -> dict[str, Sequence[int]]:
    """Return by module the columns of a head that reads some modules, side by side."""
    places, end = dict[str, Sequence[int]](), 0
    for name in modules:
        start, end = end, end + body.feature_width([name])
        places[name] = range(start, end)
    return places


def encoder(task: TaskSpec, width: int, module: str = "", trainable: bool = False) -> nn.Module:
    """Return the encoder from the input of a module to rows of a width.

    Where both are equally wide it is the identity. If it is to be trainable in any case, it begins
    as the one of ``resizing``, which is the identity then.
    """
    inputs = task.input_width(module)
    if task.tokens:
        return nn.Embedding(inputs, width) if trainable or inputs != width else OneHot(width)
    if not trainable:
        return nn.Linear(inputs, width) if inputs != width else nn.Identity()
    return resizing(inputs, width)


def resizing(inputs: int, width: int) -> nn.Linear:
    """Return the layer that brings rows to another width by linear interpolation."""
    linear = nn.Linear(inputs, width)
    with torch.no_grad():
        linear.weight.copy_(F.interpolate(torch.eye(inputs)[None], width, mode="linear")[0].T)
        linear.bias.zero_()
    return linear
