"""``thalnet config``: show, check and copy configurations."""

import re
import shlex
from pathlib import Path

import pytest
from wrong_configs import FILES, STRUCTURES, VALUES

from thalnet_mtl import cli
from thalnet_mtl.config.files import config_names, config_path
from thalnet_mtl.config.load import load_configs
from thalnet_mtl.config.options import resolve_options

# What only the data, the number of steps or the machine can tell.
NEEDS_DATA = [
    "sequences of toy_rows", "only a GPU has it", "has only 16 sequences", "must be smaller",
    "only 9 steps", "'nobody'",
]  # fmt: skip


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(capsys, *words: str) -> tuple[int, str, str]:
    capsys.readouterr()
    status = cli.main(words)
    output = capsys.readouterr()
    return status, output.out, output.err


def checked(mistake, capsys):
    """The outcome of 'config check' for the configuration of a command 'train'."""
    words = shlex.split(mistake.command.replace(" --out new", ""))[1:]
    for path, content in mistake.files.items():
        Path(path).write_bytes(content if isinstance(content, bytes) else content.encode())
    return call(capsys, "config", "check", *words)


TABLE = [m for m in [*FILES, *VALUES, *STRUCTURES] if m.command.startswith("train ")]


@pytest.mark.parametrize("number", range(len(TABLE)))
def test_check_finds_what_train_refuses(capsys, here, number):
    mistake = TABLE[number]
    status, out, err = checked(mistake, capsys)
    print(number, mistake.command, mistake.files, mistake.fragment, out, err)
    assert status == 2 
    assert mistake.fragment.lstrip(": ") in err
