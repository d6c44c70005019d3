"""Values of YAML, flags or Python as the type of what they are for, a field or an option."""

import math
import reprlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from thalnet_mtl.config.yaml_text import parse_scalar
from thalnet_mtl.errors import UserError, unknown

LARGEST = 2**63 - 1  # a whole number of PyTorch
EXACT = 2**53  # whole numbers up to here are exact as floating point


@dataclass(frozen=True)
class Range:
    """The smallest and the largest number allowed: ``memory: Annotated[int, Range(low=1)] = 500``.

    Raises:
        UserError: by ``check``, for a number outside.
    """

    low: float = -math.inf
    high: float = math.inf

    def check(self, value: float, where: str) -> None:
        """Raise unless a number is within the range."""
        if not self.low <= value <= self.high:
            span = f"at least {self.low}"
            if self.high < math.inf:
                span = f"between {self.low} and {self.high}"
            raise UserError(f"{where}: must be {span}, got {shown(value)}.")


def check_type(value: Any, kind: Any, where: str) -> Any:
    """Return the value as a type: a scalar, a list, a mapping, a ``Literal``, a ``Path``, a union.

    A type that is ``Annotated`` with a ``Range`` is that of a number within it. Values of any
    other type are returned as they are.

    Raises:
        UserError: the value cannot be read as that type, or is out of range.
    """
    arguments, origin = get_args(kind), get_origin(kind)
    if origin is Annotated:
        checked = check_type(value, arguments[0], where)
        for limits in arguments[1:]:
            if isinstance(limits, Range):
                limits.check(checked, where)
        return checked
    if origin is Literal:
        if value not in arguments:
            raise UserError(f"{where}: {unknown('value', value, map(str, arguments))}")
        return value
    if origin in (Union, UnionType):
        return _check_union(value, arguments, where)
    if origin in (list, tuple, Sequence) and kind not in _CASTS:
        if not isinstance(value, list | tuple):
            value = split_list(value) if isinstance(value, str) else [value]
        is_fixed = origin is tuple and ... not in arguments
        if is_fixed and len(value) != len(arguments):
            raise UserError(f"{where}: expected {len(arguments)} values, got {len(value)}.")
        kinds = arguments if is_fixed else repeat(arguments[0])
        items = [check_type(item, kind, where) for item, kind in zip(value, kinds, strict=False)]
        return tuple(items) if origin is tuple else items
    if (origin or kind) is dict and not isinstance(value, dict):
        raise UserError(f"{where}: expected a mapping, got {shown(value)}.")
    if kind not in _CASTS:
        return value
    try:
        return _CASTS[kind](value)
    except (TypeError, ValueError, OverflowError, KeyError):
        raise UserError(f"{where}: expected {_DESCRIPTIONS[kind]}, got {shown(value)}.") from None


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


def split_list(text: str) -> list[str]:
    """Return the entries of a list that is written as words with commas between them."""
    return [word.strip() for word in text.split(",")]


def shown(value: Any) -> str:
    """Return a value as an error message shows it, on one line of bounded length."""
    if isinstance(value, int) and abs(value) > 10**60:
        return f"a number of about {int(value.bit_length() * math.log10(2)) + 1:,} digits"
    return " ".join(_SHORT.repr(value).split())


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 70


def _number(kind: type) -> Callable[[Any], Any]:
    """Return a function that reads numbers of a type; text is read as in a file."""

    def cast(value: Any) -> Any:
        number = parse_scalar(value) if isinstance(value, str) else value
        if isinstance(number, bool | str):
            raise ValueError
        checked = kind(number)
        largest = EXACT if isinstance(number, float) else LARGEST
        if not math.isfinite(checked) or checked != float(number):
            raise ValueError
        if kind is int and abs(checked) > largest:
            raise ValueError
        return checked

    return cast


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError
    return value


def _boolean(value: Any) -> bool:
    checked = parse_scalar(value) if isinstance(value, str) else value
    if not isinstance(checked, bool):
        raise ValueError
    return checked


def _strings(value: Any) -> tuple[str, ...]:
    words = tuple(map(_string, split_list(value) if isinstance(value, str) else value))
    if not all(words):
        raise ValueError
    return words


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
