"""A typed overlay: values of YAML, flags or Python laid over frozen dataclasses, each checked.

This is not tyro, although tyro would parse the flags: it infers the length of a nested container
from its default, and ``tasks``, ``modules``, ``changes`` and ``stream`` have as many entries as an
experiment needs. A YAML file and a flag would then go through two different checks.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import Field, field, fields, is_dataclass, replace
from typing import Any, get_args, get_origin

from thalnet_mtl.errors import UserError, unknown


def option(
    default: Any,
    help: str,
    *,
    low: float | int = -math.inf,
    high: float | int = math.inf,
    choices: tuple[str, ...] = (),
) -> Any:
    """Declare a dataclass field: its default, its help, and the values that it allows."""
    return field(
        default=default, metadata={"help": help, "low": low, "high": high, "choices": choices}
    )


def overlay(config: Any, values: Any, where: str) -> Any:
    """Return a copy of a dataclass with some of its values replaced, each of them checked.

    Args:
        config: the dataclass, whose fields are declared with ``option``.
        values: a mapping from field names to values. A field that is a dataclass takes a mapping,
            overlaid in turn. A field that maps names to dataclasses takes a mapping by name; each
            entry is overlaid on the entry of that name, or on the defaults. A field that is a
            tuple of dataclasses takes a list, which replaces all of them.
        where: the file or flag that the values come from, for error messages.

    Raises:
        UserError: a field does not exist, or a value is not allowed; says which, and where.
    """
    if not isinstance(values, dict):
        raise UserError(f"{where}: expected a section of fields, got {values!r}.")
    declared = {f.name: f for f in fields(config)}
    changes = {}
    for key, value in values.items():
        if key not in declared:
            raise UserError(f"{where}: {unknown('field', key, declared)}")
        current, kind = getattr(config, key), declared[key].type
        inner = where if where.startswith("--") else f"{where}: {key}"
        if is_dataclass(current):
            changes[key] = overlay(current, value, inner)
        elif get_origin(kind) is dict:
            changes[key] = _overlay_entries(current, value, get_args(kind)[1], inner)
        elif get_origin(kind) is tuple and is_dataclass(get_args(kind)[0]):
            changes[key] = _read_list(value, get_args(kind)[0], inner)
        else:
            changes[key] = _check_value(value, declared[key], where)
    return replace(config, **changes)


def as_plain(value: Any) -> Any:
    """Convert dataclasses to mappings and tuples to lists, at every level, as in YAML."""
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: as_plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): as_plain(entry) for key, entry in value.items()}
    return [as_plain(entry) for entry in value] if isinstance(value, tuple | list) else value


def _overlay_entries(current: dict[str, Any], values: Any, kind: Any, where: str) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise UserError(f"{where}: expected entries by name, got {values!r}.")
    entries = dict(current)
    for key, entry in values.items():
        name = str(key)
        inner = where if where.startswith("--") else f"{where}: {name}"
        entries[name] = overlay(entries.get(name, kind()), entry or {}, inner)
    return entries


def _read_list(values: Any, kind: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(values, list):
        raise UserError(f"{where}: expected a list, got {values!r}.")
    return tuple(overlay(kind(), entry, where).checked(where) for entry in values)


def _check_value(value: Any, declared: Field[Any], where: str) -> Any:
    """Return the value in the type of its field, or raise an error that says what is allowed."""
    kind: Any = declared.type
    limits = declared.metadata
    name = where if where.startswith("--") else f"{where}: {declared.name}"
    try:
        checked = _CASTS[kind](value)
    except (TypeError, ValueError, OverflowError, KeyError):
        raise UserError(f"{name}: expected {_DESCRIPTIONS[kind]}, got {value!r}.") from None
    if limits["choices"] and checked not in limits["choices"]:
        raise UserError(f"{name}: {unknown('value', checked, limits['choices'])}")
    if kind in (int, float) and not limits["low"] <= checked <= limits["high"]:
        low, high = limits["low"], limits["high"]
        span = f"at least {low}" if high == math.inf else f"between {low} and {high}"
        raise UserError(f"{name}: must be {span}, got {checked}.")
    return checked


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
}
_DESCRIPTIONS = {
    int: "a whole number",
    float: "a number",
    str: "a word",
    bool: "true or false",
    tuple[str, ...]: "a list of names",
}
