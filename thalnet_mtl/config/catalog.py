"""Everything that a configuration may name, with a line on it, its source and its options.

Help, lists, completion and the JSON schema are made from it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from inspect import Parameter

from thalnet_mtl.config import docstring
from thalnet_mtl.config.declarations import Declaration, declarations
from thalnet_mtl.config.json_types import Schema, describe_type, type_schema
from thalnet_mtl.config.options import as_yaml


@dataclass(frozen=True)
class Option:
    """An option of an entry: its values as a JSON schema, and its default as YAML."""

    help: str
    schema: Schema
    default: str | None  # None: it must be given

    def describe(self) -> str:
        """Return what it is, what it may be and its default."""
        facts = [describe_type(self.schema)]
        facts += ["required" if self.default is None else f"default: {self.default}"]
        return f"{self.help} ({'; '.join(fact for fact in facts if fact)})".lstrip()


@dataclass(frozen=True)
class CatalogEntry:
    """An entry of the registry, as far as help and lists tell of it."""

    text: str  # the first line of its docstring
    source: str  # a publication, or ''
    targets: tuple[str, ...]  # of a loss or metric: the kinds of target that it fits
    options: Mapping[str, Option]
    takes_any: bool  # further options, which it does not declare

    def options_line(self) -> str:
        """Return its options with their defaults in one line: ``k=5``; '' if it has none."""
        return ", ".join(
            name if option.default is None else f"{name}={option.default}"
            for name, option in self.options.items()
        )


def catalog(kind: str) -> dict[str, CatalogEntry]:
    """Return all entries of a kind of the registry by name."""
    return {name: _entry(entry) for name, entry in declarations(kind).items()}


def _entry(entry: Declaration) -> CatalogEntry:
    help = docstring.arguments(entry.doc)
    targets = entry.facts.get("targets", ())
    return CatalogEntry(
        text=docstring.summary(entry.doc),
        source=docstring.source(entry.doc),
        targets=(targets,) if isinstance(targets, str) else tuple(targets),
        options={
            name: _option(parameter, help.get(name, ""))
            for name, parameter in entry.options.items()
            if parameter.kind is not Parameter.VAR_KEYWORD
        },
        takes_any=any(p.kind is Parameter.VAR_KEYWORD for p in entry.options.values()),
    )


def _option(parameter: Parameter, help: str) -> Option:
    annotated = parameter.annotation is not Parameter.empty
    return Option(
        help,
        type_schema(parameter.annotation) if annotated else {},
        None if parameter.default is Parameter.empty else as_yaml(parameter.default),
    )
