"""Configuration files: those that come with the package, by name, and those of a path."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from thalnet_mtl.config.earlier import upgrade
from thalnet_mtl.config.plugins import anchored
from thalnet_mtl.config.schema import Config
from thalnet_mtl.config.yaml_text import LARGEST_FILE, Lines, parse_flag, parse_with_lines
from thalnet_mtl.errors import UserError, unknown
from thalnet_mtl.files import suggest_path

KeyPath = tuple[str, ...]


def config_names() -> dict[str, str]:
    """Return the configs that come with the package, with the comment on their first line."""
    folder = configs_folder()
    paths = sorted(folder.rglob("*.yaml"))
    return {
        path.relative_to(folder).with_suffix("").as_posix(): path.read_text(encoding="utf-8")
        .partition("\n")[0]
        .removeprefix("#")
        .strip()
        for path in paths
    }


def config_path(name: str) -> Path:
    """Return the file of a configuration that is given by its name, or by its path.

    Raises:
        UserError: there is none; the message has the closest name.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else configs_folder() / f"{name}.yaml"
    if path.is_file():
        return path
    if path != Path(name):
        raise unknown("config", name, config_names())
    problem = "is not a file." if path.exists() else f"does not exist.{suggest_path(path)}"
    raise UserError(f"no config file '{name}': it {problem}")


@dataclass(frozen=True)
class Layer:
    """Values that are laid over those before, from a file or a flag; they are not checked yet."""

    where: str  # the file as it was named, or the flag
    sections: dict[str, Any]  # of every run
    runs: dict[str, Any] | None = None  # sections laid over them, by the name of the run
    lines: Lines = field(default_factory=dict)  # of the file

    def place(self, path: Sequence[str]) -> str:
        """Return where a value is from, 'a.yaml, line 3', or a flag.

        It is the line of the innermost thing around the value that has one.
        """
        paths = (tuple(path[:end]) for end in range(len(path), 0, -1))
        line = next((self.lines[path] for path in paths if path in self.lines), 0)
        return f"{self.where}, line {line}" if line else self.where

    def find(self, path: KeyPath, run: str) -> str:
        """Return where this layer sets a value of a run, '' if it does not."""
        if self.runs and _sets(self.runs[run], path):
            return self.place(("runs", run, *path))
        return self.place(path) if _sets(self.sections, path) else ""


def read_file(name: str) -> Layer:
    """Read a configuration that is given by its name, or by its path.

    Raises:
        UserError: there is none, or it is no YAML with sections; with the line.
    """
    if name.endswith(".py"):
        return Layer(name, {"plugins": [name]})
    path = config_path(name)
    if (size := path.stat().st_size) > LARGEST_FILE:
        raise UserError(f"{name} has {size:,} bytes; a configuration has at most {LARGEST_FILE:,}.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{name} is not text in UTF-8 (byte {error.start:,}).") from error
    tree, lines = parse_with_lines(text, name)
    if not isinstance(tree, dict):
        sections = ", ".join([f.name for f in fields(Config)] + ["runs"])
        raise UserError(f"{name} holds no sections. Allowed: {sections}.")
    upgrade(tree)
    if "plugins" in tree:
        tree["plugins"] = anchored(tree["plugins"], path.parent)
    runs = _runs(tree.pop("runs"), name) if "runs" in tree else None
    return Layer(name, tree, runs, lines)


def read_flag(key: str, text: str) -> Layer:
    """Return the value of a flag, ``section.field``, as a layer."""
    value = parse_flag(text, f"--{key}")
    return Layer(f"--{key}", nested(key.split("."), value))


def nested(path: Sequence[str], value: Any) -> dict[str, Any]:
    """Return a mapping that holds nothing but a value at a path of one key or more."""
    for key in reversed(path[1:]):
        value = {key: value}
    return {path[0]: value}


def leaves(tree: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    """Yield the path and the value of everything that is no mapping with entries."""
    if not (isinstance(tree, dict) and tree):
        yield path, tree
        return
    for key, value in tree.items():
        yield from leaves(value, (*path, key))


def _sets(tree: Any, path: KeyPath) -> bool:
    """Return whether sections have a value at a path; a name alone stands for its ``name``."""
    for number, key in enumerate(path):
        if not isinstance(tree, dict):
            return path[number:] == ("name",)
        if key not in tree:
            return False
        tree = tree[key]
    return True


def configs_folder() -> Path:
    """Return the folder of configs: inside the package in a wheel, beside it in a checkout."""
    package = Path(__file__).parents[1]
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def _runs(runs: Any, name: str) -> dict[str, Any]:
    """Return the overlays by the name of their run, which is also that of its folder."""
    if not isinstance(runs, dict) or not runs:
        raise UserError(f"{name}: 'runs' must map names of runs to overlays.")
    for run in runs:
        if not re.fullmatch(r"\w[\w.=+-]*", str(run)):
            raise UserError(f"{name}: '{run}' cannot be the name of a run; use letters and digits.")
    return {str(run): {} if values is None else values for run, values in runs.items()}
