"""Help for the fields of a configuration: an overview, and one section at a time."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from textwrap import wrap
from typing import Any, get_args

from thalnet_mtl.cli.kinds import PLURALS
from thalnet_mtl.cli.output import hanging
from thalnet_mtl.config.overlay import OPTIONS, registry_kind
from thalnet_mtl.config.schema import Config

WIDTH = 80  # columns of a terminal, whatever it has: argparse also wraps its help
MOST_NAMES = 24  # of one kind in the help of a field
SECTIONS = {section.name: section for section in fields(Config)}


def entry_type(section: Field[Any]) -> Any:
    """Return the dataclass of a section, or that of its entries if it has any number of them."""
    return next(kind for kind in (section.type, *get_args(section.type)) if is_dataclass(kind))


def describe_overview() -> str:
    """Return the names of all fields by section; no more is imported for that."""
    indent = max(map(len, SECTIONS)) + 4
    lines = [
        "A configuration has these sections, in YAML (train: {batch: 64}) or as flags",
        "(--train.batch 64). 'thalnet config help SECTION' explains the fields of one.",
        "",
    ]
    for name, section in SECTIONS.items():
        leaves = [leaf.name for leaf in fields(entry_type(section)) if leaf.name != OPTIONS]
        lines += hanging(f"  {name}", section.metadata["help"], indent)
        lines += hanging("", ", ".join(leaves) or "its options", indent)
    return "\n".join(lines)


def describe_section(name: str) -> str:
    """Return all that may be set in a section: its fields, and the options of what they name."""
    section = SECTIONS[name]
    leaves = [leaf for leaf in fields(entry_type(section)) if leaf.name != OPTIONS]
    lines = [*wrap(f"{name}: {section.metadata['help']}", WIDTH), "", *forms(name, section), ""]
    lines += _describe_fields(leaves)
    if named := section.metadata.get("named"):
        lines += ["", f"Or by name, in YAML:  {name}: {{name: NAME, OPTION: VALUE}}"]
        lines += [f"             as flag:  --{name}.name NAME --{name}.OPTION VALUE", ""]
        lines += _describe_fields([leaf for leaf in fields(named) if leaf.name != OPTIONS])
        lines += ["", *_describe_options(registry_kind(named), name)]
    if name == "tasks":
        lines += ["", "Options of tasks, losses and metrics: see 'thalnet config help task'"]
    for kind, key in _option_kinds(section, leaves) if name != "tasks" else ():
        lines += ["", *_describe_options(kind, key)]
    return "\n".join(lines)


def forms(name: str, section: Field[Any]) -> list[str]:
    """Return how a field of a section is written in YAML and as a flag."""
    field = "FIELD" if len(fields(entry_type(section))) > 1 else "OPTION"
    if is_dataclass(section.type):
        yaml, flag = f"{name}: {{{field}: VALUE}}", f"--{name}.{field} VALUE"
    elif get_args(section.type)[0] is str:
        yaml, flag = f"{name}: {{NAME: {{FIELD: VALUE}}}}", f"--{name}.NAME.FIELD VALUE"
    else:
        entry = f"{{{field}: VALUE}}" if field == "FIELD" else "NAME"
        yaml, flag = f"{name}: [{entry}, …]", "none; a list is set in YAML"
        flag = f"--{name} NAME,NAME" if name == "trackers" else flag
    return [f"  in YAML:  {yaml}", f"  as flag:  {flag}"]


def _describe_fields(leaves: Sequence[Field[Any]]) -> Iterator[str]:
    """Yield lines on fields: what each is, its default, and a line on each of its values."""
    indent = max((len(leaf.name) for leaf in leaves), default=0) + 4
    for leaf in leaves:
        yield from hanging(f"  {leaf.name}", field_help(leaf), indent)
        choices = leaf.metadata.get("choices", ())
        if isinstance(choices, dict):
            width = max(map(len, choices)) + 2
            for choice, text in choices.items():
                yield from hanging(" " * indent + choice, text, indent + width)


def field_help(leaf: Field[Any]) -> str:
    """Return what a field is, the names or values that it takes, its default and its range."""
    text: str = leaf.metadata["help"]
    if kind := leaf.metadata.get("names", ""):
        text += f"; {_names(kind)}"
    choices = leaf.metadata.get("choices", ())
    if choices and not isinstance(choices, dict):
        text += f"; one of {', '.join(choices)}"
    if leaf.type == tuple[str, ...]:
        text += "; a list of names"
    if leaf.type is bool:
        text += "; true or false"
    if inner := _inner(leaf):
        sections = [s.name for s in SECTIONS.values() if entry_type(s) is inner]
        see = [f"see 'thalnet config help {section}'" for section in sections]
        text += f"; {''.join(see) or 'a name, or {name: NAME, OPTION: VALUE}'}"
    facts = [f"default: {_default(leaf)}"] * bool(_default(leaf)) + [*_range(leaf)]
    return f"{text} ({', '.join(facts)})" if facts else text


def _names(kind: str) -> str:
    """Return the names of a kind, or where they are listed if there are many."""
    from thalnet_mtl.config.catalog import catalog

    names, hint = list(catalog(kind)), f"see 'thalnet list {PLURALS[kind]}'"
    return f"one of {', '.join(names)}; {hint}" if len(names) <= MOST_NAMES else hint


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


def _option_kinds(section: Field[Any], leaves: Iterable[Field[Any]]) -> Iterator[tuple[str, str]]:
    """Yield the kinds of entries whose options a section takes, and the key that has them."""
    if kind := registry_kind(entry_type(section)):
        yield kind, section.name
    for leaf in leaves:
        inner, named = _inner(leaf), leaf.metadata.get("names", "")
        if inner and registry_kind(inner, named):
            yield named, f"{section.name}: {leaf.name}"


def _inner(leaf: Field[Any]) -> Any:
    """Return the dataclass that a field, or an entry of it, is; None if it is none."""
    return next((kind for kind in (leaf.type, *get_args(leaf.type)) if is_dataclass(kind)), None)


def _describe_options(kind: str, key: str) -> Iterator[str]:
    """Yield a line on every option of every entry of a kind."""
    from thalnet_mtl.config.catalog import catalog

    yield f"Options of {key}, by {kind}:"
    for name, entry in catalog(kind).items():
        if entry.options:
            text = wrap(f"{name}: {entry.text}", WIDTH - 6)
            yield from [f"  {text[0]}", *(f"      {line}" for line in text[1:])]
        indent = max(map(len, entry.options), default=0) + 8
        for option, described in entry.options.items():
            yield from hanging(f"      {option}", described.describe(), indent)
