"""Mistakes of a configuration, all at once: a line for each, with its file and line, or flag."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import partial
from typing import Any, get_args

from thalnet_mtl.config.declarations import declarations, is_declared
from thalnet_mtl.config.files import KeyPath, Layer, leaves, nested, read_file, read_flag
from thalnet_mtl.config.load import complete, lay_over, names_first
from thalnet_mtl.config.options import check_options, field_names
from thalnet_mtl.config.overlay import OPTIONS, as_plain, overlay, registry_kind
from thalnet_mtl.config.plugins import import_plugins
from thalnet_mtl.config.schema import Config, NamedStream
from thalnet_mtl.errors import UserError, unknown

# Sections that are lists, with the dataclass of an entry.
_LISTS = {f.name: get_args(f.type)[0] for f in fields(Config) if f.name in ("changes", "stream")}


@dataclass
class Findings:
    """The mistakes of a configuration, and what is left of it without them."""

    mistakes: list[str] = field(default_factory=list)
    configs: dict[str, Config] = field(default_factory=lambda: {"": Config()})  # by run
    layers: list[Layer] = field(default_factory=list)

    def place(self, run: str, path: KeyPath) -> str:
        """Return where a value is from, or what is around it; '' if all of that are defaults."""
        places = (self.find(run, path[:end]) for end in range(len(path), 0, -1))
        return next(filter(None, places), "")

    def find(self, run: str, path: KeyPath) -> str:
        """Return where a value is from, '' if it is a default."""
        places = (layer.find(path, run) for layer in reversed(self.layers))
        return next(filter(None, places), "")

    def add(self, wrong: Iterable[tuple[str, KeyPath, str]]) -> None:
        """Add mistakes of runs, each a run, a path and a text; one of all runs is added once."""
        runs: dict[tuple[str, str], list[str]] = {}
        for run, path, text in wrong:
            place = self.place(run, path) or ", ".join(layer.where for layer in self.layers)
            runs.setdefault((place, text), []).append(run)
        for (place, text), having in runs.items():
            label = f"run '{having[0]}': " if len(having) < len(self.configs) else ""
            self.mistakes.append(f"{place}: {label}{text}")

    def sort(self) -> None:
        """Sort the mistakes by file and line, and drop those that are given twice."""
        files = [layer.where for layer in self.layers]

        def order(text: str) -> tuple[int, int]:
            file = next((n for n, name in enumerate(files) if text.startswith(name)), len(files))
            line = re.match(r".*?, line (\d+): ", text)
            return file, int(line[1]) if line else 0

        self.mistakes = sorted(dict.fromkeys(self.mistakes), key=order)


def find_mistakes(
    names: Iterable[str], flags: Mapping[str, str], check: Callable[[Config], Any]
) -> Findings:
    """Load the configuration of each run as ``load_configs`` does, but go on after a mistake.

    Each value is checked by itself, then the names and their options. If all are right, ``check``
    says whether they fit together.

    Args:
        names: of files.
        flags: by ``section.field``.
        check: raises ``UserError`` for a configuration that cannot be trained.
    """
    findings = Findings()
    reads: list[Callable[[], Layer]] = [partial(read_file, name) for name in names]
    reads += [partial(read_flag, *flag) for flag in names_first(flags)]
    for read in reads:
        try:
            layer = _without_wrong_values(read(), findings.mistakes)
            findings.configs = lay_over(findings.configs, layer)
            findings.layers.append(layer)
        except UserError as error:
            findings.mistakes.append(str(error))
    for config in findings.configs.values():
        try:
            import_plugins(config)
        except UserError as error:
            findings.mistakes.append(str(error))
    runs = findings.configs.items()
    findings.add((run, *wrong) for run, config in runs for wrong in _wrong_names(config, ()))
    if not findings.mistakes:
        findings.add((run, *wrong) for run, config in runs for wrong in _refused(config, check))
    if not findings.mistakes:
        findings.configs = {run: complete(config) for run, config in runs}
    findings.sort()
    return findings


def _refused(config: Config, check: Callable[[Config], Any]) -> Iterator[tuple[KeyPath, str]]:
    """Yield why a configuration cannot be trained, and the path that the reason begins with."""
    try:
        check(complete(config))
    except UserError as error:
        path = re.match(r"[a-z_]+(\.\w+)*", str(error))
        yield tuple(path[0].split(".")) if path else (), str(error)


def notes(findings: Findings, reasons: Callable[[Config], Mapping[str, str]]) -> list[str]:
    """Return a line on every value that is set and has no effect on any run that has it.

    Args:
        findings: the configurations, without a mistake.
        reasons: returns why fields have no effect on a run, by ``section.field``.
    """
    lines: dict[tuple[str, str], list[str]] = {}
    for run, config in findings.configs.items():
        without_effect = reasons(config)
        for path, _ in leaves(as_plain(config)):
            if place := findings.find(run, path):
                names = [".".join(path[:end]) for end in range(1, len(path) + 1)]
                why = next((without_effect[name] for name in names if name in without_effect), "")
                lines.setdefault((place, ".".join(path)), []).append(why)
    return [
        f"{place}: {name} has no effect: {whys[0]}"
        for (place, name), whys in lines.items()
        if all(whys)
    ]


def _without_wrong_values(layer: Layer, mistakes: list[str]) -> Layer:
    """Return a layer with its allowed values, and add a line on every other one to a list."""

    def allowed(sections: Any, start: KeyPath) -> dict[str, Any]:
        return _AllowedValues(layer, start, mistakes).among(sections)

    runs = layer.runs or {}
    allowed_runs = {run: allowed(sections, ("runs", run)) for run, sections in runs.items()}
    return replace(layer, sections=allowed(layer.sections, ()), runs=allowed_runs or None)


class _AllowedValues:
    """The allowed values among the sections that a layer has at a path ``start``."""

    def __init__(self, layer: Layer, start: KeyPath, mistakes: list[str]):
        self.layer, self.start, self.mistakes = layer, start, mistakes

    def among(self, sections: Any) -> dict[str, Any]:
        """Return the allowed values of some sections."""
        allowed: dict[str, Any] = {}
        if not isinstance(sections, dict):
            self.is_allowed(Config(), sections, ())
            return allowed
        for key, value in sections.items():
            if key in _LISTS and isinstance(value, list):
                allowed[key] = [e for n, e in enumerate(value) if self.is_entry(key, e, str(n))]
                continue
            for path, leaf in leaves(value, (key,)) if key != "changes" else [((key,), value)]:
                pieces = [{} for _ in path[1:]] + [leaf]  # first what is around it
                pairs = ((path[: end + 1], piece) for end, piece in enumerate(pieces))
                if all(self.is_allowed(_START, nested(p, piece), p) for p, piece in pairs):
                    _insert(allowed, path, leaf)
        return allowed

    def is_entry(self, section: str, entry: Any, number: str) -> bool:
        """Return whether an entry of a list is allowed, by itself and each of its fields."""
        path = (section, number)
        items = entry.items() if isinstance(entry, dict) else ()
        empty = _LISTS[section]()
        right = [self.is_allowed(empty, {key: v}, (*path, key), section) for key, v in items]
        return all(right) and self.is_allowed(Config(), {section: [entry]}, path)

    def is_allowed(self, config: Any, values: Any, path: KeyPath, section: str = "") -> bool:
        """Return whether values can be laid over a dataclass; add a line if not."""
        place = self.layer.place((*self.start, *path))
        run = [f"run '{run}'" for run in self.start[1:]]
        try:
            overlay(config, values, ": ".join([place, *run, *([section] if section else [])]))
        except UserError as error:
            self.mistakes.append(str(error))
            return False
        return True


_START: Any = replace(Config(), stream=NamedStream())  # type: ignore[arg-type]  # options need it


def _insert(tree: dict[str, Any], path: KeyPath, value: Any) -> None:
    """Set a value in a tree of mappings."""
    *parents, key = path
    for parent in parents:
        tree = tree.setdefault(parent, {})
    tree[key] = value


def _wrong_names(section: Any, path: KeyPath, outer: str = "", strategy: str = "") -> Iterator[Any]:
    """Yield the path of every wrong name and option in a section, with the mistake.

    Args:
        section: a dataclass.
        path: of the section.
        outer: the kind of the registry that the field around it names.
        strategy: what ``train.strategy`` is.
    """
    if isinstance(section, Config):
        strategy = section.train.strategy
    if kind := registry_kind(section, outer):
        of = next(leaf.metadata["of"] for leaf in fields(section) if leaf.name == OPTIONS)
        name = getattr(section, of) if of else strategy
        if is_declared(kind, name):
            yield from _wrong_options(kind, name, section, path)
        elif name and outer:  # elsewhere the field of the name is checked below
            yield path, f"{'.'.join(path)}: {unknown(kind, name, declarations(kind))}"
    for leaf in fields(section):
        value, inner = getattr(section, leaf.name), (*path, leaf.name)
        named = leaf.metadata.get("names", "")
        if leaf.name == OPTIONS:
            continue
        if is_dataclass(value):
            yield from _wrong_names(value, inner, named, strategy)
        elif isinstance(value, dict):
            for name, entry in value.items():
                yield from _wrong_names(entry, (*inner, name), named, strategy)
        elif isinstance(value, tuple):
            for number, entry in enumerate(value):
                if is_dataclass(entry):
                    yield from _wrong_names(entry, (*inner, str(number)), named, strategy)
        elif named and value and not is_declared(named, value):
            yield inner, f"{'.'.join(inner)}: {unknown(named, value, declarations(named))}"


def _wrong_options(kind: str, name: str, section: Any, path: KeyPath) -> Iterator[Any]:
    """Yield the path of every wrong option of an entry of the registry, with the mistake."""
    where, options = ".".join(path), dict(section.options)
    while True:
        try:
            check_options(kind, name, options, where, field_names(section))
            return
        except UserError as error:
            text = str(error)
        named = [option for option in options if f"'{option}'" in text or f".{option}: " in text]
        yield (*path, *named[:1]), text
        if not named:
            return
        del options[named[0]]
