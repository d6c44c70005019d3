"""The registry of everything that can be added by name: readings, tasks, strategies and more.

A class or function is registered under a kind and a name with a decorator::

    @register("reading", "uniform")
    class UniformReading(nn.Module): ...

A package registers its own through an entry point of the group ``thalnet_mtl``, which names one of
its modules. That module is imported before the first look-up, and its decorators do the rest.
"""

import hashlib
import importlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from pkgutil import walk_packages
from typing import Any, TypeVar

from thalnet_mtl.errors import UnknownName, UserError, unknown

Entry = TypeVar("Entry")

# By kind, the modules whose import registers the built-in entries, in the order of lists.
_MODULES = {
    "reading": (
        "models.readings.linear",
        "models.readings.random",
        "models.readings.fast_softmax",
        "models.readings.fast_gaussian",
    ),
    "module": ("models.designs.stacks",),
    "body": ("models.thalnet", "models.stacked_gru", "models.baselines", "models.recurrent"),
    "task": ("tasks.images", "tasks.digits", "tasks.text", "tasks.timeseries"),
    "strategy": (
        "strategies.base",
        "strategies.replay",
        "strategies.ewc",
        "strategies.si",
        "strategies.lwf",
        "strategies.gem",
    ),
    "growth": (
        "training.growth.base",
        "training.growth.rules",
        "training.search.rule",
        "training.search.paths",
    ),
    "weighting": ("training.weighting",),
    "optimizer": ("training.optimizers",),
    "loss": ("tasks.losses",),
    "metric": ("tasks.metrics",),
    "stream": ("tasks.named_streams",),
    "tracker": (
        "training.tracking.tensorboard",
        "training.tracking.csv",
        "training.tracking.wandb",
        "training.tracking.mlflow",
        "training.tracking.trackio",
    ),
}
# By kind, the package of which every other file is imported as well: a new file is enough.
_PACKAGES = {
    "reading": "models.readings",
    "module": "models.designs",
    "task": "tasks",
    "strategy": "strategies",
    "growth": "training.growth",
    "loss": "tasks",
    "metric": "tasks",
    "tracker": "training.tracking",
}
KINDS = tuple(_MODULES)  # of entries
_entries: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}


def register(kind: str, name: str, **facts: Any) -> Callable[[Entry], Entry]:
    """Return a decorator that registers a class or function under a name.

    Args:
        kind: of the entry.
        name: under which it can be used.
        facts: set as attributes of the entry, such as ``higher_is_better`` of a metric.

    Raises:
        UserError: the kind is unknown, or another module has registered the name.
    """
    if kind not in _entries:
        raise unknown("kind of entry", kind, _entries)

    def decorate(entry: Entry) -> Entry:
        earlier = _entries[kind].get(name, entry)
        if earlier.__module__ != entry.__module__:
            raise UserError(f"{kind} '{name}' is registered already, by {earlier.__module__}.")
        for fact, value in facts.items():
            setattr(entry, fact, value)
        _entries[kind][name] = entry
        return entry

    return decorate


def names_registered_by(module: str) -> set[str]:
    """Return the names of what a module has registered, of all kinds."""
    named = (item for entries in _entries.values() for item in entries.items())
    return {name for name, entry in named if entry.__module__ == module}


def unregister(module: str) -> None:
    """Drop what a module has registered, before a later version of it is imported."""
    for named in _entries.values():
        for name in [name for name, entry in named.items() if entry.__module__ == module]:
            del named[name]


@contextmanager
def registered(kind: str, named: Mapping[str, Callable[..., Any]]) -> Iterator[None]:
    """Register entries by name for the duration of a ``with`` block.

    Raises:
        UserError: a name is registered already.
    """
    for name in named:
        if name in entries(kind):
            raise UserError(f"{kind} '{name}' is registered already; use another name.")
    _entries[kind] |= named
    try:
        yield
    finally:
        for name in named:
            del _entries[kind][name]


