"""Specifications of tasks, modules and adapters: plain frozen data, without any tensor.

A network can be built from them alone; ``config.yaml`` and every checkpoint hold them.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass, replace
from typing import Any, TypeVar

from thalnet_mtl.errors import UserError
from thalnet_mtl.topology.options import ModuleOptions

Spec = TypeVar("Spec")


class Widths(Mapping[str, int]):
    """The widths of several inputs by name: a mapping that can be hashed and never changes."""

    def __init__(self, widths: Mapping[str, int]):
        self._widths = dict(widths)

    def __getitem__(self, name: str) -> int:
        return self._widths[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._widths)

    def __len__(self) -> int:
        return len(self._widths)

    def __hash__(self) -> int:
        return hash(frozenset(self._widths.items()))

    def __repr__(self) -> str:
        return repr(self._widths)


@dataclass(frozen=True)
class TaskSpec:
    """The shape of a task, which is all that a network knows of it.

    >>> TaskSpec(inputs=28, outputs=10, steps=28).input_names
    ()
    >>> TaskSpec(inputs={"image": 28, "sound": 12}, outputs=10).input_names
    ('image', 'sound')

    Args:
        inputs: width of a row, or size of the vocabulary where inputs are tokens. A mapping of such
            widths by name for a task with several inputs, each for the input module of that name.
        outputs: width of the output of its head: the number of classes, labels or values.
        tokens: whether inputs are (batch, time) integers below ``inputs`` instead of
            (batch, time, inputs) rows.
        every_step: whether there is a target at every step instead of one a sequence, which is
            predicted after the last step.
        steps: length of a sequence, of the longest if they differ; 0 if it is not known, or for
            an endless stream.
    """

    inputs: int | Mapping[str, int]
    outputs: int
    tokens: bool = False
    every_step: bool = False
    steps: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.inputs, Mapping):
            object.__setattr__(self, "inputs", Widths(self.inputs))
        widths = tuple(self.inputs.values()) if isinstance(self.inputs, Mapping) else (self.inputs,)
        if not widths or min(*widths, self.outputs, 1 + self.steps) < 1:
            raise UserError(
                f"inputs and outputs must be at least 1 and steps at least 0, got {self.inputs}, "
                f"{self.outputs} and {self.steps}."
            )

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of its inputs, of the modules that receive them; () for a single input."""
        return tuple(self.inputs) if isinstance(self.inputs, Mapping) else ()

    def input_width(self, name: str = "") -> int:
        """Return the width of the input that a module receives."""
        return self.inputs[name] if isinstance(self.inputs, Mapping) else self.inputs

    def words(self) -> str:
        """Return its inputs and outputs in words.

        >>> TaskSpec(inputs=8, outputs=10).words()
        'rows of 8 -> 10 outputs at the last step'
        """
        names = self.input_names
        widths = [f"{name} {self.input_width(name)}" for name in names] or [f"{self.inputs}"]
        inputs = f"{'tokens' if self.tokens else 'rows'} of {', '.join(widths)}"
        step = "every" if self.every_step else "the last"
        return f"{inputs} -> {self.outputs} outputs at {step} step"


