import ast
import re
from contextlib import suppress
from pathlib import Path

import pytest
from disks import PowerCut, WatchedDisk, fail_at, largest_file

import thalnet_mtl
from thalnet_mtl.config.load import load_config
from thalnet_mtl.errors import UserError, describe_os_error
from thalnet_mtl.files import (
    FolderLock,
    cache_folder,
    recover,
    staged,
    suggest_path,
    write_atomically,
    write_text,
)
from thalnet_mtl.runs.names import safe_name


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    write_text(path, "old")

    def failing(file):
        file.write(b"half of the n")
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        write_atomically(path, failing)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_long_name_is_cut_and_another_text_has_another_one():
    long = safe_name("ä" * 300)
    assert len(long.encode()) <= 200 and long.startswith("ä" * 90)
    assert safe_name("ä" * 300 + "b") != long == safe_name("ä" * 300)
    assert safe_name("a b") == "a_b"


def test_a_folder_is_locked_by_one_process_and_free_again_after_it(tmp_path):
    folder = tmp_path / "new" / "folder"
    with FolderLock(folder), pytest.raises(UserError, match="another process is writing to"):
        FolderLock(folder)
    FolderLock(folder).release()


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write to"):
        FolderLock(tmp_path / "file" / "folder")


def test_what_is_renamed_is_on_the_disk_before_and_its_folder_after(tmp_path, monkeypatch):
    disk = WatchedDisk(monkeypatch)
    write_text(tmp_path / "new" / "folder" / "file", "text")
    for text in ("old", "new"):
        with staged(tmp_path / "model") as part:
            (part / "below").mkdir(parents=True)
            (part / "below" / "file").write_text(text)
    assert (tmp_path / "model" / "below" / "file").read_text() == "new"
    assert [path.name for path in disk.renamed] == ["file", "model", ".model.old", "model"]
    assert not disk.pending and {path.name for path in tmp_path.iterdir()} == {"new", "model"}
    assert not disk.missing(tmp_path / "model") + disk.missing(tmp_path / "new")


@pytest.mark.parametrize("kind", [OSError, PowerCut])
def test_a_write_that_ends_anywhere_leaves_the_old_or_the_new_content(tmp_path, kind):
    def write(text: str) -> None:
        write_text(tmp_path / "file", text)
        with staged(tmp_path / "model") as part:
            part.mkdir()
            (part / "file").write_text(text)

    write("old")
    for call in range(20):
        with pytest.MonkeyPatch.context() as patch, suppress(OSError, PowerCut):
            fail_at(call, patch, None if kind is OSError else PowerCut())
            write(f"new {call}")
            break
        recover(tmp_path / "model")
        for path in (tmp_path / "file", tmp_path / "model" / "file"):
            assert path.read_text() in ("old", *(f"new {k}" for k in range(call + 1)))
    assert call > 5
    assert (tmp_path / "model" / "file").read_text() == f"new {call}"
    assert {path.name for path in tmp_path.iterdir()} == {"file", "model"}


def test_a_folder_that_was_moved_aside_when_its_process_was_killed_comes_back(tmp_path):
    write_text(tmp_path / ".model.old" / "file", "old")
    recover(tmp_path / "model")
    assert (tmp_path / "model" / "file").read_text() == "old"


@pytest.mark.parametrize("name", ["x" * 300, "file/below"])
def test_a_path_that_cannot_be_is_a_mistake_of_the_user(tmp_path, name):
    (tmp_path / "file").write_text("")
    for act in (lambda path: write_text(path, ""), FolderLock):
        with pytest.raises(UserError, match=r"cannot write .*(too long|Not a directory)\.$"):
            act(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_file_never_takes_the_place_of_a_folder(tmp_path):
    write_text(tmp_path / "run" / "config.yaml", "text")
    with pytest.raises(UserError, match=r"cannot write .*run: Is a directory\.$"):
        write_text(tmp_path / "run", "a report")
    assert (tmp_path / "run" / "config.yaml").read_text() == "text"
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_what_the_system_refuses_is_one_line_with_the_file(tmp_path):
    path = tmp_path / "file"
    write_text(path, "old")
    with pytest.raises(OSError, match="File too large") as error, largest_file(100):
        write_text(path, "x" * 101)
    assert describe_os_error(error.value) == f"cannot write {path}: File too large."
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_an_error_of_the_system_stays_one_whatever_a_library_makes_of_it(tmp_path):
    def write(file):
        try:
            file.write(b"x" * 100_000)
        except OSError:
            raise RuntimeError("[enforce fail at inline_container.cc:672]") from None

    with pytest.raises(OSError, match="File too large"), largest_file(100):
        write_atomically(tmp_path / "file", write)
    assert not list(tmp_path.iterdir())


def test_without_a_home_the_line_says_what_to_set(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", lambda: Path("~nobody-at-all").expanduser())
    with pytest.raises(OSError, match=r"no home folder\. Set XDG_CACHE_HOME to a writable one"):
        cache_folder()


def test_every_text_file_is_opened_with_its_encoding_and_not_that_of_the_locale():
    opened = 0
    for path in Path(thalnet_mtl.__file__).parent.rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = getattr(getattr(call, "func", None), "attr", getattr(call, "func", None))
            name = getattr(name, "id", name)
            if name not in ("read_text", "write_text", "open") or len(ast.unparse(call)) > 200:
                continue
            text = ast.unparse(call)
            is_text = not re.search(r"""['"][rwxa+]*b[+]?['"]""", text)
            ours = text.startswith(("write_text(", "os.open(", "tarfile.", "gzip.", "Image."))
            if is_text and not ours:
                opened += 1
                assert "encoding=" in text, f"{path}, line {call.lineno}: {text}"
    assert opened > 10


def test_the_first_part_of_a_path_that_does_not_exist_gets_its_closest_name(tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "digits.yaml").touch()
    for path, name in (("configs/digit.yaml", "digits.yaml"), ("confgs/digits.yaml", "configs")):
        assert suggest_path(tmp_path / path) == f" Did you mean '{name}'?"
    assert suggest_path(tmp_path / "other" / "digits.yaml") == ""
    with pytest.raises(UserError, match=r"it does not exist\. Did you mean 'digits.yaml'\?"):
        load_config(str(tmp_path / "configs" / "digit.yaml"))
