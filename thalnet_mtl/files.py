"""Text files written whole or not at all, and read without torch."""

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from thalnet_mtl.errors import UserError


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Let ``write`` make a file beside ``path``, then move it there in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    try:
        write(part)
        with open(part, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    write_atomically(path, lambda part: part.write_text(text))


def read_json(path: Path) -> Any:
    """Read a JSON file of a run, or say in one line what is wrong with it."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"no {path.name} in {path.parent}.") from None
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}") from error


def read_fields(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds values by name."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged: it holds no fields.")
    return content


def require(content: Any, keys: Iterable[str], where: str) -> None:
    """Raise if a value read from a file is no mapping with these keys."""
    missing = [key for key in keys if not isinstance(content, dict) or key not in content]
    if missing:
        raise UserError(f"{where} is damaged: it has no '{missing[0]}'.")
