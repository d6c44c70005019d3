"""Topology as data: which modules there are, who reads whom, which tasks use what.

Plain dataclasses and the rules that a graph of modules must keep, without any tensor. A network
can be built from this data alone; ``config.yaml`` and every checkpoint hold it.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate

from thalnet_mtl.errors import UserError, unknown
from thalnet_mtl.topology.spec import AdapterSpec, ModuleSpec, check_names


def slots(modules: Iterable[ModuleSpec]) -> dict[str, slice]:
    """Where every module writes to the center: one behind the other."""
    modules = list(modules)
    ends = accumulate(module.features for module in modules)
    return {m.name: slice(end - m.features, end) for m, end in zip(modules, ends, strict=True)}


def columns(module: ModuleSpec, net: Mapping[str, ModuleSpec]) -> list[tuple[str, int]]:
    """What the columns of a module's reading stand for: slot and place in it, in slot order."""
    return [(name, k) for name in net if name in module.seen for k in range(net[name].features)]


def active_modules(net: Mapping[str, ModuleSpec], task: str, plug: AdapterSpec) -> tuple[str, ...]:
    """The modules that run for a task: those on which its head depends, through readings.

    Left out are modules that belong to other tasks, and input modules that it does not feed:
    their slots are zero for it.
    """
    runs = {
        n for n in net if net[n].serves([task]) and (not net[n].inputs or n in plug.input_modules)
    }
    found, waiting = set(plug.output_modules), list(plug.output_modules)
    while waiting:
        new = runs.intersection(net[waiting.pop()].seen) - found
        found |= new
        waiting += new
    return tuple(name for name in net if name in found)


def reachable_from(
    net: Mapping[str, ModuleSpec], start: Iterable[str], among: Collection[str]
) -> set[str]:
    """The modules, among some, to which information can come from ``start``."""
    found = set(start) & set(among)
    while more := {m for m in among if m not in found and found & set(net[m].seen)}:
        found |= more
    return found


def resolve(modules: Sequence[ModuleSpec]) -> dict[str, ModuleSpec]:
    """The modules by name, with ``reads`` in the order of the slots, checked.

    Raises:
        UserError: no net can be built of them.
    """
    names = [module.name for module in modules]
    net = {}
    for module in modules:
        if names.count(module.name) > 1:
            raise UserError(f"there is a module '{module.name}' already; names must differ.")
        if min(module.features, module.context) < 1 or min(module.inputs, module.hidden) < 0:
            raise UserError(
                f"module '{module.name}': features and context must be at least 1, inputs and "
                f"hidden at least 0."
            )
        check_names(module.reads or ())
        check_names(module.tasks)
        for name in (*(module.reads or ()), *module.opened):
            if name not in names:
                raise UserError(f"module '{module.name}' reads {unknown('module', name, names)}")
        if module.reads is None:
            reads = tuple(other.name for other in modules if other.serves(module.tasks))
        else:
            reads = tuple(name for name in names if name in module.reads)
        if not reads:
            raise UserError(f"module '{module.name}' reads no slot; give at least one.")
        opened = tuple(name for name in reads if name in module.opened)
        net[module.name] = replace(module, reads=reads, opened=opened)
    if not any(module.inputs for module in modules) or not any(m.output for m in modules):
        raise UserError("a net needs at least one module with inputs and one with output=True.")
    return net


def check_head_sees_input(net: Mapping[str, ModuleSpec], task: str, plug: AdapterSpec) -> None:
    """Raise where the head of a task could not see anything of its input."""
    among = active_modules(net, task, plug)
    blind = sorted(set(plug.output_modules) - reachable_from(net, plug.input_modules, among))
    if len(blind) == len(plug.output_modules):
        raise UserError(
            f"task '{task}': no path of readings leads from {', '.join(plug.input_modules)} to "
            f"{', '.join(plug.output_modules)}; what its head sees would not depend on its input."
        )


def check_inputs_reach(net: Mapping[str, ModuleSpec], name: str) -> None:
    """Raise where a module would read nothing that an input reaches: it could only idle."""
    fed = reachable_from(net, [module.name for module in net.values() if module.inputs], net)
    if name not in fed:
        raise UserError(
            f"module '{name}' would read only {', '.join(net[name].seen)}, which no input "
            f"reaches. Inputs reach {', '.join(sorted(fed))}."
        )


