"""The graph of modules: an immutable description of which module reads which, and its edits."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate
from typing import Any

from thalnet_mtl.errors import UserError, unknown
from thalnet_mtl.topology.spec import AdapterSpec, ModuleSpec, check_names


@dataclass(frozen=True)
class ModuleGraph(Mapping[str, ModuleSpec]):
    """Modules by name, in the order of their slots in the center.

    A graph is resolved and checked when it is made and never changes. ``attach``, ``detach``,
    ``clone``, ``route`` and ``freeze`` return another graph.

    >>> graph = ModuleGraph((
    ...     ModuleSpec("input", features=3, context=2, inputs=5),
    ...     ModuleSpec("output", features=4, context=2, output=True, reads=("input",)),
    ... ))
    >>> graph["input"].reads
    ('input', 'output')
    >>> graph.attach(ModuleSpec("side", features=2, context=2), read_by=["output"]).slots["side"]
    slice(7, 9, None)

    Raises:
        UserError: no network can be built from these modules.
    """

    modules: tuple[ModuleSpec, ...]
    # By task, input and output modules: the modules that run, and whether a check has passed.
    _active: dict[Any, tuple[str, ...]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    _checked: set[Any] = field(default_factory=set, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "modules", _resolve(list(self.modules)))
        for name, member in vars(type(self)).items():  # no trace can enter the lock of one later
            if isinstance(member, cached_property):
                getattr(self, name)

    def __getitem__(self, name: str) -> ModuleSpec:
        return self._by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self.modules)

    def __deepcopy__(self, memo: Any) -> "ModuleGraph":
        return self  # copies of a network run the same modules

    @cached_property
    def _by_name(self) -> dict[str, ModuleSpec]:
        return {module.name: module for module in self.modules}

    # Queries

    def module(self, name: str) -> ModuleSpec:
        """Return the module of that name, or raise an error that lists the names."""
        if name not in self._by_name:
            raise unknown("module", name, self._by_name)
        return self._by_name[name]

    @cached_property
    def slots(self) -> dict[str, slice]:
        """The slot of every module in the center, side by side in the order of the modules."""
        return slots(self.modules)

    @cached_property
    def center(self) -> int:
        """Width of the center."""
        return sum(module.features for module in self.modules)

    @cached_property
    def input_modules(self) -> tuple[str, ...]:
        """Names of the modules that take a task input."""
        return tuple(module.name for module in self.modules if module.inputs)

    @cached_property
    def output_modules(self) -> tuple[str, ...]:
        """Names of the modules that heads read by default."""
        return tuple(module.name for module in self.modules if module.output)

    def feature_width(self, names: Sequence[str]) -> int:
        """Return the sum of the features of some modules."""
        return sum(self.module(name).features for name in names)

    def columns(self, name: str) -> list[tuple[str, int]]:
        """Return (slot, position in the slot) for every column of a module's reading, in order."""
        return [(slot, k) for slot in self[name].seen for k in range(self[slot].features)]

    def opened_columns(self, name: str) -> list[int]:
        """Return the columns of a module's reading that were opened after it was created."""
        module = self[name]
        return [k for k, (slot, _) in enumerate(self.columns(name)) if slot in module.opened]

    def column_sources(self, old: "ModuleGraph") -> dict[str, list[int | None]]:
        """Return the old positions of the columns of changed readings, None for new columns."""
        sources = {}
        for name in self:
            if name not in old or self[name].seen == old[name].seen:
                continue
            positions = {column: k for k, column in enumerate(old.columns(name))}
            source = [positions.get(column) for column in self.columns(name)]
            if source != list(range(len(positions))):
                sources[name] = source
        return sources

    def active_modules(self, task: str, adapter: AdapterSpec) -> tuple[str, ...]:
        """Return the modules that run for a task: those on which its head depends.

        Modules of other tasks and input modules that the task does not feed are left out: their
        slots are zero for it. An edited graph returns the same object for a task as long as the
        task runs the same modules with the same readings.
        """
        key = task, adapter.input_modules, adapter.output_modules
        if key not in self._active:
            self._active[key] = self._active_modules(*key)
        return self._active[key]

    def _active_modules(
        self, task: str, input_modules: Sequence[str], output_modules: Sequence[str]
    ) -> tuple[str, ...]:
        candidates = {
            module.name
            for module in self.modules
            if module.serves([task]) and (not module.inputs or module.name in input_modules)
        }
        active, waiting = set(output_modules), list(output_modules)
        while waiting:
            new = candidates.intersection(self[waiting.pop()].seen) - active
            active |= new
            waiting += new
        return tuple(name for name in self if name in active)

    def reachable_from(self, start: Iterable[str], among: Collection[str]) -> set[str]:
        """Return the modules in ``among`` that information from ``start`` can reach inside it."""
        reached = set(start) & set(among)
        waiting = set(among) - reached
        while new := {name for name in waiting if not reached.isdisjoint(self[name].seen)}:
            reached |= new
            waiting -= new
        return reached

    def default_endpoints(
        self, task: str, input_modules: Sequence[str], output_modules: Sequence[str] | None
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return a task's input and output modules: those named, or all that may run for it."""
        check_names(input_modules)
        check_names(output_modules or ())
        for name in input_modules:
            if name not in self.input_modules:
                raise unknown("input module", name, self.input_modules)
        for name in (*input_modules, *(output_modules or ())):
            module = self.module(name)
            if not module.serves([task]):
                raise UserError(f"module '{name}' belongs to {', '.join(module.tasks)} only.")
        serving = [module for module in self.modules if module.serves([task])]
        inputs = tuple(input_modules) or tuple(m.name for m in serving if m.inputs)
        outputs = [m.name for m in serving if m.output]
        if output_modules is not None:
            outputs = list(output_modules)
        if not inputs or not outputs:
            kind = "input" if not inputs else "output"
            raise UserError(
                f"task '{task}': no {kind} module may run for it (input_modules, output_modules)."
            )
        return inputs, tuple(outputs)

    # Checks

    def check_head_sees_input(self, task: str, adapter: AdapterSpec) -> None:
        """Raise if no output module of a task can depend on the task's input."""
        key = task, adapter.input_modules, adapter.output_modules
        if key in self._checked:
            return
        among = self.active_modules(task, adapter)
        if not self.reachable_from(adapter.input_modules, among) & set(adapter.output_modules):
            raise UserError(
                f"task '{task}': no path of readings leads from {', '.join(adapter.input_modules)} "
                f"to {', '.join(adapter.output_modules)}; its logits would not depend on its input."
            )
        self._checked.add(key)

    def check_reached_by_input(self, name: str) -> None:
        """Raise if a module reads only slots that no input can reach."""
        reached = self.reachable_from(self.input_modules, self)
        if name not in reached:
            raise UserError(
                f"module '{name}' would read only {', '.join(self[name].seen)}, which no input "
                f"reaches. Inputs reach {', '.join(sorted(reached))}."
            )

    # Edits

    def attach(self, module: ModuleSpec, read_by: Sequence[str] = ()) -> "ModuleGraph":
        """Return the graph with a module added behind all others and opened to some of them."""
        check_names(read_by)
        self._check_new(module.name)
        readers = {name: self.module(name).open_slot(module) for name in read_by}
        return self._with(readers, replace(module, opened=()))

    def detach(self, name: str) -> "ModuleGraph":
        """Return the graph without a module; no other module reads its slot any more."""
        self.module(name)
        rest = [module for module in self.modules if module.name != name]
        return ModuleGraph(tuple(m.close_slot(name) if name in m.seen else m for m in rest))

    def clone(self, copies: Mapping[str, str], tasks: Sequence[str] | None = None) -> "ModuleGraph":
        """Return the graph with copies of modules, whose names are given by that of the source.

        Where a source reads another of the sources, or itself, its copy reads the copy of that.
        """
        check_names(tasks or ())
        check_names(tuple(copies.values()))
        new = []
        for source, name in copies.items():
            self._check_new(name)
            module = self.module(source)
            reads, opened = (
                tuple(copies.get(slot, slot) for slot in names)
                for names in (module.seen, module.opened)
            )
            module = replace(module, name=name, reads=reads, opened=opened, frozen=False)
            new.append(module if tasks is None else replace(module, tasks=tuple(tasks)))
        return self._with({}, *new)

    def route(self, reader: str, source: str, open: bool = True) -> "ModuleGraph":
        """Return the graph in which ``reader`` reads the slot of ``source``, or does not."""
        module, opened = self.module(reader), self.module(source)
        if open == (source in module.seen):
            verb = "reads" if open else "does not read"
            raise UserError(f"route: module '{reader}' {verb} '{source}' already.")
        return self._with({reader: module.open_slot(opened) if open else module.close_slot(source)})

    def freeze(self, names: Iterable[str], frozen: bool = True) -> "ModuleGraph":
        """Return the graph with some modules frozen, or unfrozen."""
        return self._with({name: replace(self.module(name), frozen=frozen) for name in names})

    def _with(self, changed: Mapping[str, ModuleSpec], *new: ModuleSpec) -> "ModuleGraph":
        """Return the graph with some modules changed, and with new ones.

        A task that runs no module with other readings runs the same modules as before.
        """
        graph = ModuleGraph((*(changed.get(m.name, m) for m in self.modules), *new))
        rewired = {name for name in changed if graph[name].seen != self[name].seen}
        kept = {key: names for key, names in self._active.items() if rewired.isdisjoint(names)}
        graph._active.update(kept)
        graph._checked.update(self._checked & kept.keys())
        return graph

    def _check_new(self, name: str) -> None:
        if name in self:
            raise UserError(f"there is a module '{name}' already; names must differ.")


def slots(modules: Iterable[ModuleSpec]) -> dict[str, slice]:
    """Return the slot of each of some modules in a center that they alone make up."""
    modules = list(modules)
    ends = accumulate(module.features for module in modules)
    return {m.name: slice(end - m.features, end) for m, end in zip(modules, ends, strict=True)}


def _resolve(modules: Sequence[ModuleSpec]) -> tuple[ModuleSpec, ...]:
    """Return checked modules, with ``reads`` and ``opened`` in the order of the slots."""
    places = {module.name: place for place, module in enumerate(modules)}
    resolved = []
    for place, module in enumerate(modules):
        if places[module.name] != place:
            raise UserError(f"there is a module '{module.name}' already; names must differ.")
        if min(module.features, module.context) < 1 or min(module.inputs, module.hidden) < 0:
            raise UserError(
                f"module '{module.name}': features and context must be at least 1, inputs and "
                f"hidden at least 0."
            )
        check_names(module.reads or ())
        check_names(module.tasks)
        for name in (*(module.reads or ()), *module.opened):
            if name not in places:
                raise UserError(f"module '{module.name}' reads {unknown('module', name, places)}")
        if module.reads is None:
            reads = tuple(source.name for source in modules if source.serves(module.tasks))
        else:
            reads = tuple(sorted(set(module.reads), key=places.__getitem__))
        if not reads:
            raise UserError(f"module '{module.name}' reads no slot; give at least one.")
        opened = tuple(name for name in reads if name in module.opened) if module.opened else ()
        resolved.append(replace(module, reads=reads, opened=opened))
    if not any(module.inputs for module in modules) or not any(m.output for m in modules):
        raise UserError("a ThalNet needs at least one module with inputs and one with output=True.")
    return tuple(resolved)
