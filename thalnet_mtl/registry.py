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

from thalnet_mtl.errors import UserError, unknown

Entry = TypeVar("Entry", bound=Callable[..., Any])

# The built-ins register themselves when their file is imported, which a look-up does.
_HOMES = {
    "reading": tuple(
        f"models.readings.{name}" for name in ("linear", "random", "fast_softmax", "fast_gaussian")
    ),
    "module": ("models.designs",),
    "body": ("models.build",),
    "task": ("tasks.images", "tasks.text"),
    "strategy": (
        *(f"strategies.{name}" for name in ("base", "replay", "ewc", "si", "lwf", "gem")),
        "avalanche.names",
    ),
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
    for home in _HOMES[kind]:
        importlib.import_module(f"thalnet_mtl.{home}")
    _load_plugins()
    place = {f"thalnet_mtl.{home}": k for k, home in enumerate(_HOMES[kind])}
    known = _entries[kind].items()
    return dict(sorted(known, key=lambda item: place.get(item[1].__module__, len(place))))


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
