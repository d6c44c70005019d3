"""ThalNet: an ordered set of named modules that talk only through one routing center.

Hafner, Irpan, Davidson, Heess, "Learning Hierarchical Information Flow with Recurrent Neural
Modules", NIPS 2017.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from thalnet_mtl.body import Body, Inputs, check_sequence, usable
from thalnet_mtl.config import UserError, unknown
from thalnet_mtl.modules import Design
from thalnet_mtl.ops import SEQUENCES
from thalnet_mtl.readings import Reading
from thalnet_mtl.registry import lookup, register


@dataclass(frozen=True)
class Module:
    """What one module is: its sizes, its design, its reading, and the slots that it may see.

    Args:
        name: unique in the net; no dots.
        features: width of its slot in the center.
        context: width of what it reads.
        inputs: width of its task input; 0 for a module without one.
        output: whether heads read its features by default.
        hidden: width of the design's inner layers; 0 for as many as features.
        module: name of the design.
        reading: name of the reading mechanism.
        reads: names of the modules whose slots it sees, itself included if listed; None for all.
    """

    name: str
    features: int
    context: int
    inputs: int = 0
    output: bool = False
    hidden: int = 0
    module: str = "ff_gru"
    reading: str = "weight_norm"
    reads: tuple[str, ...] | None = None


class State(NamedTuple):
    """What is carried from step to step: the center Φ and the memories inside the modules."""

    center: Float[Tensor, "batch center"]
    memory: Float[Tensor, "batch memory"]


class Cell(nn.Module):
    """The parameters of one module, and its place in the center."""

    def __init__(self, module: Module, slots: Mapping[str, slice], keep: int):
        super().__init__()
        self.name, self.slot = module.name, slots[module.name]
        self.inputs, self.context = module.inputs, module.context
        self.sees: list[int] | None = None
        center = max(slot.stop for slot in slots.values())
        if module.reads is not None:
            seen = [slots[name] for name in slots if name in module.reads]
            self.sees = [k for slot in seen for k in range(slot.start, slot.stop)]
            center = len(self.sees)
        self.reading: Reading = lookup("reading", module.reading)(
            module.features, center, module.context
        )
        self.design: Design = lookup("module", module.module)(
            module.context + module.inputs, module.features, module.hidden or module.features
        )
        self.keep = slice(keep, keep + self.design.memory)


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
    ...     Module("eye", features=16, context=8, inputs=28, reading="linear"),
    ...     Module("ear", features=10, context=8, inputs=12, module="gru"),
    ...     Module("mouth", features=20, context=12, output=True, reads=("eye", "ear")),
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
        modules: int | Sequence[Module] = 4,
        features: int = 32,
        context: int = 0,
        hidden: int = 0,
        module: str = "ff_gru",
        reading: str = "weight_norm",
    ):
        super().__init__()
        if isinstance(modules, int):
            modules = [
                Module(
                    name=name,
                    features=features,
                    context=context or features,
                    inputs=inputs if first else 0,
                    output=last,
                    hidden=hidden,
                    module=module,
                    reading=reading,
                )
                for name, first, last in _roles(modules)
            ]
        check_modules(modules)
        self.ops = "batched"
        self.modules_by_name = {spec.name: spec for spec in modules}
        ends = accumulate(spec.features for spec in modules)
        self.slots = {
            spec.name: slice(end - spec.features, end)
            for spec, end in zip(modules, ends, strict=True)
        }
        self.cells = nn.ModuleDict()
        self.memory = 0
        for spec in modules:
            cell = Cell(spec, self.slots, self.memory)
            self.cells[spec.name] = cell
            self.memory = cell.keep.stop
        self.center = sum(spec.features for spec in modules)
        widths = {module.inputs for module in modules if module.inputs}
        self.inputs = widths.pop() if len(widths) == 1 else 0
        self.outputs = self.width(self.output_modules)

    @property
    def parts(self) -> list[Cell]:
        """All modules in the order of their slots."""
        return [cell for cell in self.cells.values() if isinstance(cell, Cell)]

    @property
    def input_modules(self) -> tuple[str, ...]:
        """Names of the modules that take a task input."""
        return tuple(name for name, module in self.modules_by_name.items() if module.inputs)

    @property
    def output_modules(self) -> tuple[str, ...]:
        """Names of the modules that heads read if nothing else is said."""
        return tuple(name for name, module in self.modules_by_name.items() if module.output)

    def width(self, names: Sequence[str]) -> int:
        """Features of these modules together."""
        if not names:
            raise UserError("out_of names no module; give at least one, or leave it out.")
        for name in names:
            if name not in self.slots:
                raise unknown("module", name, self.slots)
        return sum(self.modules_by_name[name].features for name in names)

    def initial(self, xs: Inputs) -> State:
        """Φ_0 = 0, and empty memories."""
        x = next(iter(xs.values())) if isinstance(xs, Mapping) else xs
        return State(x.new_zeros(len(x), self.center), x.new_zeros(len(x), self.memory))

    def forward(
        self,
        xs: Inputs,
        state: State | None = None,
        *,
        sub_steps: int = 1,
        extra_steps: int = 0,
        outputs: Sequence[str] | None = None,
    ) -> tuple[Float[Tensor, "batch steps outputs"], State]:
        """As ``Body.forward``; ``outputs`` names the modules whose features are returned."""
        centers, state = super().forward(xs, state, sub_steps=sub_steps, extra_steps=extra_steps)
        return self.pick(centers, self.output_modules if outputs is None else outputs), state

    def run(
        self, xs: Mapping[str, Tensor], state: State
    ) -> tuple[Float[Tensor, "batch time center"], State]:
        """The whole center after every step."""
        x = next(iter(xs.values()))
        for part, width in zip(state, (self.center, self.memory), strict=True):
            if part.shape[0] != x.shape[0] or part.shape[1] != width:
                raise UserError(
                    f"a state of shape {tuple(part.shape)} does not fit; expected "
                    f"({x.shape[0]}, {width}) for this net and batch."
                )
        centers, memory = SEQUENCES[self.ops](self.parts, xs, *state)
        return centers, State(centers[:, -1], memory)

    def pick(
        self, centers: Float[Tensor, "batch time center"], names: Sequence[str]
    ) -> Float[Tensor, "batch time features"]:
        """The slots of some modules out of a sequence of centers."""
        self.width(names)
        return torch.cat([centers[..., self.slots[name]] for name in names], dim=-1)

    def check(self, xs: Inputs) -> dict[str, Tensor]:
        """Task inputs by module; one tensor goes to every input module, absent ones are zero."""
        if isinstance(xs, Tensor):
            xs = {name: xs for name in self.input_modules}
        for name, x in xs.items():
            if name not in self.input_modules:
                raise unknown("input module", name, self.input_modules)
            check_sequence(x, self.modules_by_name[name].inputs, f"input of module '{name}'")
        if not xs:
            raise UserError(f"no input given. Input modules: {', '.join(self.input_modules)}.")
        x = next(iter(xs.values()))
        if any(other.shape[:2] != x.shape[:2] for other in xs.values()):
            raise UserError("the inputs of all modules must have the same batch and time.")
        return {
            name: xs[name]
            if name in xs
            else x.new_zeros(*x.shape[:2], self.modules_by_name[name].inputs)
            for name in self.input_modules
        }

    @torch.no_grad()
    def reading_weights(self, xs: Inputs | None = None, *, sub_steps: int = 1) -> dict[str, Tensor]:
        """R of every module over the whole center: (context, center), zero where it cannot see.

        Dynamic readings have none of their own: they need inputs, and give the mean over the
        batch of the matrix after the last input.
        """
        cells = self.parts
        center = None
        if any(cell.reading.dynamic for cell in cells):
            if xs is None:
                raise UserError("dynamic readings depend on the input: reading_weights(xs).")
            center = self(xs, sub_steps=sub_steps)[1].center
        weights = {}
        for cell in cells:
            if cell.reading.dynamic:
                assert center is not None
                seen = cell.reading.weights(center[:, cell.slot]).mean(0)
            else:
                seen = cell.reading.weights()
            weights[cell.name] = seen.new_zeros(len(seen), self.center)
            weights[cell.name][:, slice(None) if cell.sees is None else cell.sees] = seen
        return weights


def check_names(names: Sequence[str]) -> None:
    """Raise unless these are several names, each of them once."""
    if isinstance(names, str) or len(set(names)) < len(names):
        raise UserError(f"expected a list of different module names, got {names!r}.")


def check_modules(modules: Sequence[Module]) -> None:
    """Raise on a set of modules that no net can be built of."""
    names = [module.name for module in modules]
    for module in modules:
        if not usable(module.name) or names.count(module.name) > 1:
            raise UserError(
                f"module name '{module.name}' must be a word that PyTorch leaves free, and only "
                f"once in a net."
            )
        if min(module.features, module.context) < 1 or min(module.inputs, module.hidden) < 0:
            raise UserError(f"module '{module.name}': features and context must be at least 1.")
        check_names(module.reads or ())
        for name in module.reads or ():
            if name not in names:
                raise UserError(f"module '{module.name}' reads {unknown('module', name, names)}")
        if module.reads == ():
            raise UserError(f"module '{module.name}' reads no slot; give at least one.")
    if not any(module.inputs for module in modules) or not any(m.output for m in modules):
        raise UserError("a net needs at least one module with inputs and one with output=True.")


def _roles(modules: int) -> list[tuple[str, bool, bool]]:
    """Names of equal modules, whether each takes the input, whether it feeds the head."""
    if modules < 1:
        raise UserError(f"modules must be at least 1, got {modules}.")
    if modules == 1:
        return [("module", True, True)]
    sides = [(f"side{i}", False, False) for i in range(1, modules - 1)]
    return [("input", True, False), *sides, ("output", False, True)]
