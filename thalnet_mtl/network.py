"""A network joins tasks to a body: per task an encoder in front and a head behind.

``logits, state = network(task, xs, state)``. Tasks may differ in width, kind and length; the body
between them is ThalNet or a baseline, and knows none of them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from thalnet_mtl.baselines import MLP
from thalnet_mtl.body import Body, Inputs, Interface, check_pace, check_sequence, usable
from thalnet_mtl.config import ModelConfig, UserError, unknown
from thalnet_mtl.registry import lookup
from thalnet_mtl.thalnet import ThalNet, check_names

MOST_PARAMETERS = 10**10  # more is a slip of the finger, and would end in the allocator
BODY = "*"  # where a baseline takes its input; no module can be called that


class OneHot(nn.Module):
    """Tokens to one-hot rows of unit mean square: √vocabulary at the token, 0 elsewhere.

    The usual initial weights expect inputs of that size; a plain 1 is hardly seen beside a context.
    """

    def __init__(self, vocabulary: int):
        super().__init__()
        self.vocabulary = vocabulary

    def forward(self, xs: Tensor) -> Float[Tensor, "*batch vocabulary"]:
        return F.one_hot(xs, self.vocabulary) * self.vocabulary**0.5


class Port(nn.Module):
    """Where one task is plugged in: its encoders, its head, and how inputs are paced."""

    def __init__(
        self,
        body: Body,
        task: Interface,
        into: Sequence[str],
        out_of: Sequence[str] | None,
        sub_steps: int,
        extra_steps: int,
    ):
        super().__init__()
        self.task, self.sub_steps, self.extra_steps = task, sub_steps, extra_steps
        self.out_of = None if out_of is None else tuple(out_of)
        self.encoders = nn.ModuleDict()
        outputs = body.outputs
        if isinstance(body, ThalNet):
            check_names(into)
            for name in into or body.input_modules:
                if name not in body.input_modules:
                    raise unknown("input module", name, body.input_modules)
                self.encoders[name] = encoder(task, body.modules_by_name[name].inputs)
            if out_of is not None:
                check_names(out_of)
                outputs = body.width(out_of)
        elif into or out_of is not None:
            raise UserError("only the modules of a ThalNet can be named as inputs or outputs.")
        else:
            self.encoders[BODY] = encoder(task, body.inputs)
        self.head = nn.Linear(outputs, task.classes)

    def forward(self, body: Body, xs: Tensor, state: Any) -> tuple[Tensor, Any]:
        options: dict[str, Any] = {"sub_steps": self.sub_steps, "extra_steps": self.extra_steps}
        encoded = self.encode(xs)
        if self.out_of is not None:
            options["outputs"] = self.out_of
        ys, state = body(encoded, state, **options)
        if self.task.target == "last":
            ys = ys[:, -1]
        return self.head(ys), state

    def encode(self, xs: Tensor) -> Inputs:
        """What the body takes, in the type of its weights: by input module for a ThalNet."""
        kind = self.head.weight.dtype
        xs = xs.long() if self.task.tokens else xs.to(kind)
        rows = {name: encode(xs).to(kind) for name, encode in self.encoders.items()}
        return rows.get(BODY, rows)


class Network(nn.Module):
    """A body with tasks plugged into it.

    >>> network = Network(ThalNet(inputs=28, modules=4, features=32))
    >>> network.add_task("digits", Interface(inputs=28, classes=10))
    >>> logits, state = network("digits", torch.zeros(5, 28, 28))
    >>> logits.shape
    torch.Size([5, 10])
    """

    def __init__(self, body: Body):
        super().__init__()
        self.body = body
        self.ports = nn.ModuleDict()
        self.model: ModelConfig | None = None  # what ``build`` made it of, sizes filled in

    def add_task(
        self,
        name: str,
        task: Interface,
        *,
        into: Sequence[str] = (),
        out_of: Sequence[str] | None = None,
        sub_steps: int = 1,
        extra_steps: int = 0,
    ) -> None:
        """Plug a task in.

        A task as wide as the body goes in as it is (rows) or one-hot (tokens); any other gets a
        learned linear encoder or embedding. ``into`` and ``out_of`` name modules of a ThalNet;
        by default those that were built as inputs and as outputs.
        """
        if name in self.ports:
            raise UserError(f"the network has a task '{name}' already.")
        if not usable(name):
            raise UserError(f"task name '{name}' must be a word that PyTorch leaves free.")
        check_pace(sub_steps, extra_steps, self.body.recurrent)
        if extra_steps and task.target == "every":
            raise UserError(f"extra_steps: task '{name}' has a target at every step; must be 0.")
        if not self.body.recurrent and task.target == "every":
            raise UserError(
                f"a body without steps has one output a sequence; task '{name}' wants one a step."
            )
        self.ports[name] = Port(self.body, task, into, out_of, sub_steps, extra_steps)

    def forward(self, task: str, xs: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Logits and state.

        Args:
            task: name of the task.
            xs: (batch, time, inputs) rows in [0, 1], or (batch, time) tokens.
            state: of an earlier chunk of the same sequences.

        Returns:
            Logits (batch, classes), or (batch, time, classes) for a target at every step.
        """
        port = self.port(task)
        if port.task.tokens and xs.ndim != 2:
            raise UserError(f"task '{task}': expected tokens (batch, time), got {tuple(xs.shape)}.")
        if not port.task.tokens:
            check_sequence(xs, port.task.inputs, f"input of task '{task}'")
        return port(self.body, xs, state)

    def port(self, task: str) -> Port:
        """Where a task is plugged in."""
        if task not in self.ports:
            raise unknown("task", task, self.ports)
        port = self.ports[task]
        assert isinstance(port, Port)
        return port


