"""Topology as data: which modules there are, who reads whom, which tasks use what.

Plain dataclasses and the rules that a graph of modules must keep, without any tensor. A network
can be built from this data alone; ``config.yaml`` and every checkpoint hold it.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from thalnet_mtl.errors import UserError, unknown

Target = Literal["last", "every"]


@dataclass(frozen=True)
class TaskSpec:
    """The shape of a task, which is all that a network knows of it.

    Args:
        inputs: width of a row, or size of the vocabulary where inputs are tokens.
        classes: width of the logits.
        tokens: whether inputs are (batch, time) numbers below ``inputs`` instead of
            (batch, time, inputs) rows.
        target: whether a class is due at the last step or at every step.
        steps: length of a sequence; 0 for a stream without end.
    """

    inputs: int
    classes: int
    tokens: bool = False
    target: Target = "last"
    steps: int = 0

    def __post_init__(self) -> None:
        if self.target not in get_args(Target):
            raise unknown("target", self.target, get_args(Target))
        if min(self.inputs, self.classes, 1 + self.steps) < 1:
            raise UserError(
                f"inputs and classes must be at least 1 and steps at least 0, got {self.inputs}, "
                f"{self.classes} and {self.steps}."
            )


@dataclass(frozen=True)
class ModuleSpec:
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
        reads: names of the modules whose slots it sees, itself included if listed; None for all
            that a task of its own may run, which the net then writes out.
        opened: those among ``reads`` that were opened after the module was made.
        tasks: names of the tasks that may run it; () for all.
        frozen: whether its parameters do not learn.
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

    def serves(self, tasks: Collection[str]) -> bool:
        """Whether one of these tasks may run it; no tasks are all tasks."""
        return not self.tasks or not tasks or not set(self.tasks).isdisjoint(tasks)

    @property
    def seen(self) -> tuple[str, ...]:
        """``reads``, once the net has written it out."""
        assert self.reads is not None
        return self.reads


@dataclass(frozen=True)
class AdapterSpec:
    """Where one task is plugged in, and how its inputs are paced.

    Args:
        task: its shape.
        into: names of the modules that take its input.
        out_of: names of the modules that its head reads.
        sub_steps: how often each input is shown.
        extra_steps: steps without input after the last one.
        frozen: whether its encoders and its head do not learn.
    """

    task: TaskSpec
    input_modules: tuple[str, ...] = ()
    output_modules: tuple[str, ...] = ()
    sub_steps: int = 1
    extra_steps: int = 0
    frozen: bool = False


def check_names(names: Sequence[str]) -> None:
    """Raise unless these are names of modules or tasks, each of them once."""
    if isinstance(names, str) or len(set(names)) < len(names):
        raise UserError(f"expected a list of different names, got {names!r}.")


def equal_modules(modules: int, inputs: int, **of_each: Any) -> list[ModuleSpec]:
    """Modules that are alike; the first takes the input, the last feeds the head."""
    return [
        ModuleSpec(name, inputs=inputs if first else 0, output=last, **of_each)
        for name, first, last in _roles(modules)
    ]


def _roles(modules: int) -> list[tuple[str, bool, bool]]:
    """Names of equal modules, whether each takes the input, whether it feeds the head."""
    if modules < 1:
        raise UserError(f"modules must be at least 1, got {modules}.")
    if modules == 1:
        return [("module", True, True)]
    sides = [(f"side{i}", False, False) for i in range(1, modules - 1)]
    return [("input", True, False), *sides, ("output", False, True)]
