"""Files that are written atomically or checked when read, and the lock of a folder."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout

from thalnet_mtl.errors import UserError


class FolderLock:
    """A lock on a folder, held by one process at a time; a context manager.

    Raises:
        UserError: another process holds the lock, or the folder cannot be written to.
    """

    def __init__(self, folder: Path):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(folder / ".lock")
            self._lock.acquire(timeout=0)
        except Timeout:
            raise UserError(f"another process is writing to {folder}.") from None
        except OSError as error:
            raise UserError(f"cannot write to {folder}: {error.strerror}.") from error

    def release(self) -> None:
        """Let other processes have the folder."""
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Write a file beside ``path`` by calling ``write``, then move it there in one step."""
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
    """Write a text file atomically: a reader sees the old text or the new one."""
    write_atomically(path, lambda part: part.write_text(text, encoding="utf-8"))


def read_json(path: Path) -> Any:
    """Read a JSON file; raise ``UserError`` with one line if it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"no {path.name} in {path.parent}.") from None
    except (ValueError, RecursionError, IsADirectoryError) as error:
        raise UserError(f"{path} is damaged: {str(error).partition(chr(10))[0]}.") from error


def read_fields(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object, as a dictionary."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged: it is not a JSON object.")
    return content