def lookup(kind: str, name: str) -> Any:
    """Return the entry of a kind with a name.

    Raises:
        UserError: there is none; the message lists all names.
    """
    available = entries(kind)
    if name in available:
        return available[name]
    raise unknown_entry(kind, name, available)


def unknown_entry(kind: str, name: str, available: Iterable[str]) -> UserError:
    """Return the error for a name that is not among those of a kind."""
    error = unknown(kind, name, available)
    if _own_plugins_installed():
        if "Did you mean" in str(error):
            return error
        return UnknownName(
            f"{error} If a file of yours registers it, name that as well: "
            f"thalnet train CONFIG mine.py."
        )
    return UserError(
        f"{error} The plug-ins of thalnet_mtl itself are not registered: install it with pip, "
        f"again if an older version is installed."
    )


def entries(kind: str) -> dict[str, Any]:
    """Return all entries of a kind by name, built-in ones first."""
    modules = _built_in_modules(kind)
    for module in modules:
        importlib.import_module(module)
    _load_plugins()

    def position(item: tuple[str, Any]) -> int:
        module = item[1].__module__
        return modules.index(module) if module in modules else len(modules)

    return dict(sorted(_entries[kind].items(), key=position))


def import_built_in() -> None:
    """Import all modules of this package that register entries."""
    for kind in KINDS:
        for module in _built_in_modules(kind):
            importlib.import_module(module)


def registered_now(kind: str) -> dict[str, Any]:
    """Return the entries of a kind that are registered so far; nothing is imported."""
    return dict(_entries[kind])


def _built_in_modules(kind: str) -> list[str]:
    """Return the modules that may register entries of a kind."""
    modules = [f"thalnet_mtl.{module}" for module in _MODULES[kind]]
    if kind in _PACKAGES:
        package = importlib.import_module(f"thalnet_mtl.{_PACKAGES[kind]}")
        contents = walk_packages(package.__path__, f"{package.__name__}.")
        files = sorted(info.name for info in contents if not info.ispkg)
        modules += [file for file in files if file not in modules]
    return modules


@cache
def _load_plugins() -> None:
    """Import the modules that entry points name; once, because finding them takes a while."""
    for plugin in entry_points(group="thalnet_mtl"):
        try:
            plugin.load()
        except Exception as error:  # a plug-in may fail in any way
            raise UserError(
                f"the plug-in '{plugin.name}' ({plugin.value}) cannot be imported: {error}. Fix "
                f"or uninstall it."
            ) from error


def _own_plugins_installed() -> bool:
    """Return whether the entry points of this package are there, as after its installation."""
    plugins = entry_points(group="thalnet_mtl")
    return any(plugin.value.startswith("thalnet_mtl.") for plugin in plugins)


def plugin_packages() -> list[str]:
    """Return the names of the packages that plug-ins are in, this one left out."""
    plugins = entry_points(group="thalnet_mtl")
    return sorted({plugin.module.partition(".")[0] for plugin in plugins} - {"thalnet_mtl"})


@cache
def source_checksum() -> str:
    """Return a checksum of the source files that entries come from, by their sizes and times.

    These are the files of this package and of the packages of its plug-ins.
    """
    plugins = sorted(map(str, entry_points(group="thalnet_mtl")))
    digest = hashlib.sha256(f"{sys.version} {plugins}".encode())
    for package in ("thalnet_mtl", *plugin_packages()):
        spec = find_spec(package)
        for folder in (spec and spec.submodule_search_locations) or ():
            for path in sorted(Path(folder).rglob("*.*")):
                if path.suffix in (".py", ".j2", ".js", ".css"):
                    _update(digest, path)
        if spec and spec.origin and Path(spec.origin).is_file():
            _update(digest, Path(spec.origin))
    return digest.hexdigest()


def _update(digest: "hashlib._Hash", path: Path) -> None:
    facts = path.stat()
    digest.update(f"{path} {facts.st_size} {facts.st_mtime_ns}\n".encode())
