import pytest

from thalnet_mtl.errors import UserError
from thalnet_mtl.files import FolderLock, write_atomically, write_text
from thalnet_mtl.runs.names import safe_name


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    write_text(path, "old")

    def failing(part):
        part.write_text("half of the n")
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
