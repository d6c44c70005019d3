"""``thalnet list``: the names that a configuration may use, with a line on each."""

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from textwrap import wrap

from thalnet_mtl.cli.kinds import KINDS
from thalnet_mtl.cli.output import UNLIMITED, hanging, line_width
from thalnet_mtl.cli.parser import Commands, add_command
from thalnet_mtl.config.files import config_names
from thalnet_mtl.config.plugins import import_files
from thalnet_mtl.errors import one_line, unknown
from thalnet_mtl.published import zoo_lines


@dataclass(frozen=True)
class Item:
    """A name in a list: a line on it, and facts with a word before each."""

    text: str
    facts: Mapping[str, str] = field(default_factory=dict)


def add_list_command(commands: Commands) -> None:
    """Add the command and its options."""
    parser = add_command(
        commands, list_names, "list", epilog="'thalnet list' alone says what each KIND is."
    )
    kinds = ("configs", "zoo", *KINDS)
    parser.add_argument("kind", nargs="?", choices=kinds, metavar="KIND", help="one of %(choices)s")
    parser.add_argument(
        "words",
        nargs="*",
        metavar="NAME",
        help="explain one of them with its options; or list only those with all of these words; "
        "a FILE.py adds names of your own",
    )


def list_names(options: argparse.Namespace) -> int:
    """List the names of one kind with a line on each, or explain one of them."""
    width = line_width()
    import_files(word for word in options.words if word.endswith(".py"))
    words = [word for word in options.words if not word.endswith(".py")]
    if options.kind is None:
        kinds = {name: Item(kind.text) for name, kind in KINDS.items()}
        items = {
            "configs": Item("configurations that come with this package"),
            "zoo": Item("trained networks that come with this package: zoo:NAME"),
        } | kinds
    else:
        kind = KINDS[options.kind].registry if options.kind in KINDS else ""
        items = _items(options.kind)
        if kind and len(words) == 1 and words[0] in items:
            print("\n".join(_explanation(kind, words[0], width)))
            return 0
        matching = {name: item for name, item in items.items() if _has(name, item, words)}
        if not matching:
            raise unknown(kind or options.kind.removesuffix("s"), " ".join(words), items)
        items = matching
    indent = max(map(len, items)) + 2
    for name, item in items.items():
        print("\n".join(_lines(name, item, indent, width)))
    return 0


def _items(kind: str) -> dict[str, Item]:
    """Return what a list says of each name of a kind."""
    if kind == "configs":
        return {name: Item(text) for name, text in config_names().items()}
    if kind == "zoo":
        return {name: Item(text) for name, text in zoo_lines().items()}
    if values := KINDS[kind].values:
        return {name: Item(text) for name, text in values.items()}
    from thalnet_mtl.config.catalog import catalog

    return {
        name: Item(
            entry.text,
            {
                "targets": ", ".join(entry.targets),
                "options": entry.options_line(),
                "source": entry.source,
            },
        )
        for name, entry in catalog(KINDS[kind].registry).items()
    }


def _has(name: str, item: Item, words: list[str]) -> bool:
    """Return whether all words occur in what is said of a name, in capitals or not."""
    text = " ".join([name, item.text, *item.facts.values()]).lower()
    return all(word.lower() in text for word in words)


def _lines(name: str, item: Item, indent: int, width: int) -> Iterator[str]:
    """Yield the lines on a name; a single one where the width has no limit."""
    facts = [f"{word}: {text}" for word, text in item.facts.items() if text]
    if width == UNLIMITED:
        facts, item = [], Item("; ".join([item.text.rstrip("."), *facts]))
    yield from hanging(one_line(name), one_line(item.text), indent, width)
    for fact in facts:
        lines = wrap(one_line(fact), width - indent - 2, break_on_hyphens=False)
        yield from (" " * (indent + 2 * bool(number)) + line for number, line in enumerate(lines))


def _explanation(kind: str, name: str, width: int) -> Iterator[str]:
    """Yield the docstring of an entry, and its options."""
    from thalnet_mtl.config.catalog import catalog
    from thalnet_mtl.config.declarations import declaration
    from thalnet_mtl.config.docstring import prose

    width = min(width, 100)
    for number, paragraph in enumerate(prose(declaration(kind, name).doc)):
        yield from [""] * bool(number)
        lines = paragraph.split("\n")
        is_code = any(line.startswith((" ", ">>>", "-")) for line in lines)
        yield from lines if is_code else wrap(" ".join(lines), width)
    entry = catalog(kind)[name]
    if entry.targets:
        yield from ["", f"Targets: {', '.join(entry.targets)}"]
    yield from ["", "Options:"] if entry.options else []
    indent = max(map(len, entry.options), default=0) + 4
    for option, described in entry.options.items():
        yield from hanging(f"  {option}", described.describe(), indent, width)
