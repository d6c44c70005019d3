"""ThalNet: an ordered set of named modules that talk only through one routing center.

Hafner, Irpan, Davidson, Heess, "Learning Hierarchical Information Flow with Recurrent Neural
Modules", NIPS 2017.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from thalnet_mtl.errors import UserError, unknown
from thalnet_mtl.models.body import (
    Body,
    Inputs,
    check_name,
    check_sequence,
    check_sub_steps,
    run_with_sub_steps,
)
from thalnet_mtl.models.cells import Cell, opened, place
from thalnet_mtl.models.designs import Lesioned
from thalnet_mtl.models.readings.base import IndexMap
from thalnet_mtl.ops import BACKENDS, explain, select_backend
from thalnet_mtl.ops.cell import Placement
from thalnet_mtl.registry import register
from thalnet_mtl.topology.graph import columns, resolve, slots
from thalnet_mtl.topology.spec import ModuleSpec, equal_modules


class State(NamedTuple):
    """What is carried from step to step: the center Φ and the memories inside the modules."""

    center: Float[Tensor, "batch center"]
    memory: Float[Tensor, "batch memory"]


@register("body", "thalnet")
class ThalNet(Body):
    """Recurrent modules around a routing center, usable like ``nn.GRU(batch_first=True)``.

    The paper's net in one line: the first module gets the input, the last feeds the head.

    >>> net = ThalNet(inputs=28, modules=4, features=32, context=32)
    >>> ys, state = net(torch.zeros(5, 7, 28))
    >>> ys.shape, state.center.shape
    (torch.Size([5, 7, 32]), torch.Size([5, 128]))

    Or module by module, each of its own design and size, several inputs and outputs allowed:

    >>> net = ThalNet(modules=[
    ...     ModuleSpec("eye", features=16, context=8, inputs=28, reading="linear"),
    ...     ModuleSpec("ear", features=10, context=8, inputs=12, module="gru"),
    ...     ModuleSpec("mouth", features=20, context=12, output=True, reads=("eye", "ear")),
    ... ])
    >>> ys, state = net({"eye": torch.zeros(5, 7, 28), "ear": torch.zeros(5, 7, 12)})
    >>> ys.shape
    torch.Size([5, 7, 20])

    Args:
        inputs: width of the task input, where ``modules`` is a number.
        modules: how many equal modules, or a list of ``Module``.
        features, context, hidden, module, reading: of every module, where ``modules`` is a
            number; see ``Module``. ``context`` defaults to ``features``.
    """

    def __init__(
        self,
        inputs: int = 0,
        modules: int | Sequence[ModuleSpec] = 4,
        features: int = 32,
        context: int = 0,
        hidden: int = 0,
        module: str = "ff_gru",
        reading: str = "weight_norm",
    ):
        super().__init__()
        if isinstance(modules, int):
            sizes = {"features": features, "context": context or features, "hidden": hidden}
            modules = equal_modules(modules, inputs, module=module, reading=reading, **sizes)
        self.ops = "auto"  # or one of ``ops.BACKENDS``
        self.cells = nn.ModuleDict()
        self.modules_by_name: dict[str, ModuleSpec] = {}
        self._placements: dict[tuple[str, ...], Placement] = {}  # as last wired
        self.rewire(modules)

    def rewire(self, modules: Sequence[ModuleSpec]) -> dict[str, IndexMap]:
        """Become a net of these modules; those of a name that is there keep their parameters.

        What a module that stays may see may differ, nothing else. Returns what happened to the
        shape of parameters, by name.

        Raises:
            UserError: it cannot be done; nothing has changed.
        """
        net, old = resolve(modules), self.modules_by_name
        for name in net:
            check_name("module", name)
        moves = {}
        for name in (name for name in net if name in old):
            before = {column: k for k, column in enumerate(columns(old[name], old))}
            after = columns(net[name], net)
            source = [before.get(column) for column in after]
            if source != list(range(len(before))):
                moves[name] = source
                try:
                    self.cell(name).reading.check_resize(source)
                except UserError as error:
                    raise UserError(f"module '{name}' cannot read otherwise: {error}") from None
        new = {name: Cell(net[name], net) for name in net if name not in old}
        if old:
            new = {name: cell.to(next(self.parameters())) for name, cell in new.items()}
        remaps: dict[str, IndexMap] = {}
        for name, source in moves.items():
            found = self.cell(name).reading.resize(source, opened(net[name], net))
            remaps |= {f"cells.{name}.reading.{key}": remap for key, remap in found.items()}
        for name in old.keys() - net.keys():
            del self.cells[name]
        self.cells.update(new)
        for name, module in net.items():
            if name in old and old[name].frozen != module.frozen:
                self.cell(name).requires_grad_(not module.frozen)
        self._placements.clear()
        self.modules_by_name, self.slots = net, slots(net.values())
        widths = {module.inputs for module in net.values() if module.inputs}
        self.inputs = widths.pop() if len(widths) == 1 else 0
        self.center = sum(module.features for module in net.values())
        self.memory = sum(self.cell(name).design.memory for name in net)
        self.outputs = self.feature_width(self.output_modules)
        return remaps

    def copy(self, source: str, name: str) -> None:
        """Give a module the weights of another; what it reads in place of itself is itself."""
        net = self.modules_by_name
        before = {
            (name if slot == source else slot, k): column
            for column, (slot, k) in enumerate(columns(net[source], net))
        }
        moved = [before[column] for column in columns(net[name], net)]
        self.cell(name).copy(self.cell(source), moved, opened(net[name], net))
        self._placements.clear()

    @contextmanager
    def lesioned(self, name: str) -> Iterator[None]:
        """For the while a module says nothing: its slot is zero, and it keeps what it remembers."""
        cell, features = self.cell(name), self.modules_by_name[name].features
        design, cell.design = cell.design, Lesioned(cell.design, features)
        self._placements.clear()
        try:
            yield
        finally:
            cell.design = design
            self._placements.clear()

    def cell(self, name: str) -> Cell:
        """The parameters of a module."""
        if name not in self.cells:
            raise unknown("module", name, self.cells)
        cell = self.cells[name]
        assert isinstance(cell, Cell)
        return cell

    def placement(self, active: Sequence[str] | None = None) -> Placement:
        """Modules that run together, all of them by default, with their places in the center.

        The center of some modules is made of their slots alone; all other slots are zero.
        """
        net = self.modules_by_name
        names = tuple(net if active is None else (name for name in net if name in active))
        if names not in self._placements:
            self._placements[names] = place(net, self.cell, names)
        return self._placements[names]

    @property
    def input_modules(self) -> tuple[str, ...]:
        """Names of the modules that take a task input."""
        return tuple(name for name, module in self.modules_by_name.items() if module.inputs)

    @property
    def output_modules(self) -> tuple[str, ...]:
        """Names of the modules that heads read if nothing else is said."""
        return tuple(name for name, module in self.modules_by_name.items() if module.output)

    def feature_width(self, names: Sequence[str]) -> int:
        """Features of these modules together."""
        if not names:
            raise UserError("output_modules names no module; give at least one, or leave it out.")
        for name in names:
            if name not in self.slots:
                raise unknown("module", name, self.slots)
        return sum(self.modules_by_name[name].features for name in names)

    def initial(self, xs: Inputs, *, active: Sequence[str] | None = None) -> State:
        """Φ_0 = 0, and empty memories."""
        x = next(iter(xs.values())) if isinstance(xs, Mapping) else xs
        placement = self.placement(active)
        widths = placement.center_width, placement.memory_width
        return State(*(x.new_zeros(len(x), width) for width in widths))

    def forward(
        self,
        xs: Inputs,
        state: State | None = None,
        *,
        sub_steps: int = 1,
        extra_steps: int = 0,
        outputs: Sequence[str] | None = None,
        active: Sequence[str] | None = None,
    ) -> tuple[Float[Tensor, "batch steps outputs"], State]:
        """As ``Body.forward``.

        Args:
            outputs: names of the modules whose features are returned.
            active: names of the modules that run, all by default. Others cost nothing, are not
                part of the state, and their slots are read as zero.
        """
        check_sub_steps(sub_steps, extra_steps)
        xs = self.check(xs, active=active)
        if state is None:
            state = self.initial(xs, active=active)
        run = partial(self.run, outputs=outputs, active=active)
        return run_with_sub_steps(run, xs, state, sub_steps, extra_steps)

    def run(
        self,
        xs: Mapping[str, Tensor],
        state: State,
        *,
        outputs: Sequence[str] | None = None,
        active: Sequence[str] | None = None,
    ) -> tuple[Float[Tensor, "batch time outputs"], State]:
        """The features of some modules after every step."""
        names = self.output_modules if outputs is None else outputs
        self.feature_width(names)  # raises if there is none of that name
        x, placement = next(iter(xs.values())), self.placement(active)
        widths = placement.center_width, placement.memory_width
        for part, width in zip(state, widths, strict=True):
            if part.shape[0] != x.shape[0] or part.shape[1] != width:
                raise UserError(
                    f"a state of shape {tuple(part.shape)} does not fit; expected "
                    f"({x.shape[0]}, {width}) for this net and batch."
                )
            if part.dtype != x.dtype:
                raise UserError(f"a state of type {part.dtype} does not fit inputs of {x.dtype}.")
        backend = BACKENDS[select_backend(self.ops, placement, state.center)]
        placed = {cell.name: cell.slot for cell in placement.cells}
        ys, *last = backend.sequence(placement, xs, *state, [placed[name] for name in names])
        return ys, State(*last)

    def explain(self, *, active: Sequence[str] | None = None) -> dict[str, str | None]:
        """By level of ``ops``, why it cannot run here, or None if it can; the fastest first."""
        return explain(self.placement(active), next(self.parameters()))

    def backend(self, *, active: Sequence[str] | None = None) -> str:
        """The level that runs: ``ops``, or the fastest that can if that is ``auto``."""
        return select_backend(self.ops, self.placement(active), next(self.parameters()))

    def check(self, xs: Inputs, *, active: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Task inputs by module; one tensor goes to every input module, absent ones are zero."""
        takes = [name for name in self.input_modules if active is None or name in active]
        if isinstance(xs, Tensor):
            xs = {name: xs for name in takes}
        for name, x in xs.items():
            if name not in takes:
                raise unknown("input module", name, takes)
            check_sequence(x, self.modules_by_name[name].inputs, f"input of module '{name}'")
        if not xs:
            raise UserError(f"no input given. Input modules: {', '.join(takes)}.")
        x = next(iter(xs.values()))
        if any(other.shape[:2] != x.shape[:2] for other in xs.values()):
            raise UserError("the inputs of all modules must have the same batch and time.")
        return {
            name: xs[name]
            if name in xs
            else x.new_zeros(*x.shape[:2], self.modules_by_name[name].inputs)
            for name in takes
        }

    @torch.no_grad()
    def reading_weights(
        self,
        xs: Inputs | None = None,
        *,
        sub_steps: int = 1,
        active: Sequence[str] | None = None,
    ) -> dict[str, Tensor]:
        """R of every module that runs, over all slots: (context, center), zero where it is blind.

        Dynamic readings have none of their own: they need inputs, and give the mean over the
        batch of the matrix after the last input.
        """
        cells = self.placement(active).cells
        center = None
        if any(cell.reading.dynamic for cell in cells):
            if xs is None:
                raise UserError("dynamic readings depend on the input: reading_weights(xs).")
            names = [cell.name for cell in cells]
            center = self(xs, sub_steps=sub_steps, outputs=names, active=active)[1].center
        weights = {}
        for cell in cells:
            if cell.reading.dynamic:
                assert center is not None
                seen = cell.reading.weights(center[:, cell.slot]).mean(0)
            else:
                seen = cell.reading.weights()
            own = columns(self.modules_by_name[cell.name], self.modules_by_name)
            places = [self.slots[slot].start + k for slot, k in own]
            weights[cell.name] = seen.new_zeros(len(seen), self.center)
            weights[cell.name][:, places] = seen
        return weights
