"""YAML of configurations, in files and behind flags: every key once, plain values, bounded size.

A value means the same in both, so both are read here and not by PyYAML's constructors. These drop
the first of two equal keys, and turn ``010`` into 8, ``1:30`` into 90 and ``no`` into false, while
``1e-3`` stays text.
"""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from thalnet_mtl.errors import UserError

LARGEST_FILE = 4_000_000  # bytes
MOST_VALUES = 200_000  # after each alias is replaced by what it stands for
DEEPEST = 40  # levels of lists and mappings
LONGEST_NUMBER = 300  # characters

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DIGITS = r"(?:0|[1-9][0-9]*(?:_[0-9]+)*)"
_WHOLE = re.compile(rf"[-+]?{_DIGITS}")
_NUMBER = re.compile(rf"[-+]?(?:{_DIGITS}(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_WORDS: dict[str, Any] = {
    form: value
    for word, value in {"true": True, "false": False, "null": None, ".nan": math.nan}.items()
    for form in (word, word.capitalize(), word.upper())
} | {"": None, "~": None, ".NaN": math.nan}
_INFINITE = re.compile(r"([-+]?)\.(?:inf|Inf|INF)")


def parse_scalar(text: str) -> Any:
    """Return a word as the number, truth value or null that it stands for, otherwise as it is.

    These are the words of YAML 1.2 without its octal and hexadecimal numbers, and numbers with
    underscores. A number that begins with a 0 is a word, as YAML 1.1 and 1.2 disagree about it.

    >>> [parse_scalar(text) for text in ("1e-3", "1_000", "true", "no", "010", "1:30")]
    [0.001, 1000, True, 'no', '010', '1:30']
    """
    if text in _WORDS:
        return _WORDS[text]
    if infinite := _INFINITE.fullmatch(text):
        return -math.inf if infinite[1] == "-" else math.inf
    if len(text) > LONGEST_NUMBER or not _NUMBER.fullmatch(text):
        return text
    return int(text) if _WHOLE.fullmatch(text) else float(text)


def parse_flag(text: str, where: str) -> Any:
    """Return the value of a flag: a list, a mapping or a quoted word of YAML, or a plain word.

    >>> parse_flag("[1, x]", "--a.b"), parse_flag("x: 1", "--a.b")
    ([1, 'x'], 'x: 1')
    """
    return parse_yaml(text, where) if text[:1] in tuple("[{\"'") else parse_scalar(text)


Lines = Mapping[tuple[str, ...], int]  # of keys and entries of lists, by their path


def parse_yaml(text: str, where: str) -> Any:
    """Return what a text in YAML holds, as dictionaries with text as keys, lists and scalars.

    Args:
        text: one document.
        where: the file or flag that it comes from, for error messages.

    Raises:
        UserError: it is no YAML, has a key twice, a tag, or is too deep or too large; with the
            line.
    """
    return parse_with_lines(text, where)[0]


def parse_with_lines(text: str, where: str) -> tuple[Any, Lines]:
    """Return what ``parse_yaml`` does, and the line of each key and of each entry of a list.

    What an alias or ``<<`` repeats has the line of where it stands.
    """
    document = _Document(yaml.parse(text, Loader=_LOADER), where)
    try:
        return document.read(), document.lines
    except (yaml.YAMLError, UnicodeError) as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        line = f"line {mark.line + 1}: " if mark else ""
        reason = " ".join(str(problem or error).split())
        raise UserError(f"{where} is not valid YAML: {line}{reason}.") from error


def write_yaml(tree: Any) -> str:
    """Return plain data as YAML that ``parse_yaml`` reads back."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False)


def write_inline(value: Any) -> str:
    """Return plain data as YAML of one line.

    >>> write_inline({"a": [1, "1", None, "x: y"]})
    "{a: [1, '1', null, 'x: y']}"
    """
    text: str = yaml.dump(
        value, Dumper=_Dumper, sort_keys=False, default_flow_style=True, width=math.inf
    )
    return text.removesuffix("...\n").rstrip("\n")


class _Dumper(yaml.SafeDumper):
    """The dumper of PyYAML, with quotes around text that ``parse_scalar`` would convert."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None if isinstance(parse_scalar(text), str) else "'"
    style = style if text.isprintable() else '"'  # so that every scalar is one line
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


