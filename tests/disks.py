"""Disks that are watched, that fill up, and that lose their power, for tests of what is written."""

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


class PowerCut(BaseException):
    """The machine is off: nothing that the program would do next is done."""


class WatchedDisk:
    """A record of what was asked to be on the disk, and a check of every renaming.

    What has a name that a reader knows must be there whole after a loss of power. So a file or
    folder is synchronized before it is renamed, and the folder that it is in afterwards.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.synchronized: set[tuple[int, ...]] = set()
        self.renamed: list[Path] = []
        self.pending: set[Path] = set()  # folders with new names that are not synchronized
        fsync, replace = os.fsync, os.replace

        def record(descriptor: int) -> None:
            fsync(descriptor)
            path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
            self.synchronized.add(version(path))
            self.pending.discard(path)

        def check(source: str | Path, target: str | Path) -> None:
            assert not (missing := self.missing(Path(source))), missing
            replace(source, target)
            self.renamed.append(Path(target))
            self.pending.add(Path(target).parent)

        monkeypatch.setattr(os, "fsync", record)
        monkeypatch.setattr(os, "replace", check)
        monkeypatch.setattr(os, "rename", check)

    def missing(self, path: Path) -> list[str]:
        """Return the files and folders at a path that were not synchronized as they are now."""
        paths = [path, *path.rglob("*")] if path.is_dir() else [path]
        return [str(path) for path in paths if version(path) not in self.synchronized]


def version(path: Path) -> tuple[int, ...]:
    """Return what changes with a file, its content or the names in a folder."""
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let no file grow beyond so many bytes, as a quota does: error EFBIG."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def fail_at(call: int, monkeypatch: pytest.MonkeyPatch, error: BaseException | None = None) -> None:
    """Let one of the coming calls of fsync and replace fail, and each one after it.

    Args:
        call: the number of calls that succeed.
        monkeypatch: of the test.
        error: by default that of a disk that is full.
    """
    error, calls = error or OSError(errno.ENOSPC, "No space left on device"), 0
    fsync, replace = os.fsync, os.replace

    def counted(function):
        def call_or_fail(*arguments):
            nonlocal calls
            calls += 1
            if calls > call:
                raise error
            return function(*arguments)

        return call_or_fail

    monkeypatch.setattr(os, "fsync", counted(fsync))
    monkeypatch.setattr(os, "replace", counted(replace))
