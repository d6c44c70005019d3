"""The commands of ``thalnet table`` in the READMEs print what their tables say."""

import re
import subprocess
from pathlib import Path

import pytest

from thalnet_mtl import cli

ROOT = Path(__file__).parents[2]
COMMAND = re.compile(r"^thalnet table benchmarks/(?:[^\n]*\\\n)*[^\n]*$", re.MULTILINE)
FOUND = [
    (readme, command.replace("\\\n", " "))
    for readme in sorted((ROOT / "benchmarks").glob("*/README.md"))
    for command in COMMAND.findall(readme.read_text())
]
ONLY_PRINTED = {"attach": 3}  # the steps that a run needs for its first task are in no table


@pytest.mark.parametrize(("readme", "command"), FOUND, ids=str)
def test_a_command_of_a_readme_prints_its_table(readme, command, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    shell = ["bash", "-c", f"printf '%s\\n' {command}"]
    words = subprocess.run(shell, capture_output=True, text=True, check=True).stdout.splitlines()
    assert cli.main([*words[1:], "--as", "markdown"]) == 0
    lines = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines()]
    cells = {cell.strip() for line in lines for cell in line if "[" in cell}
    tables = readme.read_text() + readme.parents[1].joinpath("README.md").read_text()
    missing = [cell for cell in cells if cell not in tables]
    assert len(cells) >= 2 and len(missing) == ONLY_PRINTED.get(readme.parent.name, 0), missing


def test_every_benchmark_of_training_runs_has_such_a_command():
    names = {readme.parent.name for readme, _ in FOUND}
    assert names == {"attach", "claim", "continual", "quality", "sequence"}
