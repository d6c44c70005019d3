"""Text files written whole or not at all, and read without torch."""

import json
import os
import re
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from thalnet_mtl.config import UserError

LONGEST = 200  # bytes of a folder name that is made up; file systems bear 255


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


def run_name(names: Sequence[str], flags: dict[str, str]) -> str:
    """The default run directory: the same command finds its run again, another does not."""
    stems = [Path(name).with_suffix("").as_posix() for name in names]
    if Path(names[0]).name == "config.yaml":
        stems[0] = Path(names[0]).parent.name + "-again"
    changes = [f"{key}={value}" for key, value in flags.items()]
    return safe_name("-".join([*stems, *changes]))


def safe_name(text: str) -> str:
    """A text as the name of a folder: what is no letter, digit or one of .=+- becomes _.

    A long one is cut, and ends in a checksum of all of it.
    """
    name = re.sub(r"[^\w.=+-]+", "_", text)
    if len(name.encode()) <= LONGEST:
        return name
    start = name.encode()[: LONGEST - 9].decode(errors="ignore")
    return f"{start}-{zlib.crc32(text.encode()):08x}"


def run_folders(folders: Sequence[Path]) -> list[Path]:
    """Run directories; a folder that is none but holds some stands for those."""
    found = []
    for folder in folders:
        inside = sorted(path.parent for path in folder.rglob("config.yaml"))
        found += [folder] if (folder / "config.yaml").exists() or not inside else inside
    return found
