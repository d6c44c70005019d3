"""Python files of a user, which register entries: ``thalnet train digits mine.py``.

A configuration lists them as ``plugins: [mine.py]``; in a YAML file, paths are relative to it. A
run records the path and the checksum of each, and keeps a copy. Modules that a file imports are
recorded by neither.
"""

import hashlib
import os
import sys
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from thalnet_mtl.config.overlay import as_plain
from thalnet_mtl.config.schema import Config, PluginConfig
from thalnet_mtl.errors import UserError
from thalnet_mtl.files import suggest_path, write_text
from thalnet_mtl.registry import names_registered_by, unregister

MARK, DIGITS = "@sha256:", 16  # 'mine.py@sha256:0123456789abcdef'
COPIES = "plugins"  # folder in a run directory
_imported: dict[Path, str] = {}  # the name of the module that a file was imported as, by its path


def import_plugins(config: Config, folder: Path | None = None) -> Config:
    """Import the files of a configuration, and return it with their absolute paths and checksums.

    Args:
        config: its entries may have a checksum, as those of a run do.
        folder: a run directory, whose copy of a file is imported where the file has changed.

    Raises:
        UserError: a file is missing, cannot be imported, or is not the one that was recorded.
    """
    plugins = tuple(PluginConfig(_import(plugin.name, folder)) for plugin in config.plugins)
    return replace(config, plugins=plugins) if plugins else config


def import_files(names: Iterable[str]) -> None:
    """Import files that a command names, for what they register."""
    import_plugins(Config(plugins=tuple(map(PluginConfig, names))))


def without_unused(config: Config) -> Config:
    """Return a configuration without the files that register nothing that it names.

    So the runs of other strategies in a sweep do not change with the file of one. A file that
    registers nothing at all is kept.
    """
    words = set(_words(as_plain(replace(config, plugins=()))))
    kept = [plugin for plugin in config.plugins if not (names := _names(plugin)) or words & names]
    return replace(config, plugins=tuple(kept)) if config.plugins else config


def unused(configs: Collection[Config]) -> list[str]:
    """Return a line for every file that registers nothing that any of some runs names."""
    plugins = {plugin: None for config in configs for plugin in config.plugins}
    for config in configs:
        for plugin in without_unused(config).plugins:
            plugins.pop(plugin, None)
    return [
        f"{plugin.name.partition(MARK)[0]}: no run names what it registers: "
        f"{', '.join(sorted(_names(plugin)))}"
        for plugin in plugins
    ]


def _names(plugin: PluginConfig) -> set[str]:
    """Return the names that a file has registered; none if another version of it is imported."""
    path, _, digest = plugin.name.partition(MARK)
    module = _imported.get(Path(path), "")
    return names_registered_by(module) if digest and module.endswith(digest) else set()


def _words(tree: Any) -> Iterator[str]:
    """Yield all texts among the values of a tree."""
    if isinstance(tree, str):
        yield tree
    for part in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        yield from _words(part)


def with_plugin(config: Config, name: str) -> Config:
    """Return a configuration with one more file, unless it is there already."""
    plugin = PluginConfig(os.path.abspath(Path(name).expanduser()))
    paths = [entry.name.partition(MARK)[0] for entry in config.plugins]
    return config if plugin.name in paths else replace(config, plugins=(*config.plugins, plugin))


def anchored(plugins: Any, folder: Path) -> Any:
    """Return the value of ``plugins`` in a YAML file with paths relative to a folder made absolute.

    Values of other types are returned as they are.
    """
    if isinstance(plugins, str):
        plugins = [part.strip() for part in plugins.split(",")]
    if not isinstance(plugins, list):
        return plugins
    return [
        os.path.abspath(folder / Path(plugin).expanduser())
        if isinstance(plugin, str) and plugin
        else plugin
        for plugin in plugins
    ]


def keep_copies(config: Config, folder: Path) -> None:
    """Write a copy of every file of a configuration to a run directory."""
    for plugin in config.plugins:
        path, _, digest = plugin.name.partition(MARK)
        copy = _copy(folder, Path(path), digest)
        if digest and not copy.exists() and _digest(source := _read(Path(path))) == digest:
            write_text(copy, source.decode())


def _import(name: str, folder: Path | None) -> str:
    """Import a file, and return its absolute path with its checksum."""
    text, _, recorded = name.partition(MARK)
    path = Path(os.path.abspath(Path(text).expanduser()))
    candidates = [path, *([_copy(folder, path, recorded)] if folder and recorded else [])]
    files = [candidate for candidate in candidates if candidate.is_file()]
    if not files:
        why = "is a folder." if path.is_dir() else f"does not exist.{suggest_path(path)}"
        raise UserError(f"plugin '{path}': it {why}")
    for candidate in files:
        digest = _digest(source := _read(candidate))
        if recorded in ("", digest):
            _execute(path, candidate, source, digest)
            return f"{path}{MARK}{digest}"
    raise UserError(
        f"plugin '{path}' has changed: it is not the file that was recorded (sha256 {recorded}). "
        f"Put that back, or train in another folder."
    )


def _copy(folder: Path, path: Path, digest: str) -> Path:
    """Return the path of the copy of a file in a run directory."""
    return folder / COPIES / f"{path.stem}-{digest}.py"


def _digest(source: bytes) -> str:
    return hashlib.sha256(source).hexdigest()[:DIGITS]


def _read(path: Path) -> bytes:
    if path.suffix != ".py":
        raise UserError(f"plugin '{path}': expected a Python file, NAME.py.")
    return path.read_bytes()


def _execute(origin: Path, path: Path, source: bytes, digest: str) -> None:
    """Run a file as a module, once, in place of what an earlier version of it registered.

    Modules beside it can be imported, as by ``python mine.py``.
    """
    name = f"thalnet_plugin_{origin.stem}_{digest}"
    if _imported.get(origin) == name:
        return
    if str(origin.parent) not in sys.path:
        sys.path.append(str(origin.parent))
    unregister(_imported.pop(origin, ""))
    spec = spec_from_file_location(name, path)
    assert spec is not None
    module = sys.modules[name] = module_from_spec(spec)
    try:
        exec(compile(source, path, "exec"), module.__dict__)
    except Exception as error:  # a user's file may fail in any way
        unregister(name)
        problem = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        raise UserError(f"plugin '{path}'{_line(error, path)}: {problem}") from error
    _imported[origin] = name


def _line(error: Exception, path: Path) -> str:
    """Return the last line of a file that an error went through, '' if there is none."""
    line, trace = getattr(error, "lineno", None), error.__traceback__
    while trace:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    return f", line {line}" if line else ""
