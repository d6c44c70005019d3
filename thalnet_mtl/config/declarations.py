"""Declarations of registered names: their documentation and options, known without torch.

Importing the entries imports torch, which takes seconds. What a command needs to know of them
before it trains is therefore kept in a file in the user's cache, with a checksum of the source
files that declare it: those of this package and of its plug-ins. After a change of one of them the
entries are imported once, and the file is written anew.
"""

import hashlib
import inspect
import io
import pickle
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

from thalnet_mtl import registry
from thalnet_mtl.config.schema import ModelConfig
from thalnet_mtl.files import cache_folder, write_atomically

# Kinds of entries that may have options.
KINDS = ("task", "body", "strategy", "growth", "loss", "metric", "stream", "tracker")
# Arguments of a body that ``models.build`` chooses: the widths of its input and of its features.
SIZES = ("inputs", "input_size", "features", "hidden_size", "window")
# Attributes of entries that say what may be configured beside them.
FACTS = ("decides", "grows", "left_out", "needs_boundaries", "needs_new_tasks",
         "only_after_experience", "resumable", "targets")  # fmt: skip
# Names that stored declarations may hold: the types of options and of their defaults.
PLAIN = {
    "builtins": {"Ellipsis", "bool", "dict", "float", "frozenset", "int", "list", "set", "str",
                 "tuple", "type"},
    "collections.abc": {"Callable", "Iterable", "Mapping", "Sequence"},
    "functools": {"reduce"},
    "_functools": {"reduce"},
    "_operator": {"getitem", "or_"},
    "inspect": {"Parameter", "_ParameterKind", "_empty"},
    "pathlib": {"Path", "PosixPath", "WindowsPath"},
    "types": {"GenericAlias", "NoneType", "UnionType"},
    "typing": {"Annotated", "Any", "Literal", "Optional", "Union"},
    "thalnet_mtl.config.declarations": {"Declaration"},
    "thalnet_mtl.config.values": {"Range"},
}  # fmt: skip


@dataclass(frozen=True)
class Declaration:
    """Facts about an entry that are known without importing it.

    Args:
        doc: the docstring; '' if there is none.
        module: the module that defines the entry.
        options: the parameters of its options, by name.
        facts: those of its attributes that are among ``FACTS``.
    """

    doc: str
    module: str
    options: Mapping[str, inspect.Parameter]
    facts: Mapping[str, Any]


def declaration(kind: str, name: str) -> Declaration:
    """Return what the entry of a kind with a name declares.

    Raises:
        UserError: there is none; the message lists all names.
    """
    if (stored := _stored()) is None:
        return _declare(kind, registry.lookup(kind, name))
    available = stored[kind] | _registered(kind)
    if name not in available:
        raise registry.unknown_entry(kind, name, available)
    return available[name]


def declarations(kind: str) -> dict[str, Declaration]:
    """Return what all entries of a kind declare by name, in the order of ``registry.entries``."""
    if (stored := _stored()) is None:
        return {name: _declare(kind, entry) for name, entry in registry.entries(kind).items()}
    return stored[kind] | _registered(kind)


def is_declared(kind: str, name: str) -> bool:
    """Return whether there is an entry of a kind with a name."""
    stored = _stored()
    return name in (registry.entries(kind) if stored is None else stored[kind] | _registered(kind))


def fact(kind: str, name: str, attribute: str, default: Any) -> Any:
    """Return an attribute of an entry that is among ``FACTS``; the default if it has none."""
    facts = declaration(kind, name).facts if is_declared(kind, name) else {}
    return facts.get(attribute, default)


def are_stored() -> bool:
    """Return whether the declarations are known without importing the entries."""
    return "torch" in sys.modules or _read(_path(), registry.source_checksum()) is not None


