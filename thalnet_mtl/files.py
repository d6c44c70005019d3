"""Files that are written atomically or checked when read, and the lock of a folder."""

import errno
import io
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Self

from filelock import FileLock, Timeout

from thalnet_mtl.errors import USER_ERRNOS, UserError, suggest

PART = ".part-"  # begins the name of what is being written


class FolderLock:
    """A lock on a folder, held by one process at a time; a context manager.

    The operating system releases the lock of a process that has ended, however it ended.

    Raises:
        UserError: another process holds the lock, or the path cannot be that of a folder.
        OSError: the folder cannot be written to.
    """

    def __init__(self, folder: Path):
        with attempt(f"write to {folder}"):
            make_folder(folder)
            self._lock = FileLock(folder / ".lock")
            try:
                self._lock.acquire(timeout=0)
            except Timeout:
                raise UserError(f"another process is writing to {folder}.") from None

    def release(self) -> None:
        """Let other processes have the folder."""
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()


def wait_until_free(folder: Path, seconds: float) -> None:
    """Wait until no process holds the lock of a folder, but no longer than some seconds."""
    if (folder / ".lock").exists():
        with suppress(Timeout), FileLock(folder / ".lock", timeout=seconds):
            pass


@contextmanager
def attempt(action: str, hint: str = "") -> Iterator[None]:
    """Context manager that lets errors of the operating system say what could not be done.

    Args:
        action: what the block does, as 'write runs/a'.
        hint: a sentence on what the user can do.

    Raises:
        UserError: a path is a mistake: its name is too long, or a file stands for a folder.
        OSError: of the block, with the action and the hint as its notes.
    """
    try:
        yield
    except OSError as error:
        if error.errno in USER_ERRNOS:
            line = f"cannot {action}: {error.strerror}. {hint}".strip()
            raise UserError(line) from error
        if error.errno is not None:
            error.add_note(f"cannot {action}")
            error.add_note(hint)
        raise


@contextmanager
def staged(path: Path) -> Iterator[Path]:
    """Context manager that gives a path beside ``path``, for a file or folder to be written there.

    At the end, what was written replaces ``path`` in one step. Its content is on the disk before
    that step, and its name after it. A reader finds the old content or the new one, also after a
    loss of power. An error leaves the old one.

    Raises:
        UserError, OSError: as ``attempt`` does.
    """
    part = path.with_name(f"{PART}{secrets.token_hex(4)}-{path.name}")
    with attempt(f"write {path}"):
        make_folder(path.parent)
        recover(path)
        try:
            yield part
            move_into_place(part, path)
        finally:
            remove(part)


def move_into_place(part: Path, path: Path) -> None:
    """Put a file or folder on the disk, then let it replace another one.

    Raises:
        OSError: a file would replace a folder, or the system refuses it.
    """
    synchronize(part)
    old = _aside(path)
    if path.is_dir():  # a folder with files in it can be moved away, but not be replaced
        if not part.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        remove(old)
        os.replace(path, old)
    try:
        os.replace(part, path)
    except OSError:
        recover(path)
        raise
    synchronize_folder(path.parent)
    remove(old)


def recover(path: Path) -> None:
    """Put a folder back that was moved aside when the process that replaced it was killed."""
    old = _aside(path)
    if old.exists() and not path.exists():
        os.replace(old, path)


def _aside(path: Path) -> Path:
    """Return where a folder is while a new one takes its place."""
    return path.with_name(f".{path.name}.old")


def synchronize(path: Path) -> None:
    """Wait until a file, or a folder with all that it holds, is on the disk."""
    if path.is_dir():
        for entry in path.iterdir():
            synchronize(entry)
        synchronize_folder(path)
        return
    with path.open("rb") as file:
        os.fsync(file.fileno())


def synchronize_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # the answer of some network file systems
            raise
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, unless they exist; their names are on the disk then."""
    if not folder.is_dir():
        make_folder(folder.parent)
        if folder.exists():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
        folder.mkdir(exist_ok=True)
        synchronize_folder(folder.parent)


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that it holds, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_parts(folder: Path) -> None:
    """Remove what processes that were killed while they wrote have left in a locked folder."""
    for part in folder.rglob(f"{PART}*"):
        remove(part)


class _ReportingFile(io.FileIO):
    """A file that keeps the error of a failed write."""

    error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.error = error
            raise


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file that must not exist yet.

    Raises:
        OSError: of the system, even where a library that writes makes another error of it.
    """
    raw = _ReportingFile(path, "xb")
    try:
        with io.BufferedWriter(raw) as file:
            yield file
    except Exception:
        if raw.error:
            raise raw.error from None
        raise


def write_atomically(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Write a file by calling ``write`` with it; it replaces ``path`` as ``staged`` says."""
    with staged(path) as part, new_file(part) as file:
        write(file)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically: a reader sees the old text or the new one."""
    write_atomically(path, lambda file: file.write(text.encode()))


def cache_folder() -> Path:
    """Return the folder of this package in the cache of the user.

    Raises:
        OSError: the user has no home folder, and ``XDG_CACHE_HOME`` names no other one.
    """
    if folder := os.environ.get("XDG_CACHE_HOME"):
        return Path(folder).expanduser() / "thalnet"
    try:
        return Path.home() / ".cache" / "thalnet"
    except RuntimeError:
        raise OSError("there is no home folder. Set XDG_CACHE_HOME to a writable one") from None


def suggest_path(path: Path) -> str:
    """Return the closest name to the first part of a path that does not exist, as ``suggest`` does.

    >>> suggest_path(Path(__file__).parent / "fils.py")
    " Did you mean 'files.py'?"
    """
    while path.parent != path and not path.parent.exists():
        path = path.parent
    with suppress(OSError):
        return suggest(path.name, [other.name for other in path.parent.iterdir()])
    return ""


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
