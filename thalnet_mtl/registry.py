"""One registry for everything that a user may add: readings, modules, bodies and tasks.

A built-in or a user's own is one decorated class or function::

    @register("reading", "uniform")
    class UniformReading(nn.Module): ...

A package of a user is found through the entry point group ``thalnet_mtl``: each entry names a
Python module, which is imported before the first look-up and registers what it has.
"""

import importlib
from collections.abc import Callable
from functools import cache
from importlib.metadata import entry_points
from typing import Any, TypeVar

from thalnet_mtl.config import UserError, unknown

Entry = TypeVar("Entry", bound=Callable[..., Any])

# The built-ins register themselves when their file is imported, which a look-up does.
_HOMES = {
    "reading": "thalnet_mtl.readings",
    "module": "thalnet_mtl.modules",
    "body": "thalnet_mtl.build",
    "task": "thalnet_mtl.tasks",
    "strategy": "thalnet_mtl.strategies",
}
_entries: dict[str, dict[str, Any]] = {kind: {} for kind in _HOMES}


def register(kind: str, name: str) -> Callable[[Entry], Entry]:
    """Decorator: make a class or function known under a name. Names are unique within a kind."""
    if kind not in _entries:
        raise unknown("kind of entry", kind, _entries)

    def decorate(entry: Entry) -> Entry:
        known = _entries[kind].setdefault(name, entry)
        if known is not entry and known.__module__ != entry.__module__:
            raise UserError(f"{kind} '{name}' is registered already, by {known.__module__}.")
        _entries[kind][name] = entry
        return entry

    return decorate


def lookup(kind: str, name: str) -> Any:
    """The entry of that name, or an error that lists the names that there are."""
    known = entries(kind)
    if name not in known:
        raise unknown(kind, name, known)
    return known[name]


def entries(kind: str) -> dict[str, Any]:
    """All entries of a kind by name, the built-in ones first."""
    importlib.import_module(_HOMES[kind])
    _load_plugins()
    return dict(_entries[kind])


@cache
def _load_plugins() -> None:
    """Import what the installed packages of users registered; looking for them takes a while."""
    for plugin in entry_points(group="thalnet_mtl"):
        try:
            plugin.load()
        except Exception as error:  # whatever is wrong with it, it is not ours
            raise UserError(
                f"the plug-in '{plugin.name}' ({plugin.value}) cannot be imported: {error}. Mend "
                f"or uninstall it."
            ) from error
