"""What the machine refuses is one line and status 1; a path that cannot be is a mistake."""

import os
import resource
from contextlib import contextmanager
from pathlib import Path

import pytest
from toy_tasks import TOY, toy

from thalnet_mtl import cli
from thalnet_mtl.training.trainer import train

LONG = "x" * 300


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The directory of a finished run."""
    folder = tmp_path_factory.mktemp("there") / "run"
    train(toy(train={"steps": 6}), folder)
    return folder


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("THALNET_DATA", str(tmp_path / "data"))
    return tmp_path


def refused(capsys, status: int, *words: str) -> str:
    """Return the one line that a command ends with; it has written nothing beside it."""
    capsys.readouterr()
    before = sorted(Path.cwd().rglob("*"))
    assert cli.main(list(words)) == status
    err = capsys.readouterr().err
    assert err.startswith("thalnet: ") and err.count("\n") == 1
    assert sorted(Path.cwd().rglob("*")) == before
    return err


@pytest.mark.parametrize(
    "words",
    [
        ("train", LONG),
        ("train", f"{LONG}.yaml"),
        ("train", *TOY, "--out", LONG),
        ("train", *TOY, "--out", f"new/{LONG}"),
        ("sweep", *TOY, "--seeds", "0", "--out", LONG),
        ("evaluate", LONG),
        ("compare", LONG),
        ("compare", "RUN", "--baseline", LONG),
        ("inspect", LONG),
        ("report", LONG),
        ("report", "RUN", "--out", LONG),
        ("export", LONG, "--to", "torch"),
        ("export", "RUN", "--to", "torch", "--out", LONG),
        ("data", "check", LONG),
        ("data", "check", f"{LONG}.yaml"),
    ],
)
def test_a_name_of_300_letters_is_a_mistake(capsys, here, run, words):
    words = tuple(str(run) if word == "RUN" else word for word in words)
    (here / "new").mkdir()
    assert "File name too long" in refused(capsys, 2, *words)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("train", *TOY, "--out", "file"), "cannot write to file: Not a directory"),
        (("train", *TOY, "--out", "file/run"), "cannot write to file/run: Not a directory"),
        (("report", "RUN", "--out", "folder"), "cannot write folder: Is a directory"),
        (("report", "RUN", "--out", "file/page.html"), "cannot write file/page.html: Not a "),
        (("export", "RUN", "--to", "torch", "--out", "file/a.pt2"), "cannot write file/a.pt2: "),
    ],
)
def test_a_file_for_a_folder_is_a_mistake(capsys, here, run, words, line):
    (here / "file").write_text("")
    (here / "folder").mkdir()
    (here / "folder" / "kept").write_text("")
    words = tuple(str(run) if word == "RUN" else word for word in words)
    assert line in refused(capsys, 2, *words)


@contextmanager
def read_only(monkeypatch):
    """A file system on which nothing can be made, as a root that may write everywhere sees it."""
    with monkeypatch.context() as patch:

        def refuse(path, *arguments, **options):
            raise OSError(30, "Read-only file system", str(path))

        patch.setattr(os, "mkdir", refuse)
        patch.setattr("thalnet_mtl.files._ReportingFile", refuse)
        yield


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("train", *TOY, "--out", "new"), "cannot write to new: Read-only file system."),
        (("sweep", *TOY, "--seeds", "0", "--out", "new"), "cannot write to new: Read-only file "),
        (("report", "RUN", "--out", "page.html"), "cannot write page.html: Read-only file system."),
        (("export", "RUN", "--to", "torch", "--out", "a.pt2"), "cannot write a.pt2: Read-only "),
        (("export", "RUN", "--to", "safetensors", "--out", "a"), "cannot write a: Read-only file "),
        (
            ("data", "fetch", "mnist"),
            "Read-only file system. Set THALNET_DATA to a writable folder.",
        ),
    ],
)
def test_a_read_only_file_system_is_one_line(capsys, here, run, monkeypatch, words, line):
    words = tuple(str(run) if word == "RUN" else word for word in words)
    with read_only(monkeypatch):
        assert line in refused(capsys, 1, *words)


def test_too_many_open_files_are_one_line_and_the_run_goes_on(capsys, here):
    command = ["train", *TOY, "--out", "run"]
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")), before[1]))
    try:
        assert cli.main(command) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    err = capsys.readouterr().err
    assert "Too many open files" in err and err.count("\n") == 1
    assert cli.main(command) == 0


def test_a_current_folder_that_is_gone_is_one_line(capsys, here, run):
    (here / "gone").mkdir()
    os.chdir(here / "gone")
    (here / "gone").rmdir()
    for words in (["compare", str(run)], ["train", *TOY]):
        assert cli.main(words) == 1
        err = capsys.readouterr().err
        assert err == (
            "thalnet: cannot find the current folder: No such file or directory. Change to one "
            "that exists.\n"
        )


def test_without_a_home_the_store_says_what_to_set(capsys, here, monkeypatch):
    monkeypatch.delenv("THALNET_DATA")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", lambda: Path("~nobody-at-all").expanduser())
    line = refused(capsys, 1, "data", "fetch", "mnist")
    assert line == "thalnet: there is no home folder. Set XDG_CACHE_HOME to a writable one\n"
