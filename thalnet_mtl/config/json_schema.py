"""A JSON schema of configurations, by which editors complete and check YAML files.

It is made from the dataclasses of the configuration and from the registry, plug-ins included.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, get_args, get_origin

from thalnet_mtl.config.catalog import CatalogEntry, Option, catalog
from thalnet_mtl.config.change import VERB_FIELDS
from thalnet_mtl.config.json_types import Schema, number_schema, type_schema
from thalnet_mtl.config.overlay import OPTIONS, as_plain, registry_kind
from thalnet_mtl.config.schema import (
    ChangeConfig,
    Config,
    ExperienceConfig,
    ModuleConfig,
    NamedTaskConfig,
)

DRAFT = "http://json-schema.org/draft-07/schema#"  # which yaml-language-server knows best


def config_schema() -> Schema:
    """Return the JSON schema of a configuration file."""
    definitions: dict[str, Schema] = {}
    sections = _section_schemas(definitions)
    strategies = catalog("strategy")
    rules = [
        {"if": _nested({"train": {"strategy": name}}), "then": {"properties": {"strategy": then}}}
        for name, then in _options_by_name((), strategies)
    ]
    definitions["run"] = {
        "description": "sections laid over those of all runs",
        "type": ["object", "null"],
        "properties": sections,
        "additionalProperties": False,
        "allOf": rules,
    }
    runs = {
        "description": "several runs, by name: sections laid over those of the file",
        "type": "object",
        "minProperties": 1,
        "propertyNames": {"pattern": r"^\w[\w.=+-]*$"},
        "additionalProperties": {"$ref": "#/definitions/run"},
    }
    return {
        "$schema": DRAFT,
        "title": "Configuration of thalnet",
        "type": "object",
        "minProperties": 1,
        "properties": sections | {"runs": runs},
        "additionalProperties": False,
        "allOf": rules,
        "definitions": definitions,
    }


def _section_schemas(definitions: dict[str, Schema]) -> dict[str, Schema]:
    """Return the schema of every section; those of entries are added to the definitions."""
    return {leaf.name: _field(leaf, definitions) for leaf in fields(Config)}


def _field(leaf: Field[Any], definitions: dict[str, Schema]) -> Schema:
    """Return the schema of a field, with its help and its default."""
    schema = _values(leaf, definitions)
    text, names = leaf.metadata["help"], leaf.metadata.get("names", "")
    if "$ref" in schema:  # draft 7 ignores what stands beside a reference
        schema = {"allOf": [schema]}
    default = leaf.default
    if not (default is MISSING or is_dataclass(default) or default in ("", ()) or names == "loss"):
        schema = schema | {"default": as_plain(default)}
    return {"description": text} | schema


def _values(leaf: Field[Any], definitions: dict[str, Schema]) -> Schema:
    """Return the schema of the values that a field takes."""
    kind, limits = leaf.type, leaf.metadata
    names, choices = limits.get("names", ""), limits.get("choices", ())
    inner = next((k for k in (kind, *get_args(kind)) if is_dataclass(k)), None)
    if inner:
        entry = _reference(inner, names, definitions)
        if get_origin(kind) is dict:
            named = {"propertyNames": {"pattern": r"^[^\W\d]\w*$"}, "additionalProperties": entry}
            return {"type": "object"} | named
        if get_origin(kind) is tuple:
            if _has_only_name(inner):
                entry = {
                    "allOf": [entry, {"if": {"type": "object"}, "then": {"required": ["name"]}}]
                }
            listed = {"type": "array", "items": entry}
            by_name = limits.get("named")
            alone = _reference(by_name, "", definitions) if by_name else {"type": "string"}
            short = [alone] if by_name or _has_only_name(inner) else []
            return {"anyOf": [listed, *short]} if short else listed
        return entry
    if names:
        return _names(names, leaf.default)
    if choices:
        about = {"enumDescriptions": [*choices.values()]} if isinstance(choices, Mapping) else {}
        return {"enum": [*choices]} | about
    if kind in (int, float):
        return number_schema(kind, limits["low"], limits["high"])
    return type_schema(kind)


def _names(kind: str, default: Any) -> Schema:
    """Return the schema of a name of the registry; '' where the default is no name."""
    entries = {name: entry.text for name, entry in catalog(kind).items()}
    entries |= {} if default else {"": "the default"}
    return {"enum": [*entries], "enumDescriptions": [*entries.values()]}


def _reference(section: Any, outer: str, definitions: dict[str, Schema]) -> Schema:
    """Return a reference to the schema of a dataclass, which is added to the definitions.

    Args:
        section: the dataclass.
        outer: the kind of the registry that the field around it names.
        definitions: of the schema, by name.
    """
    name = f"{section.__name__.removesuffix('Config')}{outer.title()}"
    if name not in definitions:
        definitions[name] = {}  # so that a section may hold itself
        schema = _object(section, outer, definitions)
        kind = registry_kind(section, outer)
        if kind and (_has_only_name(section) or section.__name__ == "NamedStream"):
            schema = {"anyOf": [_names(kind, ""), schema]}
        elif _has_only_name(section):
            schema = {"anyOf": [{"type": "string", "minLength": 1}, schema]}
        definitions[name] = schema
    return {"$ref": f"#/definitions/{name}"}


def _object(section: Any, outer: str, definitions: dict[str, Schema]) -> Schema:
    """Return the schema of a mapping with the fields of a dataclass, and options."""
    leaves = {leaf.name: leaf for leaf in fields(section)}
    holder, kind = leaves.pop(OPTIONS, None), registry_kind(section, outer)
    properties = {name: _field(leaf, definitions) for name, leaf in leaves.items()}
    kinds = ["object", "null"] if section in (NamedTaskConfig, ModuleConfig) else "object"
    schema: Schema = {"type": kinds, "properties": properties}
    if section is ChangeConfig:
        schema |= {"required": ["step", "verb", "name"], "allOf": _verbs(list(leaves))}
    if section is ExperienceConfig:
        schema |= {"required": ["tasks"]}
        properties["tasks"]["anyOf"][0]["minItems"] = 1
    if not (holder and kind):
        return schema | {"additionalProperties": False}
    of = holder.metadata["of"]
    if not of:  # the options of a strategy, by the section ``train``
        return schema | {"propertyNames": {"enum": _all_options(catalog(kind))}}
    properties[of] |= _names(kind, leaves[of].default)
    rules = [
        {"if": _nested({of: name}), "then": then}
        for name, then in _options_by_name(list(leaves), catalog(kind))
    ]
    unnamed = {"propertyNames": {"enum": [*leaves, *_all_options(catalog(kind))]}}
    return schema | {"allOf": [*rules, {"if": {"not": {"required": [of]}}, "then": unnamed}]}


def _options_by_name(
    beside: Sequence[str], entries: Mapping[str, CatalogEntry]
) -> Iterable[tuple[str, Schema]]:
    """Yield the name of every entry, with the schema of the options beside some fields."""
    for name, entry in entries.items():
        schema: Schema = {"properties": {o: _option(option) for o, option in entry.options.items()}}
        if not entry.takes_any:
            schema["propertyNames"] = {"enum": [*beside, *entry.options]}
        if required := [o for o, option in entry.options.items() if option.default is None]:
            schema["required"] = required
        yield name, schema


def _option(option: Option) -> Schema:
    return {"description": option.describe()} | option.schema


def _all_options(entries: Mapping[str, CatalogEntry]) -> list[str]:
    return sorted({option for entry in entries.values() for option in entry.options})


def _verbs(names: Sequence[str]) -> list[Schema]:
    """Return what each verb of a change needs and does not take."""
    return [
        {
            "if": _nested({"verb": verb}),
            "then": {
                "propertyNames": {"enum": ["step", "verb", "name", *takes]},
                "required": [name for name in takes if name == "source"],
            },
        }
        for verb, takes in VERB_FIELDS.items()
    ]


def _nested(values: Mapping[str, Any]) -> Schema:
    """Return the schema of a mapping that has these values, at any depth."""
    return {
        "required": [*values],
        "properties": {
            key: _nested(value) if isinstance(value, Mapping) else {"const": value}
            for key, value in values.items()
        },
    }


def _has_only_name(section: Any) -> bool:
    return [leaf.name for leaf in fields(section) if leaf.name != OPTIONS] == ["name"]
