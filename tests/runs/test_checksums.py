"""Tests of the checksums of a finished run."""

import shutil

import pytest
from run_fixtures import make_run

from thalnet_mtl.errors import UserError
from thalnet_mtl.runs.checksums import READINGS, SUMS, write_sums
from thalnet_mtl.runs.records import read_run
from thalnet_mtl.runs.results import RunResult


@pytest.fixture
def run(tmp_path):
    """A finished run with checksums, beside one that differs in its learning rate."""
    for name, rate in (("run", "0.1"), ("other", "0.2")):
        folder = make_run(tmp_path / name, flags={"train.learning_rate": rate})
        (folder / "metrics.json").write_text("{}")
        (folder / "metrics.jsonl").write_text("")
        result = folder / "result.json"
        result.write_text(result.read_text() + " " * (name == "other"))
        (folder / "environment.json").write_text(f'{{"device": "{name}"}}')
        write_sums(folder, result.read_bytes())
    (tmp_path / "other" / "metrics.json").write_text('{"digits_rows": []}')
    (tmp_path / "other" / "metrics.jsonl").write_text("")
    return tmp_path / "run"


NAMES = ("config.yaml", "environment.json", "metrics.json", "result.json")


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_was_swapped_for_that_of_another_run_is_named(run, name):
    read_run(run)
    shutil.copy(run.with_name("other") / name, run / name)
    with pytest.raises(UserError, match=f"{name} has changed since the run finished") as error:
        read_run(run)
    assert "\n" not in str(error.value)
    (run / "SHA256SUMS").unlink()
    read_run(run)  # as the message says


def test_a_file_that_is_missing_is_named_but_a_copy_may_leave_out_the_network(run):
    with (run / SUMS).open("a") as file:
        file.write(f"{'0' * 64}  {READINGS}\n")
    assert read_run(run).reading_weights == {}
    (run / "environment.json").unlink()
    with pytest.raises(UserError, match=r"environment\.json is missing"):
        read_run(run)


def test_the_result_alone_is_checked_where_it_is_read_alone(run):
    RunResult.load(run)
    (run / "result.json").write_text((run / "result.json").read_text().replace("0.8", "0.9"))
    with pytest.raises(UserError, match=r"result\.json has changed"):
        RunResult.load(run)


@pytest.mark.parametrize("text", ["", "x  result.json\n", f"{'0' * 64}  metrics.json\n"])
def test_damaged_checksums_are_named(run, text):
    (run / "SHA256SUMS").write_text(text)
    with pytest.raises(UserError, match="SHA256SUMS"):
        read_run(run)


def test_an_unfinished_run_is_read_without_them(run):
    (run / "result.json").unlink()
    (run / "metrics.jsonl").write_text("")
    assert read_run(run).result is None
