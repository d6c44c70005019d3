"""Dataclasses built from values of a JSON file, or of a checkpoint, with every type checked.

A value may have been changed by hand, by another program or by a disk that fails. It is compared
here, once, with the annotation of its field, so that nothing that reads a file has to.
"""

import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from reprlib import Repr
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from thalnet_mtl.errors import UserError

T = TypeVar("T")
_LARGEST = 2**63  # numbers of that size are no counts, and arrays cannot hold them
_NAMES = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}
_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 40


def require(content: Any, keys: Iterable[str], where: str) -> None:
    """Raise ``UserError`` unless a value read from a file is a dictionary with these keys."""
    if not isinstance(content, dict):
        raise UserError(f"{where} is damaged: {_shown(content)} is not an object.")
    missing = [key for key in keys if key not in content]
    if missing:
        raise UserError(f"{where} is damaged: it has no '{missing[0]}'.")


def from_fields(cls: type[T], content: Any, where: str) -> T:
    """Build a dataclass from a JSON object, in which lists become tuples.

    Fields that are dataclasses are built as well, by their own ``from_json`` if they have one. Keys
    that the class does not have are ignored, as files of later versions may hold them.

    Raises:
        UserError: a field without a default is missing, or the value of a field has another type
            than its annotation; says which, and ``where``.
    """
    names = {field.name: field for field in fields(cls)}  # type: ignore[arg-type]
    required = [
        name
        for name, field in names.items()
        if field.default is MISSING and field.default_factory is MISSING
    ]
    require(content, required, where)
    hints: dict[str, Any] = _hints(cls)
    return cls(
        **{
            name: typed(content[name], hints[name], f"{where}: {name}")
            for name, field in names.items()
            if name in content and field.init
        }
    )


def typed(value: Any, kind: Any, where: str) -> Any:
    """Return a value if it has a type, with lists as tuples and objects as their dataclass.

    Args:
        value: from a file.
        kind: annotation: a class, a union, ``Sequence``, ``Mapping``, ``tuple``, ``Any``.
        where: names the value in errors.

    Raises:
        UserError: the value has another type, or is a whole number of 64 bits or more.
    """
    origin: Any = get_origin(kind) or kind
    arguments = get_args(kind)
    if origin in (Union, types.UnionType):
        return _of_union(value, arguments, where)
    if is_dataclass(kind):
        if isinstance(value, origin):
            return value
        read = getattr(origin, "from_json", None)
        return read(value, where) if read else from_fields(origin, value, where)
    if origin in (dict, Mapping):
        require(value, (), where)
        item = arguments[1] if arguments else Any
        return {
            typed(key, arguments[0], where): typed(part, item, f"{where}: {key}")
            for key, part in value.items()
        }
    if origin in (list, tuple, Sequence):
        return _of_sequence(value, origin, arguments, where)
    accepted = (int, float) if origin is float else origin
    is_bool = isinstance(value, bool) and origin in (int, float)
    too_large = isinstance(value, int) and abs(value) >= _LARGEST
    if origin is not Any and (not isinstance(value, accepted) or is_bool or too_large):
        expected = _NAMES.get(origin, f"a {origin.__name__}")
        raise UserError(f"{where} is damaged: {_shown(value)} is not {expected}.")
    return value


def _of_union(value: Any, kinds: Sequence[Any], where: str) -> Any:
    """Return a value as the first of some types that it has."""
    if value is None and type(None) in kinds:
        return None
    problem = None
    for kind in kinds:
        if kind is not type(None):
            try:
                return typed(value, kind, where)
            except UserError as error:
                problem = problem or error
    assert problem is not None
    raise problem


def _of_sequence(value: Any, origin: Any, kinds: Sequence[Any], where: str) -> Any:
    """Return a list as a sequence of a type: ``list`` stays one, all others become tuples."""
    if not isinstance(value, list | tuple):
        raise UserError(f"{where} is damaged: {_shown(value)} is not a list.")
    fixed = origin is tuple and ... not in kinds
    if fixed and len(value) != len(kinds):
        raise UserError(f"{where} is damaged: it has {len(value)} values, not {len(kinds)}.")
    each = kinds if fixed else [kinds[0]] * len(value)
    items = [
        typed(item, kind, f"{where}[{number}]")
        for number, (item, kind) in enumerate(zip(value, each, strict=True))
    ]
    return items if origin is list else tuple(items)


def _shown(value: Any) -> str:
    """Return a value as a few words on one line."""
    return " ".join(_SHORT.repr(value).split())


_hints: Any = cache(get_type_hints)
