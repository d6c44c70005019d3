"""A typed overlay: values of YAML, flags or Python laid over frozen dataclasses, each checked.

This is not tyro, although tyro would parse the flags: it infers the length of a nested container
from its default, and ``tasks``, ``modules``, ``changes`` and ``stream`` have as many entries as an
experiment needs. A YAML file and a flag would then go through two different checks.
"""

import math
from collections.abc import Mapping
from dataclasses import Field, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, get_args, get_origin

from thalnet_mtl.config.values import Range, check_type, shown, split_list
from thalnet_mtl.errors import UserError, unknown

LARGEST_FLOAT = 3e38  # float32 holds a little more
OPTIONS = "options"  # the field of a dataclass that takes further keys


def option(
    default: Any,
    help: str,
    *,
    low: float | int = -math.inf,
    high: float | int = math.inf,
    choices: Mapping[str, str] | tuple[str, ...] = (),
    names: str = "",
) -> Any:
    """Declare a dataclass field.

    Args:
        default: its value where none is given.
        help: a line on what it is.
        low, high: the range of a number.
        choices: the values that it allows, with a line on each if they need one.
        names: the kind of the registry of which it names an entry.
    """
    limits = {"low": low, "high": high, "choices": choices, "names": names}
    return field(default=default, metadata={"help": help} | limits)


def options_field(of: str, help: str, names: str = "") -> Any:
    """Declare the field ``options`` of a dataclass, which holds the keys that are no fields of it.

    Args:
        of: the field that names what they are options of. They are dropped if that name changes.
        help: a line on what they are.
        names: the kind of the registry that has the options, where the field ``of`` does not say.
    """
    return field(default_factory=dict, metadata={"help": help, "of": of, "names": names})


def registry_kind(section: Any, outer: str = "") -> str:
    """Return the kind of the registry whose options a section takes, '' if it takes none.

    Args:
        section: a dataclass, or its type.
        outer: the kind that the field says which holds the section.
    """
    declared = {leaf.name: leaf for leaf in fields(section)}
    if OPTIONS not in declared:
        return ""
    of = declared[OPTIONS].metadata["of"]
    named: str = declared[of].metadata["names"] if of else declared[OPTIONS].metadata["names"]
    return named or outer


def overlay(config: Any, values: Any, where: str) -> Any:
    """Return a copy of a dataclass with some of its values replaced, each of them checked.

    Args:
        config: the dataclass, whose fields are declared with ``option``.
        values: a mapping from field names to values. A field that is a dataclass takes a mapping,
            overlaid in turn. A field that maps names to dataclasses takes a mapping by name; each
            entry is overlaid on the entry of that name, or on the defaults. A field that is a
            tuple of dataclasses takes a list, which replaces all of them; if it is declared with
            a dataclass ``named`` that may stand for them, also a name or the mapping of that. A
            dataclass with a field from ``options_field`` keeps all further keys in that.
        where: the file or flag that the values come from, for error messages.

    Raises:
        UserError: a field does not exist, or a value is not allowed; says which, and where.
    """
    values = _as_section(config, values, where)
    declared = {f.name: f for f in fields(config)}
    holder = declared.pop(OPTIONS, None)
    changes: dict[str, Any] = {}
    if holder:
        changes[OPTIONS] = _overlay_options(config, values, holder.metadata["of"], where)
    for key, value in values.items():
        if key not in declared:
            if holder:
                continue
            raise UserError(f"{where}: {unknown('field', key, declared)}")
        current, kind = getattr(config, key), declared[key].type
        inner = where if where.startswith("--") else f"{where}: {key}"
        named = declared[key].metadata.get("named")
        if named and not isinstance(value, list | tuple):
            changes[key] = _overlay_named(current, value, named, inner)
        elif is_dataclass(current) and not named:
            changes[key] = overlay(current, value, inner)
        elif get_origin(kind) is dict:
            changes[key] = _overlay_entries(current, value, get_args(kind)[1], inner)
        elif get_origin(kind) is tuple and is_dataclass(get_args(kind)[0]):
            changes[key] = _read_list(value, get_args(kind)[0], inner)
        else:
            changes[key] = _check_value(value, declared[key], where)
    return replace(config, **changes)


