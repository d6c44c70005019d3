"""Makes the reference of all configuration fields, and of all names, from the package itself.

It is written to ``reference/`` before the pages are read, and git ignores it.
"""

import re
import shutil
from dataclasses import fields
from pathlib import Path

from sphinx.application import Sphinx

from thalnet_mtl.cli.fields import SECTIONS, entry_type, field_help, forms
from thalnet_mtl.cli.kinds import KINDS
from thalnet_mtl.config.catalog import CatalogEntry, catalog
from thalnet_mtl.config.files import config_names
from thalnet_mtl.config.overlay import OPTIONS

LISTED = re.compile(r"(?<=see )'thalnet list (\w+)'")
SPECIAL = re.compile(r"([\\*_<>\[\]{}|#])")
INTRODUCTION = """# Configuration reference

This page is made from the schema. `thalnet config help SECTION` prints a section of it,
`thalnet config check FILE.yaml` checks a file without training, and
`thalnet config show FILE.yaml` prints every value with the line that it is from.
"""
NAMES = """# Names that a configuration may use

`thalnet list` prints them; files of your own [add to them](../extend.md).
"""


def write_pages(app: Sphinx) -> None:
    """Write both pages."""
    folder = Path(app.srcdir) / "reference"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    text = "\n".join([INTRODUCTION, *map(_section, SECTIONS)])
    (folder / "configuration.md").write_text(text, "utf-8")
    text = "\n".join([NAMES, _configs(), *map(_kind, KINDS)])
    (folder / "names.md").write_text(text, "utf-8")


def _section(name: str) -> str:
    """Return a section with its fields as a definition list."""
    section = SECTIONS[name]
    lines = [f"## `{name}`", "", _escape(_sentence(section.metadata["help"])), ""]
    lines += ["```text", *forms(name, section), "```", ""]
    named = section.metadata.get("named")
    kinds = [entry_type(section), *[named] * bool(named)]
    for leaf in (leaf for kind in kinds for leaf in fields(kind) if leaf.name != OPTIONS):
        lines += [f"`{name}.{leaf.name}`", f": {_escape(field_help(leaf))}"]
        choices = leaf.metadata.get("choices", ())
        if isinstance(choices, dict):
            lines += ["", *(f"  - `{choice}`: {_escape(text)}" for choice, text in choices.items())]
        lines += [""]
    return "\n".join(lines)


def _configs() -> str:
    items = [f"- `{name}`: {_escape(text)}" for name, text in config_names().items()]
    return "\n".join(["## Configurations", "", "`thalnet train NAME`", "", *items, ""])


def _kind(name: str) -> str:
    """Return the entries of a kind with their options."""
    kind = KINDS[name]
    lines = [f"## {name.capitalize()}", "", _escape(_sentence(kind.text)), ""]
    for value, text in kind.values.items():
        lines += [f"`{value}`", f": {_escape(text)}", ""]
    for entry, facts in catalog(kind.registry).items() if kind.registry else ():
        lines += [f"`{entry}`", *_entry(facts), ""]
    return "\n".join(lines)


def _entry(facts: CatalogEntry) -> list[str]:
    lines = [f": {_escape(facts.text) or '–'}"]
    if facts.targets:
        lines += ["", f"  Targets: {', '.join(facts.targets)}."]
    if facts.source:
        lines += ["", f"  Source: {_escape(facts.source)}"]
    options = [
        f"  - `{name}`: {_escape(option.describe())}" for name, option in facts.options.items()
    ]
    return [*lines, "", *options] if options else lines


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


def _escape(text: str) -> str:
    """Return a text as Markdown: code of docstrings stays code, named lists become links."""
    parts = (
        f"`{part.strip('`')}`" if part.startswith("``") else SPECIAL.sub(r"\\\1", part)
        for part in re.split(r"(``.+?``)", text)
    )
    return LISTED.sub(r"[\1](names.md#\1)", "".join(parts))


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("builder-inited", write_pages)
    return {"parallel_read_safe": True}
