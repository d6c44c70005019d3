"""Tables at any width: no word is broken, nothing is cut, and names stand on a line."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from properties import examples
from rich.cells import cell_len
from rich.console import Console
from run_fixtures import add_topology, make_run

from thalnet_mtl import cli
from thalnet_mtl.report.layout import Note, TextTable

LONG = f"digits-train.learning_rate=0.001-{'x' * 90}-seed"
COLUMNS = ("run", "task", "parameters", "train", "mode", "note")


def shown(renderable, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    console.print(renderable, crop=False)
    return console.file.getvalue().splitlines()


words = st.text("ab12é日", min_size=1, max_size=12)
cells = st.lists(words, max_size=5).map(" ".join)
rows = st.lists(st.fixed_dictionaries(dict.fromkeys(COLUMNS, cells)), min_size=1, max_size=4)


@examples(max_examples=60)
@given(rows=rows, width=st.integers(10, 120), header=st.booleans(), wrapped=st.integers(1, 4))
def test_every_word_of_every_cell_is_shown_whole_at_any_width(rows, width, header, wrapped):
    lines = shown(TextTable(rows, COLUMNS, header, wrapped=wrapped), width)
    expected = [word for row in rows for text in row.values() for word in text.split()]
    found = [word for line in lines for word in line.split()]
    repeated = {row["run"] for row in rows}  # the name of a block stands once
    for word in set(expected) - {word for name in repeated for word in name.split()}:
        assert found.count(word) >= expected.count(word)
    assert set(expected) <= set(found)
    for line in lines:
        is_word_or_name = (
            max(map(cell_len, line.split()), default=0) > width - 8 or line in repeated
        )
        assert cell_len(line) <= width or is_word_or_name
        assert line == line.rstrip()


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_a_table_that_does_not_fit_is_a_block_for_each_value_of_the_first_column(width):
    rows = [
        {"run": LONG, "task": task, "parameters": "12,345", "train": "97.18 %",
         "mode": "one of 2 in a stream", "note": "on the first batch only"}
        for task in ("digits_rows", "digits_parity")
    ]  # fmt: skip
    lines = shown(TextTable(rows, COLUMNS), width)
    assert lines[0] == LONG and LONG not in "".join(lines[1:])
    if width == 200:  # wide enough for a table of the rest, not for all
        assert lines[1].split() == ["task", "parameters", "train", "mode", "note"]
        assert lines[2].split()[:4] == ["digits_rows", "12,345", "97.18", "%"] and len(lines) == 4
    if width == 40:
        assert "  parameters  12,345" in lines and "  train       97.18 %" in lines
    if width == 20:
        assert lines[1:5] == ["  task", "    digits_rows", "  parameters", "    12,345"]


def test_a_column_of_words_is_wrapped_before_a_table_becomes_blocks():
    text = "of a text with many short words that go on and on"
    lines = shown(TextTable([{"name": "a", "text": text}], ("name", "text"), header=False), 40)
    assert lines == ["a  of a text with many short words that", "   go on and on"]


def test_a_note_is_wrapped_at_words_and_control_characters_are_written_out():
    assert shown(Note("a " * 30 + "x" * 50), 40)[-1] == "x" * 50
    [line] = shown(TextTable([{"a": "x\x1b[2J\ny"}], ("a",), header=False), 80)
    assert line == r"x\x1b[2J\ny"


@pytest.mark.parametrize("columns", ["20", "80", None])
def test_every_run_keeps_its_name_on_a_line(capsys, monkeypatch, tmp_path, columns):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns:
        monkeypatch.setenv("COLUMNS", columns)
    names = [f"{LONG}{seed}" for seed in (0, 1)]
    for name in names:
        add_topology(make_run(tmp_path / name, {"mnist_rows": {}, "digits_rows": {}}))
    assert cli.main(["compare", *names]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(any(name in line for line in lines) for name in names)
    if columns is None:
        assert sum(line.startswith(tuple(names)) for line in lines) == 4
    assert cli.main(["inspect", names[0]]) == 0
    found = [word.strip(",") for word in capsys.readouterr().out.split()]
    assert {"eye", "trunk", "mouth", "ff_gru", "weight_norm", "1,002"} <= set(found)