def encoder(task: Interface, width: int) -> nn.Module:
    """From what the task gives to what a body of some width takes."""
    if task.tokens:
        return OneHot(width) if task.inputs == width else nn.Embedding(task.inputs, width)
    return nn.Identity() if task.inputs == width else nn.Linear(task.inputs, width)


def build(model: ModelConfig, tasks: Mapping[str, Interface]) -> Network:
    """The network that a configuration describes, for tasks by name, within its budget."""
    if not tasks:
        raise UserError("a network needs at least one task.")
    make_body = lookup("body", model.body)
    if not make_body.recurrent and any(task.target == "every" for task in tasks.values()):
        raise UserError(
            f"model.body {model.body} has one output a sequence; the task wants one at every step."
        )
    widths = {task.inputs for task in tasks.values()}
    steps = max(task.steps for task in tasks.values())
    if make_body is MLP and not steps:
        raise UserError("model.body mlp needs a task whose sequences have a length.")

    def make(features: int) -> Network:
        inputs = widths.copy().pop() if len(widths) == 1 else features
        options: dict[str, Any] = {"inputs": inputs, "features": features}
        if make_body is ThalNet:
            names = ("modules", "context", "hidden", "module", "reading")
            options |= {name: getattr(model, name) for name in names}
        else:
            options["layers"] = model.layers
        if make_body is MLP:
            options["window"] = steps
        network = Network(make_body(**options))
        for name, task in tasks.items():
            network.add_task(name, task, sub_steps=model.sub_steps, extra_steps=model.extra_steps)
        return network

    features = model.features
    if not features:
        if not model.budget:
            raise UserError("give model.features or model.budget: both are 0.")
        features = largest(make, model.budget)
    with torch.device("meta"):
        size = parameters(make(features))
    if model.budget and size > model.budget:
        raise UserError(
            f"model.features {features} makes {size:,} parameters, over model.budget "
            f"{model.budget:,}. Lower it, or give 0 to fill the budget."
        )
    if size > MOST_PARAMETERS:
        raise UserError(f"a network of {size:,} parameters is over {MOST_PARAMETERS:,}.")
    network = make(features)
    network.model = replace(model, features=features)
    return network


def parameters(module: nn.Module) -> int:
    """How many numbers a module learns."""
    return sum(parameter.numel() for parameter in module.parameters())


def largest(make: Callable[[int], nn.Module], budget: int) -> int:
    """The largest size n for which ``make(n)`` has at most ``budget`` parameters.

    Nothing is allocated. Raises if not even size 1 fits.
    """

    def fits(size: int) -> bool:
        with torch.device("meta"):
            return parameters(make(size)) <= budget

    if not fits(1):
        raise UserError(f"model.budget {budget:,} is too small for even one feature.")
    low, high = 1, 2
    while fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
