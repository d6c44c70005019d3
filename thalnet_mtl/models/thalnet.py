"""ThalNet: an ordered set of named modules that communicate only through one routing center.

Hafner, Irpan, Davidson, Heess, "Learning Hierarchical Information Flow with Recurrent Neural
Modules", NIPS 2017.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from thalnet_mtl.config.values import Range
from thalnet_mtl.errors import UserError, unknown
from thalnet_mtl.models.cells import reading_matrices, with_starts
from thalnet_mtl.models.checks import check_sequence, kind_of
from thalnet_mtl.models.designs.options import with_noise
from thalnet_mtl.models.modes import evaluation_mode
from thalnet_mtl.models.modular import ModularBody
from thalnet_mtl.models.sequences import run_sequences
from thalnet_mtl.ops import explain, run, select_backend
from thalnet_mtl.ops.batched import explain_modules
from thalnet_mtl.ops.inputs import Inputs
from thalnet_mtl.ops.lengths import Lengths
from thalnet_mtl.registry import register
from thalnet_mtl.topology.graph import ModuleGraph
from thalnet_mtl.topology.options import HIGHEST_RATE, OPTION_NAMES, ModuleOptions, Normalize
from thalnet_mtl.topology.spec import ModuleSpec, equal_modules, from_plain, to_plain

Rate = Annotated[float, Range(0, HIGHEST_RATE)]


class State(NamedTuple):
    """The state between two steps: the center Φ and the memories inside the modules."""

    center: Float[Tensor, "batch center"]
    memory: Float[Tensor, "batch memory"]

    def detach(self) -> "State":
        """Return the state without its history, for truncated back-propagation."""
        return State(self.center.detach(), self.memory.detach())


@register("body", "thalnet")
class ThalNet(ModularBody):
    """Recurrent modules around a routing center, usable like ``nn.GRU(batch_first=True)``.

    The paper's network in one line: the first module gets the input, the last feeds the head.

    >>> net = ThalNet(inputs=28, modules=4, features=32, context=32)
    >>> ys, state = net(torch.zeros(5, 7, 28))
    >>> ys.shape, state.center.shape
    (torch.Size([5, 7, 32]), torch.Size([5, 128]))

    Or module by module. Modules may differ in design and size; several may be inputs or outputs:

    >>> net = ThalNet(modules=[
    ...     ModuleSpec("image", features=16, context=8, inputs=28, reading="linear"),
    ...     ModuleSpec("sound", features=10, context=8, inputs=12, module="gru"),
    ...     ModuleSpec("output", features=20, context=12, output=True, reads=("image", "sound")),
    ... ])
    >>> ys, state = net({"image": torch.zeros(5, 7, 28), "sound": torch.zeros(5, 7, 12)})
    >>> ys.shape
    torch.Size([5, 7, 20])

    ``graph`` describes which module reads which; see ``ModuleGraph``.

    Args:
        inputs: width of the task input, where ``modules`` is a number.
        modules: number of equal modules, or a list of ``ModuleSpec``.
        features: width of what each module writes to its slot of the center.
        context: width of what each module reads of the center through its reading; 0: as wide as
            ``features``.
        hidden: width of all layers of a module but its last; 0: as wide as ``features``.
        module: name of the design of every module; ``ff_gru`` is a dense layer followed by a GRU.
        reading: name of the reading of every module; ``weight_norm`` is a learned matrix times a
            learned scale, divided by the norm of the matrix.
        normalize: what is normalized: the context that a module reads, the features that it writes,
            or the gates of its GRUs.
        dropout: rate at which elements of the context are zero in training.
        zoneout: probability with which a unit of a memory keeps its value for a step in training.
        orthogonal: whether recurrent weights start as orthogonal matrices.
        chrono: time scale in steps for the initial biases of update gates; 0: as usual.
        trainable_start: whether the state before the first step is trained.
        same_step: whether modules read the features that input modules write in the same step.

    All of these but ``modules`` are for a number of equal modules; in a list, each ``ModuleSpec``
    has its own. ``ModuleOptions`` defines the last seven.
    """

    left_out = OPTION_NAMES  # of complete configurations, where they are at their defaults

    def __init__(
        self,
        inputs: int = 0,
        modules: int | Sequence[ModuleSpec] = 4,
        features: int = 32,
        context: int = 0,
        hidden: int = 0,
        module: str = "ff_gru",
        reading: str = "weight_norm",
        normalize: Normalize = "none",
        dropout: Rate = 0.0,
        zoneout: Rate = 0.0,
        orthogonal: bool = False,
        chrono: Annotated[int, Range(0)] = 0,
        trainable_start: bool = False,
        same_step: bool = False,
    ):
        options = ModuleOptions(
            normalize, dropout, zoneout, orthogonal, chrono, trainable_start, same_step
        )
        if isinstance(modules, int):
            sizes = {"features": features, "context": context or features, "hidden": hidden}
            kinds = {"module": module, "reading": reading}
            modules = equal_modules(modules, inputs, options, **kinds, **sizes)
        elif options.changed():
            raise UserError(
                f"{next(iter(options.changed()))}: give it as an option of each ModuleSpec, where "
                f"modules are listed."
            )
        super().__init__(ModuleGraph(tuple(modules)))

    def arguments(self) -> dict[str, Any]:
        return {"modules": [to_plain(module) for module in self.graph.modules]}

    @classmethod
    def from_arguments(cls, arguments: Mapping[str, Any]) -> "ThalNet":
        return cls(modules=[from_plain(ModuleSpec, fields) for fields in arguments["modules"]])

    def initial(self, xs: Inputs, *, active: Sequence[str] | None = None) -> State:
        """Return Φ_0 and memories of zeros, or of modules that have one their trained start."""
        x = next(iter(xs.values())) if isinstance(xs, Mapping) else xs
        placement = self.placement(active)
        widths = placement.center_width, placement.memory_width
        zeros = State(*(x.new_zeros(x.shape[0], width) for width in widths))
        return State(*with_starts(self.cells, placement, *zeros))

    def forward(
        self,
        xs: Inputs | PackedSequence,
        state: Any = None,
        lengths: Tensor | None = None,
        *,
        sub_steps: int = 1,
        extra_steps: int = 0,
        outputs: Sequence[str] | None = None,
        active: Sequence[str] | None = None,
    ) -> tuple[Any, State]:
        """Return features after every input, and the state after the last; see ``Body.forward``.

        Args:
            outputs: names of the modules whose features are returned.
            active: names of the modules that run, all by default. The rest cost nothing, are not
                part of the state, and their slots are read as zero.
        """
        return run_sequences(
            partial(self.check, active=active),
            partial(self.initial, active=active),
            partial(self.run, outputs=outputs, active=active),
            xs,
            state,
            lengths,
            sub_steps,
            extra_steps,
        )

    def run(
        self,
        xs: Mapping[str, Tensor],
        state: State,
        lengths: Lengths | None = None,
        *,
        outputs: Sequence[str] | None = None,
        active: Sequence[str] | None = None,
    ) -> tuple[Float[Tensor, "batch time outputs"], State]:
        """Return the features of some modules after every step."""
        names = self.output_modules if outputs is None else outputs
        self.feature_width(names)  # raises if there is none of that name
        placement = self.placement(active)
        backend = select_backend(self.ops, placement, state.center)
        places = {cell.name: cell.slot for cell in placement.cells}
        slots = [places[name] for name in names]
        xs = with_noise(placement, xs)
        ys, *last = run(backend, placement, xs, *state, slots, lengths)
        return ys, State(*last)

    def explain(self, *, active: Sequence[str] | None = None) -> dict[str, str | None]:
        """Return by backend, the fastest first, why it cannot run here, or None if it can."""
        return explain(self.placement(active), next(self.parameters()))

    def explain_modules(self, *, active: Sequence[str] | None = None) -> dict[str, str]:
        """Return by names of equal modules how ``batched`` runs them, and why so.

        The backends that compute layers themselves do not ask.
        """
        return explain_modules(self.placement(active), next(self.parameters()))

    def backend(self, *, active: Sequence[str] | None = None) -> str:
        """Return the backend that runs: ``ops``, or for ``auto`` the fastest that can."""
        return select_backend(self.ops, self.placement(active), next(self.parameters()))

    def check(self, xs: Inputs, *, active: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Return inputs by module; one tensor goes to every input module, absent ones are zero."""
        modules = [name for name in self.input_modules if active is None or name in active]
        if isinstance(xs, Tensor):
            xs = {name: xs for name in modules}
        if not isinstance(xs, Mapping):
            raise UserError(f"expected a tensor, or a mapping of tensors, not {kind_of(xs)}.")
        for name, x in xs.items():
            if name not in modules:
                raise unknown("input module", name, modules)
            label = f"input of module '{name}'"
            if not isinstance(x, Tensor):
                raise UserError(f"{label}: expected a tensor, not {kind_of(x)}.")
            check_sequence(x, self.graph[name].inputs, label, batched=False)
        if not xs:
            raise UserError(f"no input given. Input modules: {', '.join(modules)}.")
        first = next(iter(xs.values()))
        if any(x.shape[:-1] != first.shape[:-1] for x in xs.values()):
            raise UserError("the inputs of all modules must have the same batch and time.")

        def zeros(name: str) -> Tensor:
            return first.new_zeros(*first.shape[:-1], self.graph[name].inputs)

        return {name: xs[name] if name in xs else zeros(name) for name in modules}

    @torch.no_grad()
    def reading_weights(
        self, xs: Inputs | None = None, *, sub_steps: int = 1, active: Sequence[str] | None = None
    ) -> dict[str, Tensor]:
        """Return the matrix R of every module that runs: (context, center), 0 at unread slots.

        The matrix of a dynamic reading depends on the input: it is the mean over a batch of
        sequences ``xs``, after their last step.
        """
        placement = self.placement(active)
        features = None
        if any(cell.reading.dynamic for cell in placement.cells):
            if xs is None:
                raise UserError("dynamic readings depend on the input: reading_weights(xs).")
            names = [cell.name for cell in placement.cells]
            with evaluation_mode(self):
                features = self(xs, sub_steps=sub_steps, outputs=names, active=active)[1].center
        return reading_matrices(self.graph, placement, features)
