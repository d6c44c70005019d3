"""Help for every field of a configuration, as text of at most 80 columns."""

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
            "Sections with any number of entries, set in YAML. A field of an entry is also a",
            "flag, such as --tasks.text8.weight 2. 'growth' has 'modules' as well, which are",
            "attached each time. Fields of an entry:",
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
    default = leaf.default
    if is_dataclass(default):
        return text
    if isinstance(default, bool):
        return f"{text} (default: {str(default).lower()})"
    if default in (MISSING, "", ()):  # the text says what an empty one means
        return text
    if isinstance(default, int | float) and default < leaf.metadata["low"]:  # must be given
        return text
    return f"{text} (default: {default})"
