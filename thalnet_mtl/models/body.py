"""The recurrent contract that ThalNet and every baseline share.

``ys, state = body(xs, state, lengths)`` on sequences, ``y, state = body.step(x, state)`` when
streaming, ``body.initial(xs)`` for the state before the first step. State goes in and comes out and
never hides on the object, so that resuming, truncated back-propagation and export are the same
code.
"""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from thalnet_mtl.errors import UserError
from thalnet_mtl.models.checks import check_sequence
from thalnet_mtl.models.modes import Freezable
from thalnet_mtl.models.sequences import run_sequences
from thalnet_mtl.ops.inputs import Inputs, map_inputs
from thalnet_mtl.ops.lengths import Lengths
from thalnet_mtl.topology.graph import ModuleGraph
from thalnet_mtl.topology.spec import AdapterSpec, TaskSpec

StateLayout = Mapping[str, tuple[int, int]]  # by module: widths of its features and its memory

WHOLE = "*"  # stands for the whole body where it has no modules; no module can be called that


class Body(Freezable):
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

    @property
    def input_size(self) -> int:
        """Width of an input, ``inputs``, by its name in ``nn.GRU``."""
        return self.inputs

    @property
    def hidden_size(self) -> int:
        """Width of an output, ``outputs``, by its name in ``nn.GRU``."""
        return self.outputs

    def initial(self, xs: Inputs) -> Any:
        """Return the state before the first step: zeros on the device and in the type of ``xs``."""
        raise NotImplementedError

    def run(self, xs: Any, state: Any, lengths: Lengths | None = None) -> tuple[Tensor, Any]:
        """Compute a padded batch of sequences, one step for each input.

        With ``lengths``, outputs past the end of a sequence are zero, the returned state is that
        after its last step, and its padding has no effect on outputs, states and gradients.
        """
        raise NotImplementedError

    def forward(
        self,
        xs: Inputs | PackedSequence,
        state: Any = None,
        lengths: Tensor | None = None,
        *,
        sub_steps: int = 1,
        extra_steps: int = 0,
    ) -> tuple[Any, Any]:
        """Return the output after every input, and the state after the last one.

        Args:
            xs: (batch, time, inputs), or a mapping from input modules to such. As in ``nn.GRU``, a
                ``PackedSequence``, or (time, inputs) for a sequence without a batch axis.
            state: as returned by an earlier call, zeros by default. A list or tuple of its parts
                will do.
            lengths: (batch,) number of steps of every sequence, int64 on the device of ``xs``; None
                if all fill the batch. What ``xs`` holds past the end of a sequence has no effect.
            sub_steps: number of steps for which each input is shown; the output is that of the
                last of them.
            extra_steps: steps without input at the end, in which the network can settle. Their
                outputs follow those of the inputs. The state is the one before them, so that a
                sequence in chunks gives the same as the whole sequence.

        Returns:
            Outputs in the form of ``xs``, which is (batch, steps, outputs), zero past the end of a
            sequence; a ``PackedSequence``; or (steps, outputs). Then the state after the last step
            of every sequence, in the order of the batch.
        """
        return run_sequences(
            self.check,
            self.initial,
            self.run,
            xs,
            state,
            lengths,
            sub_steps,
            extra_steps,
            self.recurrent,
        )

    def step(self, x: Inputs, state: Any, **options: Any) -> tuple[Float[Tensor, "*batch _"], Any]:
        """Compute one step on an input (batch, inputs) or (inputs,); options as in ``forward``."""
        ys, state = self(map_inputs(lambda x: x.unsqueeze(-2), x), state, **options)
        return ys[..., -1, :], state

    def check(self, xs: Inputs) -> Inputs:
        """Return the inputs if they are sequences of the width that this body was built for."""
        if not isinstance(xs, Tensor):
            kind = type(self).__name__
            if not isinstance(xs, Mapping):
                raise UserError(f"{kind}: expected a tensor, not {type(xs).__name__}.")
            raise UserError(
                f"{kind} takes one tensor, not {type(xs).__name__}: only the modules of a ThalNet "
                f"have inputs of their own."
            )
        check_sequence(xs, self.inputs, batched=False)
        return xs

    # For saving

    @property
    def entry(self) -> type[nn.Module]:
        """The registered class by whose name, with ``arguments``, this body is saved."""
        return type(self)

    def arguments(self) -> dict[str, Any]:
        """Return the constructor's arguments as plain data.

        By default each is the attribute of the same name.
        """
        return constructor_arguments(self)

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
        if spec.input_names:
            raise UserError(
                f"task '{task}' has the inputs {', '.join(spec.input_names)}: only a ThalNet has "
                f"an input module for each, not {type(self).__name__}."
            )
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
        self.set_frozen(frozen)

    def backend(self, *, active: Sequence[str] | None = None) -> str:
        """Return the name of the backend that runs; '' for a body with a single one."""
        return ""


def constructor_arguments(module: nn.Module) -> dict[str, Any]:
    """Return the arguments of the constructor of a module: the attributes of the same names.

    Raises:
        UserError: an argument is no attribute, or not plain data.
    """
    kind = type(module).__name__
    arguments = {}
    for name in inspect.signature(type(module)).parameters:
        arguments[name] = getattr(module, name, inspect.Parameter.empty)
        if not _is_plain(arguments[name]):
            override = f", or override {kind}.arguments" if isinstance(module, Body) else ""
            raise UserError(
                f"{kind} cannot be saved: keep its argument '{name}' as an attribute{override}."
            )
    return arguments


def _is_plain(value: Any) -> bool:
    """Return whether a value is plain data, which JSON keeps as it is."""
    if isinstance(value, list):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(part) for key, part in value.items())
    return value is None or isinstance(value, bool | int | float | str)


def check_name(kind: str, name: str) -> None:
    """Raise unless ``name`` is an identifier and no attribute of ``nn.Module`` containers."""
    reserved = hasattr(nn.ModuleDict(), name) or hasattr(nn.ParameterDict(), name)
    if reserved or not name.isidentifier():
        raise UserError(
            f"invalid {kind} name '{name}': use an identifier that is not an attribute of "
            f"nn.Module."
        )