Net = Mapping[str, ModuleSpec]


def attached(net: Net, module: ModuleSpec, read_by: Sequence[str]) -> dict[str, ModuleSpec]:
    """One module more, behind all others, and some of the others opened to it."""
    check_names(read_by)
    _new(net, module.name)
    opened = {reader: _open(module_of(net, reader), module) for reader in read_by}
    return {**net, **opened, module.name: replace(module, opened=())}


def detached(net: Net, name: str) -> dict[str, ModuleSpec]:
    """One module less, and nobody reads its slot any more."""
    module_of(net, name)
    return {
        other: _close(module, name) if name in module.seen else module
        for other, module in net.items()
        if other != name
    }


def cloned(net: Net, source: str, name: str, tasks: Sequence[str] | None) -> dict[str, ModuleSpec]:
    """A module like another; where that reads itself, it reads itself."""
    _new(net, name)
    module = module_of(net, source)
    reads, opened = (
        tuple(name if slot == source else slot for slot in slots)
        for slots in (module.seen, module.opened)
    )
    tasks = module.tasks if tasks is None else tuple(tasks)
    check_names(tasks)
    module = replace(module, name=name, reads=reads, opened=opened)
    return {**net, name: replace(module, tasks=tasks, frozen=False)}


def routed(net: Net, reader: str, source: str, open: bool) -> dict[str, ModuleSpec]:
    """A module sees a slot that it did not, or not any more one that it did."""
    module, other = module_of(net, reader), module_of(net, source)
    if open == (source in module.seen):
        state = "reads" if open else "does not read"
        raise UserError(f"route: module '{reader}' {state} '{source}' already.")
    return {**net, reader: _open(module, other) if open else _close(module, source)}


def frozen(net: Net, names: Sequence[str], frozen: bool) -> dict[str, ModuleSpec]:
    """Some modules do not learn any more, or learn again."""
    return {**net, **{name: replace(module_of(net, name), frozen=frozen) for name in names}}


def default_endpoints(
    net: Net, task: str, into: Sequence[str], out_of: Sequence[str] | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Where a task goes in and comes out: what is named, or all inputs and outputs it may use."""
    check_names(into)
    check_names(out_of or ())
    inputs = [name for name in net if net[name].inputs]
    for name in into:
        if name not in inputs:
            raise unknown("input module", name, inputs)
    for name in (*into, *(out_of or ())):
        module = module_of(net, name)
        if not module.serves([task]):
            raise UserError(f"module '{name}' belongs to {', '.join(module.tasks)} only.")
    own = [name for name in net if net[name].serves([task])]
    into = tuple(into) or tuple(name for name in own if name in inputs)
    out_of = tuple([name for name in own if net[name].output] if out_of is None else out_of)
    if not into or not out_of:
        missing = "input" if not into else "output"
        raise UserError(
            f"task '{task}': no {missing} module may run for it (input_modules, output_modules)."
        )
    return into, out_of


def module_of(net: Net, name: str) -> ModuleSpec:
    """The module of that name."""
    if name not in net:
        raise unknown("module", name, net)
    return net[name]


def _new(net: Net, name: str) -> None:
    if name in net:
        raise UserError(f"there is a module '{name}' already; names must differ.")


def _open(module: ModuleSpec, source: ModuleSpec) -> ModuleSpec:
    if module.frozen:
        raise UserError(f"module '{module.name}' is frozen: what it reads cannot change.")
    if not module.serves(source.tasks):
        raise UserError(f"no task runs both '{module.name}' and '{source.name}'.")
    reads, opened = ((*slots, source.name) for slots in (module.seen, module.opened))
    return replace(module, reads=reads, opened=opened)


def _close(module: ModuleSpec, source: str) -> ModuleSpec:
    if module.frozen:
        raise UserError(
            f"module '{module.name}' is frozen and reads '{source}': unfreeze it first."
        )
    if module.seen == (source,):
        raise UserError(f"module '{module.name}' reads only '{source}'; open another first.")
    reads, opened = (
        tuple(slot for slot in slots if slot != source) for slots in (module.seen, module.opened)
    )
    return replace(module, reads=reads, opened=opened)