@dataclass(frozen=True)
class ModuleSpec:
    """A module: its sizes, its design, its reading, and the slots that it reads.

    Args:
        name: unique in the network; no dots.
        features: width of its slot in the center.
        context: width of its context, the result of its reading.
        inputs: width of its task input; 0 for a module without one.
        output: whether heads read its features by default.
        hidden: width of the design's inner layers; 0 for the width of the features.
        module: name of the design.
        reading: name of the reading mechanism.
        reads: names of the modules whose slots it reads, itself included if listed. None for all
            modules that may run for one of its tasks; ``ModuleGraph`` replaces None by their names.
        opened: the names among ``reads`` that were added after the module was created.
        tasks: names of the tasks that may run it; () for all.
        frozen: whether training leaves its parameters alone.
        options: see ``ModuleOptions``; a mapping of them will do.
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
    opened: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    frozen: bool = False
    options: ModuleOptions = field(default_factory=ModuleOptions)

    def __post_init__(self) -> None:
        if isinstance(self.options, Mapping):
            object.__setattr__(self, "options", ModuleOptions.from_plain(self.options))
        if self.options.same_step and self.inputs:
            raise UserError(
                f"module '{self.name}': same_step is for modules without a task input, which read "
                f"those that have one."
            )

    def serves(self, tasks: Collection[str]) -> bool:
        """Return whether one of these tasks may run the module; () stands for all tasks."""
        return not self.tasks or not tasks or not set(self.tasks).isdisjoint(tasks)

    @property
    def seen(self) -> tuple[str, ...]:
        """``reads`` of a module in a ``ModuleGraph``, where it is never None."""
        assert self.reads is not None
        return self.reads

    def open_slot(self, source: "ModuleSpec") -> "ModuleSpec":
        """Return the module with the slot of ``source`` added to what it reads."""
        if self.frozen:
            raise UserError(f"module '{self.name}' is frozen: what it reads cannot change.")
        if not self.serves(source.tasks):
            raise UserError(f"no task runs both '{self.name}' and '{source.name}'.")
        reads, opened = ((*slots, source.name) for slots in (self.seen, self.opened))
        return replace(self, reads=reads, opened=opened)

    def close_slot(self, source: str) -> "ModuleSpec":
        """Return the module with a slot removed from what it reads."""
        if self.frozen:
            raise UserError(
                f"module '{self.name}' is frozen and reads '{source}': unfreeze it first."
            )
        if self.seen == (source,):
            raise UserError(f"module '{self.name}' reads only '{source}'; open another slot first.")
        reads, opened = (
            tuple(slot for slot in slots if slot != source) for slots in (self.seen, self.opened)
        )
        return replace(self, reads=reads, opened=opened)


@dataclass(frozen=True)
class AdapterSpec:
    """The modules that a task uses, and how many steps its inputs take.

    Args:
        task: the shape of the task.
        input_modules: names of the modules that receive its input.
        output_modules: names of the modules that its head reads.
        sub_steps: number of steps for which each input is shown.
        extra_steps: steps without input after the last one.
        frozen: whether training leaves its encoders and its head alone.
        encode: whether inputs get a learned encoder even if they are as wide as the body.
    """

    task: TaskSpec
    input_modules: tuple[str, ...] = ()
    output_modules: tuple[str, ...] = ()
    sub_steps: int = 1
    extra_steps: int = 0
    frozen: bool = False
    encode: bool = False


def to_plain(spec: Any) -> dict[str, Any]:
    """Return the fields of a dataclass for a file; ``from_plain`` is the inverse.

    Options of a module are left out where they have their defaults.
    """
    plain = {name: _plain(value) for name, value in vars(spec).items()}
    return {name: value for name, value in plain.items() if name != "options" or value}


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, str | int | tuple):  # nearly all of them
        return value
    if isinstance(value, ModuleOptions):
        return value.changed()
    if is_dataclass(value):
        return to_plain(value)
    return dict(value) if isinstance(value, Widths) else value


def from_plain(kind: type[Spec], values: Mapping[str, Any]) -> Spec:
    """Return a dataclass from fields read from a file, in which tuples have become lists."""
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def check_names(names: Sequence[str]) -> None:
    """Raise unless ``names`` is a list of names without duplicates."""
    if isinstance(names, str) or len(set(names)) < len(names):
        raise UserError(f"expected a list of different names, got {names!r}.")


def equal_modules(
    modules: int, inputs: int, options: ModuleOptions, **fields: Any
) -> list[ModuleSpec]:
    """Return modules of equal sizes; the first takes the input, the last feeds the head."""
    if options.same_step and modules == 1:
        raise UserError("same_step has no effect: the only module takes the input.")
    return [
        ModuleSpec(
            name,
            inputs=inputs if first else 0,
            output=last,
            options=replace(options, same_step=options.same_step and not first),
            **fields,
        )
        for name, first, last in _roles(modules)
    ]


def _roles(modules: int) -> list[tuple[str, bool, bool]]:
    """Return for each of some equal modules its name, whether it is the first, and the last."""
    if modules < 1:
        raise UserError(f"modules must be at least 1, got {modules}.")
    if modules == 1:
        return [("module", True, True)]
    sides = [(f"side{i}", False, False) for i in range(1, modules - 1)]
    return [("input", True, False), *sides, ("output", False, True)]
