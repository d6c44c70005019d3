"""The fields of a module and of a change of the topology, entries of two sections."""

from dataclasses import dataclass, field, fields

from thalnet_mtl.config.overlay import option
from thalnet_mtl.errors import UserError

WIDEST = 1_000_000  # more is a typing error, and would fail in the allocator


@dataclass(frozen=True)
class ModuleConfig:
    """An entry of ``modules``: one module of a ThalNet.

    Sizes of 0 and empty names are replaced by those of ``model``; ``model.features`` 0 still
    means the most that the budget allows.
    """

    input: bool = option(False, "receives the input of its tasks")
    output: bool = option(False, "the heads of its tasks read its features")
    tasks: tuple[str, ...] = option((), "tasks that it belongs to; default: shared by all")
    reads: tuple[str, ...] = option((), "modules that it may read; default: all of its tasks")
    features: int = option(0, "number of its features; 0: model.features", low=0, high=WIDEST)
    context: int = option(0, "size of its context; 0: model.context", low=0, high=WIDEST)
    hidden: int = option(0, "hidden size; 0: model.hidden", low=0, high=WIDEST)
    module: str = option("", "design; default: model.module", names="module")
    reading: str = option("", "reading; default: model.reading", names="reading")
    frozen: bool = option(False, "not trained")


# The fields that each verb of a change takes, beside step, verb and name.
VERB_FIELDS: dict[str, tuple[str, ...]] = {
    "attach": ("read_by", "module"),
    "detach": (),
    "clone": ("source", "module"),
    "freeze": (),
    "unfreeze": (),
    "route": ("source", "open"),
}
VERBS = {
    "attach": "a new module of that name",
    "detach": "the module leaves",
    "clone": "a new module with the weights of 'source'",
    "freeze": "the module, or all of a task, is no longer trained",
    "unfreeze": "it is trained again",
    "route": "the module may read 'source' from then on, or no longer ('open: false')",
}


@dataclass(frozen=True)
class ChangeConfig:
    """An entry of ``changes``: one change of the topology between two training steps."""

    step: int = option(0, "number of training steps before the change", low=1)
    verb: str = option("", "what to do", choices=VERBS)
    name: str = option("", "module to change; freeze and unfreeze also take the name of a task")
    source: str = option("", "clone: module to copy; route: module that is read")
    read_by: tuple[str, ...] = option((), "attach: existing modules that read the new one")
    open: bool = option(True, "route: whether 'name' may read 'source' from then on")
    module: ModuleConfig = field(
        default_factory=ModuleConfig, metadata={"help": "attach, clone: fields of the new module"}
    )

    def checked(self, where: str) -> "ChangeConfig":
        """Return the change, or raise if its verb lacks a field or does not take one."""
        if not (self.step and self.verb and self.name):
            raise UserError(f"{where}: every change needs a step, a verb and a name.")
        takes = VERB_FIELDS[self.verb]
        if "source" in takes and not self.source:
            raise UserError(f"{where}: {self.verb} {self.name}: it needs a source.")
        for leaf in fields(self)[3:]:
            is_set = getattr(self, leaf.name) != getattr(_NO_CHANGE, leaf.name)
            if leaf.name not in takes and is_set:
                raise UserError(f"{where}: {self.verb} {self.name}: it takes no {leaf.name}.")
        return self


_NO_CHANGE = ChangeConfig()
