"""Tests of dataclasses that are built from JSON, with every type checked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from thalnet_mtl.errors import UserError
from thalnet_mtl.json_fields import from_fields


@dataclass(frozen=True)
class Inner:
    share: float


@dataclass(frozen=True)
class Entry:
    name: str
    parts: Sequence[int] = ()
    ends: tuple[int, int] = (0, 0)
    inner: Inner | None = None
    by_name: Mapping[str, Inner] = field(default_factory=dict)
    flag: bool = False


def test_fields_become_a_dataclass_lists_tuples_and_unknown_ones_are_ignored():
    content = {"name": "a", "parts": [1, 2], "inner": {"share": 1}, "new": 3}
    content |= {"by_name": {"b": {"share": 0.5}}, "ends": [3, 4]}
    expected = Entry("a", (1, 2), (3, 4), Inner(1.0), {"b": Inner(0.5)})
    assert from_fields(Entry, content, "file") == expected
    assert from_fields(Entry, {"name": "a"}, "file") == Entry("a")


@pytest.mark.parametrize(
    ("damaged", "problem"),
    [
        ({}, "file is damaged: it has no 'name'"),
        ([], "file is damaged: [] is not an object"),
        (None, "file is damaged: None is not an object"),
        ({"name": 5}, "file: name is damaged: 5 is not a text"),
        ({"parts": 5}, "file: parts is damaged: 5 is not a list"),
        ({"parts": "12"}, "file: parts is damaged: '12' is not a list"),
        ({"parts": [1, 2.5]}, "file: parts[1] is damaged: 2.5 is not a whole number"),
        ({"parts": [True]}, "file: parts[0] is damaged: True is not a whole number"),
        (
            {"parts": [2**63]},
            "file: parts[0] is damaged: 9223372036854775808 is not a",
        ),
        ({"ends": [1]}, "file: ends is damaged: it has 1 values, not 2"),
        ({"inner": {"share": "x"}}, "file: inner: share is damaged: 'x' is not a number"),
        ({"inner": {"share": 10**400}}, "file: inner: share is damaged"),
        ({"inner": []}, "file: inner is damaged: [] is not an object"),
        ({"by_name": {"b": 5}}, "file: by_name: b is damaged: 5 is not an object"),
        ({"by_name": []}, "file: by_name is damaged: [] is not an object"),
        ({"flag": 1}, "file: flag is damaged: 1 is not true or false"),
        ({"flag": "x\n\x1b[2J" + "y" * 999}, r"file: flag is damaged: 'x\n\x1b[2J"),
    ],
)
def test_a_value_of_another_type_is_one_short_line(damaged, problem):
    if isinstance(damaged, dict) and damaged:
        damaged = {"name": "a"} | damaged
    with pytest.raises(UserError) as error:
        from_fields(Entry, damaged, "file")
    text = str(error.value)
    assert text.startswith(problem) and text.isprintable() and len(text) < 200
