"""Runs whose answers come too early for the last inputs say so, once, before the first step."""

import pytest
from toy_tasks import toy

from thalnet_mtl.training.trainer import train

ROWS = {name: {"name": "toy_rows"} for name in "ab"}


@pytest.mark.parametrize(
    ("sections", "note"),
    [
        ({}, "note: toy_rows answers without the last input: use model.extra_steps 1"),
        ({"tasks": ROWS}, "note: 2 tasks answer without the last input: use model.extra_steps 1"),
        ({"model": {"extra_steps": 1}}, ""),
        ({"model": {"body": "gru"}}, ""),
    ],
)
def test_a_run_says_which_tasks_answer_without_the_last_input(tmp_path, capsys, sections, note):
    train(toy(**sections, train={"steps": 20}), tmp_path / "run")
    printed = capsys.readouterr().out.splitlines()
    assert [line for line in printed if "without the last" in line] == ([note] if note else [])
    train(toy(**sections, train={"steps": 30}), tmp_path / "run")  # goes on
    assert "without the last" not in capsys.readouterr().out
