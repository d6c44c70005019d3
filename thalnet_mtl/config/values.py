"""Values of YAML, flags or Python as the type of what they are for, a field or an option."""

import math
from collections.abc import Callable, Sequence
from itertools import repeat
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from thalnet_mtl.errors import UserError, unknown


def check_type(value: Any, kind: Any, where: str) -> Any:
    """Return the value as a type: a scalar, a list, a mapping, a ``Literal``, a ``Path``, a union.

    Values of any other type are returned as they are.

    Raises:
        UserError: the value cannot be read as that type.
    """
    arguments, origin = get_args(kind), get_origin(kind)
    if origin is Literal:
        if value not in arguments:
            raise UserError(f"{where}: {unknown('value', value, map(str, arguments))}")
        return value
    if origin in (Union, UnionType):
        return _check_union(value, arguments, where)
    if origin in (list, tuple, Sequence) and kind not in _CASTS:
        if not isinstance(value, list | tuple):
            value = value.split(",") if isinstance(value, str) else [value]
        kinds = arguments if origin is tuple and ... not in arguments else repeat(arguments[0])
        items = [check_type(item, kind, where) for item, kind in zip(value, kinds, strict=False)]
        return tuple(items) if origin is tuple else items
    if (origin or kind) is dict and not isinstance(value, dict):
        raise UserError(f"{where}: expected a mapping, got {value!r}.")
    if kind not in _CASTS:
        return value
    try:
        return _CASTS[kind](value)
    except (TypeError, ValueError, OverflowError, KeyError):
        raise UserError(f"{where}: expected {_DESCRIPTIONS[kind]}, got {value!r}.") from None


def _check_union(value: Any, kinds: Sequence[Any], where: str) -> Any:
    """Return the value as the first of some types that it can be read as, its own type first."""
    if value is None and NoneType in kinds:
        return None
    candidates = [kind for kind in kinds if kind is not NoneType]
    for kind in sorted(candidates, key=lambda kind: type(value) is not (get_origin(kind) or kind)):
        try:
            return check_type(value, kind, where)
        except UserError as error:
            problem = error
    raise problem


def _number(kind: type) -> Callable[[Any], Any]:
    def cast(value: Any) -> Any:
        checked = kind(value)
        if isinstance(value, bool) or not math.isfinite(checked) or checked != float(value):
            raise ValueError
        return checked

    return cast


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError
    return value


def _boolean(value: Any) -> bool:
    return value if isinstance(value, bool) else {"true": True, "false": False}[_string(value)]


def _strings(value: Any) -> tuple[str, ...]:
    return tuple(map(_string, value.split(",") if isinstance(value, str) else value))


_CASTS: dict[Any, Callable[[Any], Any]] = {
    int: _number(int),
    float: _number(float),
    str: _string,
    bool: _boolean,
    tuple[str, ...]: _strings,
    Path: lambda value: Path(_string(value)),
}
_DESCRIPTIONS = {
    int: "a whole number",
    float: "a number",
    str: "a word",
    bool: "true or false",
    tuple[str, ...]: "a list of names",
    Path: "a path",
}