class _Document:
    """The values that the events of a parser describe, read one after another."""

    def __init__(self, events: Iterator[Any], where: str):
        self.events, self.where = events, where
        self.anchors: dict[str, tuple[Any, int]] = {}  # value and number of values inside
        self.count = 0
        self.path: list[str] = []
        self.lines: dict[tuple[str, ...], int] = {}

    def read(self) -> Any:
        """Return the only document; None if there is none."""
        document = None
        for event in self.events:
            if isinstance(event, yaml.DocumentStartEvent):
                if self.count:
                    raise self.error(event, "a second document begins; a file holds one")
                document = self.value(next(self.events))
        return document

    def error(self, event: Any, text: str) -> UserError:
        """Build an error with the line of an event."""
        return UserError(f"{self.where}, line {_line(event)}: {text}.")

    def value(self, event: Any) -> Any:
        """Return the value that begins with an event."""
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self.anchors:
                raise self.error(event, f"alias '*{event.anchor}' stands before '&{event.anchor}'")
            value, size = self.anchors[event.anchor]
            self.add(event, size)
            return value
        if event.tag not in (None, "!"):
            raise self.error(event, f"a tag such as '{event.tag}' is not allowed")
        before = self.count
        self.add(event, 1)
        if isinstance(event, yaml.ScalarEvent):
            value = parse_scalar(event.value) if event.implicit[0] else event.value
        else:
            if len(self.path) >= DEEPEST:
                raise self.error(event, f"more than {DEEPEST} lists or mappings in each other")
            is_list = isinstance(event, yaml.SequenceStartEvent)
            value = list(self.entries()) if is_list else self.mapping()
        if event.anchor:
            self.anchors[event.anchor] = value, self.count - before
        return value

    def add(self, event: Any, size: int) -> None:
        """Count values, and raise if there are too many."""
        self.count += size
        if self.count > MOST_VALUES:
            raise self.error(event, f"more than {MOST_VALUES:,} values, aliases included")

    def inner(self, key: str, event: Any, line: int) -> Any:
        """Return the value of a key, or of an entry of a list, which stands in a line."""
        self.path.append(key)
        self.lines[tuple(self.path)] = line
        value = self.value(event)
        self.path.pop()
        return value

    def entries(self) -> Iterator[Any]:
        """Yield the entries of a list."""
        number = 0
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            yield self.inner(str(number), event, _line(event))
            number += 1

    def mapping(self) -> dict[str, Any]:
        """Return the entries of a mapping, with those of ``<<`` as defaults."""
        entries: dict[str, Any] = {}
        merged: list[Any] = []
        lines: dict[str, int] = {}
        while not isinstance(key := next(self.events), yaml.MappingEndEvent):
            if not isinstance(key, yaml.ScalarEvent) or key.tag not in (None, "!"):
                raise self.error(key, "a key must be a word")
            name, line = key.value, _line(key)
            if name in lines:
                raise self.error(key, f"'{name}' is given twice, first in line {lines[name]}")
            lines[name] = line
            value = self.inner(name, next(self.events), line)
            if name != "<<" or not key.implicit[0]:
                entries[name] = value
                continue
            merged = value if isinstance(value, list) else [value]
            if not all(isinstance(part, dict) for part in merged):
                raise self.error(key, "'<<' takes a mapping, or a list of them")
        for part in merged:
            entries = part | entries
        return entries


def _line(event: Any) -> int:
    """Return the line of an event, counted from 1."""
    line: int = event.start_mark.line + 1
    return line
