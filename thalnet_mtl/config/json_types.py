"""Types of fields and options as JSON schemas: what a value in YAML may be."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from thalnet_mtl.config.values import Range

Schema = dict[str, Any]

# Numbers with underscores, which YAML 1.2 takes for text.
_SPELLED = r"^[-+]?[0-9]+(_[0-9]+)+(\.[0-9]*)?([eE][-+]?[0-9]+)?$"


def type_schema(kind: Any) -> Schema:
    """Return the JSON schema of the values that ``values.check_type`` takes for a type.

    A list may also be a word with commas, or a single value. Other types, such as functions, allow
    every value.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        limits = next((a for a in arguments[1:] if isinstance(a, Range)), Range())
        return number_schema(arguments[0], limits.low, limits.high)
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (Union, UnionType):
        return {"anyOf": [type_schema(part) for part in arguments]}
    if origin in (list, tuple, Sequence):
        item = type_schema(arguments[0])
        return {"anyOf": [{"type": "array", "items": item}, item, {"type": "string"}]}
    if (origin or kind) in (dict, Mapping):
        return {"type": "object"}
    if kind in (int, float):
        return number_schema(kind)
    simple: dict[Any, Schema] = {
        bool: {"type": "boolean"},
        str: {"type": "string"},
        Path: {"type": "string"},
        NoneType: {"type": "null"},
    }
    return simple.get(kind, {})


def number_schema(kind: type, low: float = -math.inf, high: float = math.inf) -> Schema:
    """Return the JSON schema of a number within a range, with underscores or without."""
    schema: Schema = {"type": "integer" if kind is int else "number"}
    if low > -math.inf:
        schema["minimum"] = low
    if high < math.inf:
        schema["maximum"] = high
    return {"anyOf": [schema, {"type": "string", "pattern": _SPELLED}]}


def describe_type(schema: Schema) -> str:
    """Return what the values of a schema are, in words: 'a number, at least 0'.

    >>> describe_type(number_schema(int, 1, 8)), describe_type(type_schema(list[str] | None))
    ('1 to 8', 'a list of words, or null')
    """
    if "enum" in schema:
        return f"one of {', '.join(map(_word, schema['enum']))}"
    if "anyOf" in schema:
        parts = [part for part in schema["anyOf"] if "pattern" not in part]
        if parts[0].get("type") == "array":
            return _plural(describe_type(parts[0]["items"]))
        return ", or ".join(dict.fromkeys(text for text in map(describe_type, parts) if text))
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f"{_number(low)} to {_number(high)}"
    if low is not None:
        return f"at least {_number(low)}"
    return _WORDS.get(schema.get("type", ""), "")


_WORDS = {
    "integer": "a whole number", "number": "a number", "boolean": "true or false",
    "string": "a word", "object": "a mapping", "null": "null",
}  # fmt: skip


def _plural(item: str) -> str:
    return f"a list of {item.removeprefix('a ')}s" if item.startswith("a ") else "a list"


def _word(value: Any) -> str:
    return str(value) if value != "" else "''"


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) or not value.is_integer() else f"{int(value):,}"
