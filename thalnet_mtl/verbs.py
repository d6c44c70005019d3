"""The verbs that change a graph of modules, on plain data: a graph in, another one out.

Each raises ``UserError`` where what is asked makes no sense, so that a network which applies them
has changed nothing then.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from thalnet_mtl.config import UserError, unknown
from thalnet_mtl.topology import Module, check_names

Net = Mapping[str, Module]


def attached(net: Net, module: Module, read_by: Sequence[str]) -> dict[str, Module]:
    """One module more, behind all others, and some of the others opened to it."""
    check_names(read_by)
    _new(net, module.name)
    opened = {reader: _open(module_of(net, reader), module) for reader in read_by}
    return {**net, **opened, module.name: replace(module, opened=())}


def detached(net: Net, name: str) -> dict[str, Module]:
    """One module less, and nobody reads its slot any more."""
    module_of(net, name)
    return {
        other: _close(module, name) if name in module.seen else module
        for other, module in net.items()
        if other != name
    }


def cloned(net: Net, source: str, name: str, tasks: Sequence[str] | None) -> dict[str, Module]:
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


def routed(net: Net, reader: str, source: str, open: bool) -> dict[str, Module]:
    """A module sees a slot that it did not, or not any more one that it did."""
    module, other = module_of(net, reader), module_of(net, source)
    if open == (source in module.seen):
        state = "reads" if open else "does not read"
        raise UserError(f"route: module '{reader}' {state} '{source}' already.")
    return {**net, reader: _open(module, other) if open else _close(module, source)}


def frozen(net: Net, names: Sequence[str], frozen: bool) -> dict[str, Module]:
    """Some modules do not learn any more, or learn again."""
    return {**net, **{name: replace(module_of(net, name), frozen=frozen) for name in names}}


def ends(
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
        raise UserError(f"task '{task}': no {missing} module may run for it (out_of, into).")
    return into, out_of


def module_of(net: Net, name: str) -> Module:
    """The module of that name."""
    if name not in net:
        raise unknown("module", name, net)
    return net[name]


def _new(net: Net, name: str) -> None:
    if name in net:
        raise UserError(f"there is a module '{name}' already; names must differ.")


def _open(module: Module, source: Module) -> Module:
    if module.frozen:
        raise UserError(f"module '{module.name}' is frozen: what it reads cannot change.")
    if not module.serves(source.tasks):
        raise UserError(f"no task runs both '{module.name}' and '{source.name}'.")
    reads, opened = ((*slots, source.name) for slots in (module.seen, module.opened))
    return replace(module, reads=reads, opened=opened)


def _close(module: Module, source: str) -> Module:
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
