"""Rows of a sweep are points of its grid, and the best is chosen on validation."""

from rich.console import Console
from run_fixtures import make_run

from thalnet_mtl.config.overlay import overlay
from thalnet_mtl.config.schema import Config
from thalnet_mtl.sweep import plan as grid
from thalnet_mtl.sweep.summary import summarize, sweep_table


def test_named_runs_and_several_tasks_have_rows_of_their_own(tmp_path):
    bases = {"a": Config(), "b": Config()}
    tasks = {"tasks": {"mnist_rows": {}, "digits_rows": {}}}
    bases = {name: overlay(base, tasks, "test") for name, base in bases.items()}
    plan = grid.plan(bases, {}, [0], {})
    for planned, score in zip(plan, (0.5, 0.75), strict=True):
        make_run(tmp_path / planned.name, {"mnist_rows": {"test": 1 - score}, "digits_rows": {}},
                 validation=score)  # fmt: skip
    status = dict.fromkeys(["a-seed0", "b-seed0"], "done")
    rows, notes = summarize(plan, status, tmp_path)
    assert [(row["run"], row["task"], row["validation"], row[""]) for row in rows] == [
        ("a", "mnist_rows", "50.00 %", ""),
        ("a", "digits_rows", "50.00 %", ""),
        ("b", "mnist_rows", "75.00 %", "*"),  # though a is first on test
        ("b", "digits_rows", "75.00 %", "*"),
    ]
    assert any(note.startswith("* best mean on validation") for note in notes)
    console = Console(width=80)
    with console.capture() as shown:
        console.print(sweep_table(plan, status, tmp_path))
    assert max(map(len, shown.get().splitlines())) <= 80 and "better" not in shown.get()


def test_bits_are_first_where_they_are_least_and_a_failed_seed_is_out_of_the_choice(tmp_path):
    plan = grid.plan({"": Config()}, {"train.clip": ["0", "1", "2"]}, [0, 1], {})
    status = dict.fromkeys([planned.name for planned in plan], "done")
    for planned in plan:
        bits = {0.0: 3.0, 1.0: 2.0, 2.0: 1.0}[planned.values["train.clip"]]
        make_run(tmp_path / planned.name, {"text8": {"metric": "bits_per_character"}},
                 validation=bits + planned.seed / 2)  # fmt: skip
    status["clip=2.0-seed1"] = "failed"
    bases = {"": overlay(Config(), {"task": {"name": "text8"}}, "test")}
    plan = grid.plan(bases, {"train.clip": ["0", "1", "2"]}, [0, 1], {})
    rows, _ = summarize(plan, status, tmp_path)
    assert [row[""] for row in rows] == ["", "*", ""]
    assert [row["seeds"] for row in rows] == ["2 done", "2 done", "1 done, 1 failed"]
    assert [row["validation"] for row in rows] == ["3.2500 bits", "2.2500 bits", "1.0000 bits"]
    assert [row["95 % interval"] for row in rows] == ["3.0000 – 3.5000", "2.0000 – 2.5000", "–"]
