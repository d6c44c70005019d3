"""What differs from experiment to experiment in number as well as in value: data, not flags.

Tasks, modules, what is learned one after another, how the network grows, and what else is done to
its modules meanwhile. They are parts of a ``config.Config``.
"""

from dataclasses import dataclass, field, fields

from thalnet_mtl.options import UserError, option

GROWTH = ("never", "per_task", "on_plateau")
POLICIES = ("frozen", "shared")


@dataclass(frozen=True)
class TaskConfig:
    """What is learned."""

    name: str = option("permuted_mnist", "see 'thalnet list tasks'")
    permutation: int = option(0, "permuted_mnist: seed of the permutation", low=0, high=2**32 - 1)
    batch: int = option(0, "sequences in a batch; 0: train.batch", low=0)


@dataclass(frozen=True)
class EntryConfig(TaskConfig):
    """One of several tasks: an entry of ``tasks``, by default of the task that has its name."""

    weight: float = option(1.0, "factor of its loss", low=0.0)
    share: float = option(0.0, "what train.draw takes as its size; 0: its batches", low=0.0)
    reset: float = option(0.0, "of a text: odds that a place begins anew", low=0.0, high=1.0)
    head: str = option("", "tasks of the same word share encoders and head; none: its own")

    @classmethod
    def named(cls, name: str) -> "EntryConfig":
        """An entry of ``tasks`` of which nothing is said."""
        return cls(name=name)


@dataclass(frozen=True)
class ModuleConfig:
    """One module of a ThalNet: an entry of ``modules``, where they are not all equal.

    What is 0 or empty is as ``model`` says; ``model.features`` 0 still fills the budget.
    """

    input: bool = option(False, "takes the input of its tasks")
    output: bool = option(False, "feeds the heads of its tasks")
    tasks: tuple[str, ...] = option((), "tasks that it belongs to; none: shared by all")
    reads: tuple[str, ...] = option((), "modules that it reads; none: all of its tasks")
    features: int = option(0, "width of its slot", low=0)
    context: int = option(0, "width of what it reads", low=0)
    hidden: int = option(0, "inner width", low=0)
    module: str = option("", "its design")
    reading: str = option("", "how it reads the center")
    frozen: bool = option(False, "whether it does not learn")

    @classmethod
    def named(cls, name: str) -> "ModuleConfig":
        """An entry of ``modules`` of which nothing is said."""
        return cls()


# What each verb takes beside step and name.
_CHANGES: dict[str, tuple[str, ...]] = {
    "attach": ("read_by", "module"),
    "detach": (),
    "clone": ("source", "module"),
    "freeze": (),
    "unfreeze": (),
    "route": ("source", "open"),
}


@dataclass(frozen=True)
class ChangeConfig:
    """One change of the modules between two steps of the training: an entry of ``changes``."""

    step: int = option(0, "after how many steps", low=1)
    verb: str = option("", "what is done", choices=tuple(_CHANGES))
    name: str = option("", "the module that it is done to; for freeze, unfreeze also a task's")
    source: str = option("", "clone: the module to start from; route: the one that is read or not")
    read_by: tuple[str, ...] = option((), "attach: modules opened to the new one")
    open: bool = option(True, "route: whether name may see source from now on")
    module: ModuleConfig = field(default_factory=ModuleConfig)  # attach, clone: what it is

    def complete(self, where: str) -> "ChangeConfig":
        """The change itself, or an error if it does not say what is to be done."""
        if not (self.step and self.verb and self.name):
            raise UserError(f"{where}: every change needs a step, a verb and a name.")
        own = _CHANGES[self.verb]
        if "source" in own and not self.source:
            raise UserError(f"{where}: {self.verb} {self.name}: it needs a source.")
        for other in fields(self)[3:]:
            if other.name not in own and getattr(self, other.name) != getattr(_NOTHING, other.name):
                raise UserError(f"{where}: {self.verb} {self.name}: it takes no {other.name}.")
        return self


_NOTHING = ChangeConfig()


@dataclass(frozen=True)
class ExperienceConfig:
    """What is learned at a time: an entry of ``stream``."""

    tasks: tuple[str, ...] = option((), "the tasks that are learned, jointly if several")
    steps: int = option(0, "for how many steps; 0: as train says, of its own tasks", low=0)

    def complete(self, where: str) -> "ExperienceConfig":
        """The entry itself, or an error if it names no task."""
        if not self.tasks:
            raise UserError(f"{where}: every experience needs tasks.")
        return self


@dataclass(frozen=True)
class GrowthConfig:
    """How the network grows along a stream.

    Until its first experience begins a task has no head, unless growth is 'never'. A module may
    belong to the new task alone: ``tasks: [new]``.
    """

    when: str = option("never", "when modules are attached", choices=GROWTH)
    policy: str = option("frozen", "what becomes of the older ones", choices=POLICIES)
    modules: dict[str, ModuleConfig] = field(default_factory=dict)  # attached each time
    patience: int = option(3, "on_plateau: validations without a better one", low=1)


@dataclass(frozen=True)
class StrategyConfig:
    """The knobs of ``train.strategy``; each uses some of them."""

    strength: float = option(1.0, "ewc, si, lwf: factor of what keeps the old", low=0.0)
    memory: int = option(500, "replay, gem, agem: sequences that are kept in all", low=1)
    choice: str = option("reservoir", "which are kept", choices=("reservoir", "per_class"))
    decay: float = option(0.9, "online_ewc: what is left of older information", low=0.0, high=1.0)
