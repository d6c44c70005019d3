"""The recurrent contract that ThalNet and every baseline share.

``ys, state = body(xs, state)`` on sequences, ``y, state = body.step(x, state)`` when streaming,
``body.initial(xs)`` for the state before the first step. State goes in and comes out and never
hides on the object, so that resuming, truncated back-propagation and export are the same code.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

from thalnet_mtl.errors import UserError

Inputs = Tensor | Mapping[str, Tensor]


class Body(nn.Module):
    """What turns a sequence of inputs into a sequence of outputs, with a state between.

    ``inputs`` and ``outputs`` are the widths of a step. A body implements ``initial`` and ``run``;
    ``recurrent`` is false for one that has a single output a call.
    """

    recurrent: ClassVar[bool] = True

    inputs: int
    outputs: int

    def initial(self, xs: Inputs) -> Any:
        """The state before the first step: zeros on the device and in the type of ``xs``."""
        raise NotImplementedError

    def run(self, xs: Any, state: Any) -> tuple[Tensor, Any]:
        """The sequence itself, one step an input."""
        raise NotImplementedError

    def forward(
        self, xs: Inputs, state: Any = None, *, sub_steps: int = 1, extra_steps: int = 0
    ) -> tuple[Float[Tensor, "batch steps outputs"], Any]:
        """Outputs after every input, and the state after the last one.

        Args:
            xs: (batch, time, inputs), or a mapping from input modules to such.
            state: as returned by an earlier call; zeros by default.
            sub_steps: how often each input is shown; the output is taken on the last time.
            extra_steps: steps without input at the end, for what was read to settle. Their
                outputs follow those of the inputs; the state is the one before them, so that a
                sequence in pieces is the same as a whole one.
        """
        check_sub_steps(sub_steps, extra_steps, self.recurrent)
        xs = self.check(xs)
        if state is None:
            state = self.initial(xs)
        return run_with_sub_steps(self.run, xs, state, sub_steps, extra_steps)

    def step(
        self, x: Inputs, state: Any, **options: Any
    ) -> tuple[Float[Tensor, "batch outputs"], Any]:
        """One input (batch, inputs) of a stream; options as for sequences."""
        xs = map_inputs(x, lambda x: rearrange(x, "batch inputs -> batch 1 inputs"))
        ys, state = self(xs, state, **options)
        return ys[:, -1], state

    def check(self, xs: Inputs) -> Inputs:
        """The inputs, if they are sequences of the width that this body was built for."""
        assert isinstance(xs, Tensor)
        check_sequence(xs, self.inputs)
        return xs


def run_with_sub_steps(
    run: Callable[[Any, Any], tuple[Tensor, Any]],
    xs: Inputs,
    state: Any,
    sub_steps: int,
    extra_steps: int,
) -> tuple[Float[Tensor, "batch steps outputs"], Any]:
    """What ``run`` makes of inputs at the pace that ``Body.forward`` describes."""
    if sub_steps > 1:
        xs = map_inputs(xs, lambda x: repeat(x, "batch time x -> batch (time n) x", n=sub_steps))
    ys, state = run(xs, state)
    ys = ys[:, sub_steps - 1 :: sub_steps]
    if extra_steps:
        nothing = map_inputs(xs, lambda x: x.new_zeros(x.shape[0], extra_steps, x.shape[2]))
        ys = torch.cat([ys, run(nothing, state)[0]], dim=1)
    return ys, state


def check_sequence(xs: Tensor, inputs: int, what: str = "input") -> None:
    """Raise unless ``xs`` is (batch, time ≥ 1, inputs)."""
    if xs.ndim != 3 or xs.shape[1] < 1 or xs.shape[2] != inputs:
        raise UserError(
            f"{what} has shape {tuple(xs.shape)}; expected (batch, time, {inputs}), time ≥ 1."
        )


def check_sub_steps(sub_steps: int, extra_steps: int, recurrent: bool = True) -> None:
    """Raise unless every input is shown at least once, and only once to a body without steps."""
    if not recurrent and (sub_steps, extra_steps) != (1, 0):
        raise UserError("a body without steps takes sub_steps 1 and extra_steps 0 only.")
    if sub_steps < 1 or extra_steps < 0:
        raise UserError(
            f"sub_steps must be at least 1 and extra_steps at least 0, got {sub_steps} and "
            f"{extra_steps}."
        )


def check_name(kind: str, name: str) -> None:
    """Raise unless a part of a network can be called so: a word, and no attribute of a module."""
    taken = hasattr(nn.ModuleDict(), name) or hasattr(nn.ParameterDict(), name)
    if taken or not name.isidentifier():
        raise UserError(f"{kind} name '{name}' must be a word that PyTorch leaves free.")


def map_inputs(xs: Inputs, function: Callable[[Tensor], Tensor]) -> Inputs:
    """Apply a function to a tensor or to every tensor of a mapping."""
    if isinstance(xs, Mapping):
        return {name: function(x) for name, x in xs.items()}
    return function(xs)


def map_state(function: Callable[[Tensor], Tensor], state: Any) -> Any:
    """Apply a function to a state that is a tensor or a NamedTuple of tensors."""
    if isinstance(state, Tensor):
        return function(state)
    return type(state)(*(function(part) for part in state))
