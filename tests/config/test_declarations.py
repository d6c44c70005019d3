"""What is kept of the entries of the registry is what they declare, until a source file changes."""

import os
import pickle
import sys
from collections.abc import Mapping
from importlib.metadata import EntryPoint
from operator import methodcaller

import pytest

from thalnet_mtl import registry
from thalnet_mtl.config import declarations
from thalnet_mtl.config.declarations import KINDS, declaration
from thalnet_mtl.config.declarations import declarations as declared
from thalnet_mtl.errors import UserError


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """The declarations of what this package registers, as another process reads them."""
    built_in = {
        kind: {
            name: entry
            for name, entry in declared(kind).items()
            if entry.module.startswith("thalnet_mtl.")
        }
        for kind in registry.KINDS
    }
    declarations._write(tmp_path / "file", "checksum", built_in)
    return built_in


def test_what_is_read_back_is_what_the_entries_declare(stored, tmp_path):
    assert declarations._read(tmp_path / "file", "checksum") == stored
    assert declarations._read(tmp_path / "file", "another!") is None
    options = [entry.options for kind in KINDS for entry in stored[kind].values()]
    assert sum(map(len, options)) > 90
    assert stored["strategy"]["ewc"].facts["only_after_experience"] is True
    assert stored["growth"]["never"].facts["grows"] is False
    assert list(stored["optimizer"]) == ["rmsprop", "adam", "adamw", "sgd"]


@pytest.mark.parametrize("content", [b"", b"other", b"checksum", b"checksum\x80\x04", None])
def test_another_or_a_damaged_file_is_not_read(tmp_path, content):
    if content is not None:
        (tmp_path / "file").write_bytes(content)
    assert declarations._read(tmp_path / "file", "checksum") is None


@pytest.mark.parametrize("called", [os.system, eval, methodcaller("lower")])
def test_a_file_cannot_call_anything(tmp_path, called):
    class Call:
        def __reduce__(self):
            return called, (f"touch {tmp_path / 'done'}",)

    (tmp_path / "file").write_bytes(b"checksum" + pickle.dumps(Call()))
    assert declarations._read(tmp_path / "file", "checksum") is None
    assert not (tmp_path / "done").exists()


def test_a_default_that_is_not_plain_is_not_stored(tmp_path):
    def theirs(device=Mapping, size: int = 3): ...

    def mine(device=pytest.Item): ...

    for function, is_stored in ((theirs, True), (mine, False)):
        by_kind = {"task": {"x": declarations._declare("task", function)}}
        declarations._write(tmp_path / "file", function.__name__, by_kind)
        assert (declarations._read(tmp_path / "file", function.__name__) == by_kind) == is_stored


def test_names_and_options_come_from_the_file_and_from_this_process(stored, monkeypatch):
    monkeypatch.setattr(declarations, "_stored", lambda: stored)
    monkeypatch.setattr(registry, "entries", None)  # would import what is registered

    def mine(context, rate: float = 1.0):
        """A strategy of a script."""

    monkeypatch.setitem(registry._entries, "strategy", {"mine": mine})
    assert list(declared("strategy")) == [*stored["strategy"], "mine"]
    assert declaration("strategy", "mine").options["rate"].default == 1.0
    assert declarations.is_declared("task", "digits_rows")
    assert not declarations.is_declared("task", "digit_rows")
    assert declarations.fact("strategy", "none", "only_after_experience", False) is False
    with pytest.raises(UserError, match=r"unknown task 'digit_rows'.*Did you mean 'digits_rows'"):
        declaration("task", "digit_rows")


def test_a_changed_file_of_a_plug_in_changes_the_checksum(tmp_path, monkeypatch):
    package = tmp_path / "startup_plugin"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "tasks.py").write_text("x = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    checksum = registry.source_checksum.__wrapped__

    def install(*plugins):
        points = [EntryPoint("mine", value, "thalnet_mtl") for value in plugins]
        monkeypatch.setattr(registry, "entry_points", lambda group: points)
        return checksum()

    without, before = install(), install("startup_plugin.tasks")
    assert without != before == install("startup_plugin.tasks")
    for name in ("tasks.py", "page.j2", "page.js", "page.css"):  # a report is made of them
        before = install("startup_plugin.tasks")
        (package / name).write_text("x = 1, 2\n")
        assert install("startup_plugin.tasks") != before
    assert install() == without
    assert "startup_plugin" not in sys.modules