def as_plain(value: Any) -> Any:
    """Convert dataclasses to mappings and tuples to lists, at every level, as in YAML.

    Options stand beside the fields; an entry that has only a name is that name.
    """
    if is_dataclass(value) and not isinstance(value, type):
        plain = {f.name: as_plain(getattr(value, f.name)) for f in fields(value)}
        plain |= plain.pop(OPTIONS, {})
        return plain["name"] if list(plain) == ["name"] else plain
    if isinstance(value, Mapping):
        return {str(key): as_plain(entry) for key, entry in value.items()}
    if isinstance(value, tuple | list):
        return [as_plain(entry) for entry in value]
    return str(value) if isinstance(value, Path) else value


def _as_section(config: Any, values: Any, where: str) -> dict[str, Any]:
    """Return values as a mapping; an entry with no field but its name may be that name alone."""
    only_name = has_only_name(config)
    if only_name and isinstance(values, str):
        return {"name": values}
    if not isinstance(values, dict):
        expected = "a name, or a name with options" if only_name else "a section of fields"
        raise UserError(f"{where}: expected {expected}, got {shown(values)}.")
    return values


def has_only_name(config: Any) -> bool:
    """Return whether a dataclass, or its type, has no field but a name, and options."""
    return [f.name for f in fields(config) if f.name != OPTIONS] == ["name"]


def _overlay_options(config: Any, values: dict[str, Any], of: str, where: str) -> dict[str, Any]:
    """Return the options of a dataclass with those among ``values`` laid over them."""
    declared = {f.name for f in fields(config)} - {OPTIONS}
    renamed = of in values and values[of] != getattr(config, of)
    options = {} if renamed else dict(config.options)
    for key, value in values.items():
        if key not in declared:
            options[str(key)] = as_plain(value)
    return options


def _overlay_entries(current: dict[str, Any], values: Any, kind: Any, where: str) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise UserError(f"{where}: expected entries by name, got {shown(values)}.")
    entries = dict(current)
    for key, entry in values.items():
        name = str(key)
        inner = where if where.startswith("--") else f"{where}: {name}"
        entries[name] = overlay(entries.get(name, kind()), {} if entry is None else entry, inner)
    return entries


def _overlay_named(current: Any, values: Any, kind: Any, where: str) -> Any:
    """Return what stands for a list by its name, laid over an earlier one."""
    values = {"name": values} if isinstance(values, str) else values
    if not isinstance(values, dict) or not ("name" in values or isinstance(current, kind)):
        raise UserError(f"{where}: expected a list, or a name with options, got {shown(values)}.")
    return overlay(current if isinstance(current, kind) else kind(), values, where)


def _read_list(values: Any, kind: Any, where: str) -> tuple[Any, ...]:
    if has_only_name(kind) and isinstance(values, str):
        values = split_list(values)
    if not isinstance(values, list):
        raise UserError(f"{where}: expected a list, got {shown(values)}.")
    return tuple(overlay(kind(), entry, where).checked(where) for entry in values)


def _check_value(value: Any, declared: Field[Any], where: str) -> Any:
    """Return the value in the type of its field, or raise an error that says what is allowed."""
    kind: Any = declared.type
    limits = declared.metadata
    name = where if where.startswith("--") else f"{where}: {declared.name}"
    checked = check_type(value, kind, name)
    if limits["choices"] and checked not in limits["choices"]:
        raise UserError(f"{name}: {unknown('value', checked, limits['choices'])}")
    if kind is float and abs(checked) > LARGEST_FLOAT:
        raise UserError(f"{name}: {shown(checked)} is too large for a number of 32 bits.")
    if kind in (int, float):
        Range(limits["low"], limits["high"]).check(checked, name)
    return checked