def option_parameters(kind: str, entry: Any) -> dict[str, inspect.Parameter]:
    """Return the parameters of a registered function or class that are options, by name.

    These are all of them, but for the run that a strategy or a rule of growth gets, the outputs and
    targets that the function of a loss or metric gets, and the sizes and fields of ``model`` that a
    body gets.
    """
    # A class inherits the ``__init__`` of its base; that of these two also has a ``__new__``.
    in_context = kind in ("strategy", "growth")
    called = entry.__init__ if in_context and inspect.isclass(entry) else entry
    parameters = list(inspect.signature(called, eval_str=True).parameters.values())
    if in_context:
        parameters = parameters[1 + inspect.isclass(entry) :]
    elif kind in ("loss", "metric") and not inspect.isclass(entry):
        parameters = parameters[2:]
    elif kind == "body":
        chosen = {*SIZES, *(leaf.name for leaf in fields(ModelConfig))}
        parameters = [p for p in parameters if p.name not in chosen]
    return {p.name: p for p in parameters if p.kind is not p.VAR_POSITIONAL}


def _declare(kind: str, entry: Any) -> Declaration:
    return Declaration(
        doc=entry.__doc__ or "",
        module=entry.__module__,
        options=option_parameters(kind, entry) if kind in KINDS else {},
        facts={name: getattr(entry, name) for name in FACTS if hasattr(entry, name)},
    )


def _registered(kind: str) -> dict[str, Declaration]:
    """Return the declarations of the entries that this process has registered so far."""
    return {name: _declare(kind, entry) for name, entry in registry.registered_now(kind).items()}


def _stored() -> dict[str, dict[str, Declaration]] | None:
    """Return the stored declarations by kind; None where torch, and so the entries, are at hand.

    Where they are not stored yet, they are stored.
    """
    return None if "torch" in sys.modules else _read_or_store()


@cache
def _read_or_store() -> dict[str, dict[str, Declaration]] | None:
    checksum = registry.source_checksum()
    if (stored := _read(_path(), checksum)) is not None:
        return stored
    by_kind = {
        kind: {name: _declare(kind, entry) for name, entry in registry.entries(kind).items()}
        for kind in registry.KINDS
    }
    known = {"thalnet_mtl", *registry.plugin_packages()}
    modules = {entry.module for entries in by_kind.values() for entry in entries.values()}
    if {module.partition(".")[0] for module in modules} <= known:  # else they are of this process
        _write(_path(), checksum, by_kind)
    return None


def _path() -> Path | None:
    """Return the file of this installation in the cache; None if the user has no home folder."""
    package = Path(__file__).parents[1]
    name = hashlib.sha1(str(package).encode(), usedforsecurity=False).hexdigest()[:16]
    with suppress(OSError):
        return cache_folder() / "declarations" / f"{name}.pickle"
    return None


class _Pickler(pickle.Pickler):
    """A writer that refers to the members of an enumeration by their values.

    Python 3.11 writes them as calls of ``getattr`` in some of its versions.
    """

    def reducer_override(self, member: Any) -> Any:
        return (type(member), (member.value,)) if isinstance(member, Enum) else NotImplemented


class _Unpickler(pickle.Unpickler):
    """A reader of types and plain values, which imports and calls nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if name not in PLAIN.get(module, ()):
            raise pickle.UnpicklingError(f"{module}.{name} is not plain")
        return super().find_class(module, name)


def _read(path: Path | None, checksum: str) -> dict[str, dict[str, Declaration]] | None:
    """Return the declarations that a file holds for these sources; None if it holds no such."""
    if path is None:
        return None
    try:
        content = path.read_bytes()
        if not content.startswith(checksum.encode()):
            return None
        stored: dict[str, dict[str, Declaration]] = _Unpickler(
            io.BytesIO(content[len(checksum) :])
        ).load()
    except Exception:  # a damaged file may fail in any way; it is written anew
        return None
    return stored


def _write(
    path: Path | None, checksum: str, by_kind: Mapping[str, Mapping[str, Declaration]]
) -> None:
    """Write declarations to a file, if they are plain and the cache can be written to."""
    if path is None:
        return
    with suppress(OSError, pickle.PickleError, AttributeError, TypeError):
        content = io.BytesIO()
        _Pickler(content).dump(by_kind)
        content.seek(0)
        _Unpickler(content).load()
        write_atomically(path, lambda file: file.write(checksum.encode() + content.getvalue()))
