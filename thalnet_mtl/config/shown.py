"""A configuration as prompts and notebooks show it: what differs from the defaults."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from thalnet_mtl import markup
from thalnet_mtl.config.overlay import OPTIONS, as_plain, has_only_name
from thalnet_mtl.config.yaml_text import write_yaml


class ShownConfig:
    """A configuration that shows itself as the call that makes it, and in notebooks as YAML."""

    def __repr__(self) -> str:
        sections = ", ".join(f"{name}={value!r}" for name, value in changed(self).items())
        return f"load_config({sections})"

    def _repr_html_(self) -> str:
        values = changed(self)
        rest = markup.folded("all values", markup.block(write_yaml(as_plain(self))))
        about = "values that differ from the defaults" if values else "all values are the defaults"
        lines = markup.block(write_yaml(values)) if values else ""
        return markup.heading("Config", about) + lines + rest


def changed(value: Any) -> Any:
    """Return a section as plain values, at every level without those that are the defaults."""
    if is_dataclass(value) and not isinstance(value, type):
        default = type(value)()
        plain = {
            f.name: changed(getattr(value, f.name))
            for f in fields(value)
            if getattr(value, f.name) != getattr(default, f.name)
        }
        plain |= plain.pop(OPTIONS, {})
        return plain["name"] if has_only_name(value) and list(plain) == ["name"] else plain
    if isinstance(value, Mapping):
        return {str(key): changed(entry) for key, entry in value.items()}
    if isinstance(value, tuple | list):
        return [changed(entry) for entry in value]
    return str(value) if isinstance(value, Path) else value
