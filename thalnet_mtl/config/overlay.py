"""Dataclasses filled from YAML and flags: every value checked, every mistake one clear line."""

import math
from collections.abc import Callable
from dataclasses import field, fields, is_dataclass, replace
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
    """A field with its default, its line of help and the values that it allows."""
    return field(
        default=default, metadata={"help": help, "low": low, "high": high, "choices": choices}
    )


def overlay(config: Any, tree: Any, where: str) -> Any:
    """A copy of a dataclass with the values of a nested mapping, each checked.

    A field that is a dataclass takes a mapping; one that maps names to dataclasses takes those by
    name, each laid over the one of that name, nothing for one that is as by default; one that is a
    tuple of dataclasses takes a list of all of them.
    """
    if not isinstance(tree, dict):
        raise UserError(f"{where}: expected a section of fields, got {tree!r}.")
    known = {f.name: f for f in fields(config)}
    changes = {}
    for key, value in tree.items():
        if key not in known:
            raise UserError(f"{where}: {unknown('field', key, known)}")
        current, kind = getattr(config, key), known[key].type
        inner = where if where.startswith("--") else f"{where}: {key}"
        if is_dataclass(current):
            changes[key] = overlay(current, value, inner)
        elif get_origin(kind) is dict:
            changes[key] = _entries(current, value, get_args(kind)[1], inner)
        elif get_origin(kind) is tuple and is_dataclass(get_args(kind)[0]):
            changes[key] = _list(value, get_args(kind)[0], inner)
        else:
            changes[key] = _check(value, known[key], where)
    return replace(config, **changes)


def _entries(current: dict[str, Any], tree: Any, kind: Any, where: str) -> dict[str, Any]:
    if not isinstance(tree, dict):
        raise UserError(f"{where}: expected entries by name, got {tree!r}.")
    entries = dict(current)
    for name, more in tree.items():
        inner = where if where.startswith("--") else f"{where}: {name}"
        entries[str(name)] = overlay(
            entries.get(str(name), kind.named(str(name))), more or {}, inner
        )
    return entries


def _list(values: Any, kind: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(values, list):
        raise UserError(f"{where}: expected a list, got {values!r}.")
    return tuple(overlay(kind(), value, where).complete(where) for value in values)


def _check(value: Any, known: Any, where: str) -> Any:
    """The value in the field's type, or an error that says what is allowed."""
    kind, allowed = known.type, known.metadata
    name = where if where.startswith("--") else f"{where}: {known.name}"
    try:
        checked = _CASTS[kind](value)
    except (TypeError, ValueError, OverflowError, KeyError):
        raise UserError(f"{name}: expected {_WORDS[kind]}, got {value!r}.") from None
    if allowed["choices"] and checked not in allowed["choices"]:
        raise UserError(f"{name}: {unknown('value', checked, allowed['choices'])}")
    if kind in (int, float) and not allowed["low"] <= checked <= allowed["high"]:
        low, high = allowed["low"], allowed["high"]
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


def _word(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError
    return value


def _truth(value: Any) -> bool:
    return value if isinstance(value, bool) else {"true": True, "false": False}[_word(value)]


def _words(value: Any) -> tuple[str, ...]:
    return tuple(map(_word, value.split(",") if isinstance(value, str) else value))


_CASTS: dict[Any, Callable[[Any], Any]] = {
    int: _number(int),
    float: _number(float),
    str: _word,
    bool: _truth,
    tuple[str, ...]: _words,
}
_WORDS = {
    int: "a whole number",
    float: "a number",
    str: "a word",
    bool: "true or false",
    tuple[str, ...]: "a list of names",
}
