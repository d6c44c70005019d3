"""The recurrent contract that ThalNet and every baseline share.

``ys, state = body(xs, state)`` on sequences, ``y, state = body.step(x, state)`` when streaming,
``body.initial(xs)`` for the state before the first step. State goes in and comes out and never
hides on the object, so that resuming, truncated back-propagation and export are the same code.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

from thalnet_mtl.errors import UserError
from thalnet_mtl.topology.graph import ModuleGraph
from thalnet_mtl.topology.spec import AdapterSpec, TaskSpec

Inputs = Tensor | Mapping[str, Tensor]
StateLayout = Mapping[str, tuple[int, int]]  # by module: widths of its features and its memory

WHOLE = "*"  # stands for the whole body where it has no modules; no module can be called that


class Body(nn.Module):
    """A recurrent layer between the encoders and the heads of a ``Network``.

    A body of your own sets ``inputs`` and ``outputs``, the widths of a step, and implements
    ``initial`` and ``run``. Register it as ``body`` to name it in configurations and to save it.
    All other methods have defaults for a body without modules.

    ``recurrent`` is false for a body that returns a single output a call. ``ops`` is the requested
    backend, one of ``ops.BACKENDS`` or ``auto``; bodies with a single backend ignore it.
    """

    recurrent: ClassVar[bool] = True
    graph: ModuleGraph | None = None

    inputs: int
    outputs: int
    ops: str = "auto"

    def initial(self, xs: Inputs) -> Any:
        """Return the state before the first step: zeros on the device and in the type of ``xs``."""
        raise NotImplementedError

    def run(self, xs: Any, state: Any) -> tuple[Tensor, Any]:
        """Compute a sequence, one step for each input."""
        raise NotImplementedError

    def forward(
        self, xs: Inputs, state: Any = None, *, sub_steps: int = 1, extra_steps: int = 0
    ) -> tuple[Float[Tensor, "batch steps outputs"], Any]:
        """Return the output after every input, and the state after the last one.

        Args:
            xs: (batch, time, inputs), or a mapping from input modules to such.
            state: as returned by an earlier call; zeros by default.
            sub_steps: number of steps for which each input is shown; the output is that of the
                last of them.
            extra_steps: steps without input at the end, in which the network can settle. Their
                outputs follow those of the inputs. The state is the one before them, so that a
                sequence in chunks gives the same as the whole sequence.
        """
        check_sub_steps(sub_steps, extra_steps, self.recurrent)
        xs = self.check(xs)
        if state is None:
            state = self.initial(xs)
        return run_with_sub_steps(self.run, xs, state, sub_steps, extra_steps)

    def step(
        self, x: Inputs, state: Any, **options: Any
    ) -> tuple[Float[Tensor, "batch outputs"], Any]:
        """Compute one step on an input (batch, inputs); options as in ``forward``."""
        xs = map_inputs(x, lambda x: rearrange(x, "batch inputs -> batch 1 inputs"))
        ys, state = self(xs, state, **options)
        return ys[:, -1], state

    def check(self, xs: Inputs) -> Inputs:
        """Return the inputs if they are sequences of the width that this body was built for."""
        assert isinstance(xs, Tensor)
        check_sequence(xs, self.inputs)
        return xs

    # For saving

    def arguments(self) -> dict[str, Any]:
        """Return the constructor's arguments as plain data.

        By default each is the attribute of the same name.
        """
        names = list(inspect.signature(type(self)).parameters)
        for name in names:
            if not isinstance(getattr(self, name, None), bool | int | float | str):
                kind = type(self).__name__
                raise UserError(
                    f"{kind} cannot be saved: keep its argument '{name}' as an attribute, or "
                    f"override {kind}.arguments."
                )
        return {name: getattr(self, name) for name in names}

    @classmethod
    def from_arguments(cls, arguments: Mapping[str, Any]) -> "Body":
        """Return a new body made from the result of ``arguments``."""
        return cls(**arguments)

    # For tasks. A body with modules overrides these

    def endpoints(
        self, task: str, spec: TaskSpec, inputs: Sequence[str], outputs: Sequence[str] | None
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the input and output modules of a new task, checked; () without modules."""
        if inputs or outputs is not None:
            raise UserError("only the modules of a ThalNet can be named as inputs or outputs.")
        return (), ()

    def input_widths(self, modules: Sequence[str]) -> dict[str, int]:
        """Return the width of the input of each of these modules, or of the whole body."""
        return {WHOLE: self.inputs}

    def feature_width(self, modules: Sequence[str]) -> int:
        """Return the width of the outputs of these modules, or of the whole body."""
        return self.outputs

    def active_modules(self, task: str, adapter: AdapterSpec) -> tuple[str, ...]:
        """Return the modules that run for a task; () without modules."""
        return ()

    def parameter_prefixes(self, modules: Sequence[str]) -> tuple[str, ...]:
        """Return how the names of the parameters of these modules, or of the whole body, begin."""
        return ("",)

    def state_layout(self, modules: Sequence[str]) -> StateLayout:
        """Return what the state of these modules consists of; {} if it never changes its shape."""
        return {}

    def freeze(self, modules: Sequence[str], frozen: bool = True) -> None:
        """Freeze or unfreeze these modules, or the whole body."""
        self.requires_grad_(not frozen)

    def backend(self, *, active: Sequence[str] | None = None) -> str:
        """Return the name of the backend that runs; '' for a body with a single one."""
        return ""


def run_with_sub_steps(
    run: Callable[[Any, Any], tuple[Tensor, Any]],
    xs: Inputs,
    state: Any,
    sub_steps: int,
    extra_steps: int,
) -> tuple[Float[Tensor, "batch steps outputs"], Any]:
    """Call ``run`` on inputs that are repeated and followed by zeros, see ``Body.forward``."""
    if sub_steps > 1:
        xs = map_inputs(xs, lambda x: repeat(x, "batch time x -> batch (time n) x", n=sub_steps))
    ys, state = run(xs, state)
    ys = ys[:, sub_steps - 1 :: sub_steps]
    if extra_steps:
        zeros = map_inputs(xs, lambda x: x.new_zeros(x.shape[0], extra_steps, x.shape[2]))
        ys = torch.cat([ys, run(zeros, state)[0]], dim=1)
    return ys, state


def check_sequence(xs: Tensor, inputs: int, label: str = "input") -> None:
    """Raise unless ``xs`` is (batch, time ≥ 1, inputs)."""
    if xs.ndim != 3 or xs.shape[1] < 1 or xs.shape[2] != inputs:
        raise UserError(
            f"{label} has shape {tuple(xs.shape)}; expected (batch, time, {inputs}), time ≥ 1."
        )


def check_sub_steps(sub_steps: int, extra_steps: int, recurrent: bool = True) -> None:
    """Raise unless every input is shown at least once, and exactly once to a body without steps."""
    if not recurrent and (sub_steps, extra_steps) != (1, 0):
        raise UserError("a body without steps takes sub_steps 1 and extra_steps 0 only.")
    if sub_steps < 1 or extra_steps < 0:
        raise UserError(
            f"sub_steps must be at least 1 and extra_steps at least 0, got {sub_steps} and "
            f"{extra_steps}."
        )


def check_name(kind: str, name: str) -> None:
    """Raise unless ``name`` is an identifier and no attribute of ``nn.Module`` containers."""
    reserved = hasattr(nn.ModuleDict(), name) or hasattr(nn.ParameterDict(), name)
    if reserved or not name.isidentifier():
        raise UserError(
            f"invalid {kind} name '{name}': use an identifier that is not an attribute of "
            f"nn.Module."
        )


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
