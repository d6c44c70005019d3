"""Help for every field of a configuration, as text of at most 80 columns."""

import math
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from textwrap import wrap
from typing import Any, get_args

from thalnet_mtl.config.schema import Config

WIDTH, INDENT = 80, 26  # columns of a terminal, and those before the text on a field


def describe_fields() -> str:
    """Describe all fields by section: the flags first, then the sections that only YAML sets."""
    flags: list[str] = []
    entries: list[str] = []
    for section in fields(Config):
        heading = f"{section.name}: {section.metadata['help']}"
        if is_dataclass(section.type):
            leaves = [
                leaf for leaf in fields(section.type) if leaf.metadata.keys() & {"choices", "of"}
            ]
            flags += ["", heading, *_describe(leaves, f"--{section.name}.")]
        else:
            kind: Any = next(kind for kind in get_args(section.type) if is_dataclass(kind))
            entries += ["", *wrap(heading, WIDTH), *_describe(fields(kind), "")]
    return "\n".join(
        [
            "Flags, each also a field in YAML ('train: {batch: 64}'):",
            *flags,
            "",
            "Sections with any number of entries, set in YAML. Fields of tasks and modules",
            "are flags, too: --tasks.NAME.weight 2, --modules.NAME.frozen true. 'growth' has",
            "'modules' as well, which are attached each time. Fields of an entry:",
            *entries,
        ]
    )


def _describe(leaves: Any, prefix: str) -> list[str]:
    lines = []
    for leaf in leaves:
        is_option = "of" in leaf.metadata
        name = f"  {prefix}{'OPTION' if is_option else leaf.name}"
        first, *rest = wrap(_help(leaf), WIDTH - INDENT, break_on_hyphens=False)
        if len(name) >= INDENT:
            lines.append(name)
            name = ""
        lines += [f"{name:<{INDENT}}{first}", *(" " * INDENT + line for line in rest)]
    return lines


def _help(leaf: Field[Any]) -> str:
    text: str = leaf.metadata["help"]
    if choices := leaf.metadata.get("choices"):
        text += f"; one of {', '.join(choices)}"
    if leaf.type is bool:
        text += "; true or false"
    facts = [f"default: {_default(leaf)}"] * bool(_default(leaf)) + [*_range(leaf)]
    return f"{text} ({', '.join(facts)})" if facts else text


def _default(leaf: Field[Any]) -> str:
    """Return the default of a field; '' if it has to be given, or the help says what it means."""
    default = leaf.default
    if is_dataclass(default) or default in (MISSING, "", ()):
        return ""
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, int | float) and default < leaf.metadata["low"]:
        return ""
    return str(default)


def _range(leaf: Field[Any]) -> Iterator[str]:
    """Yield the range of a number."""
    low, high = (leaf.metadata.get(end, math.nan) for end in ("low", "high"))
    if leaf.type in (int, float) and math.isfinite(low):
        yield f"at least {low:,}" if high == math.inf else f"{low:,} to {high:,}"
