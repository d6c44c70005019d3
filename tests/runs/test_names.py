"""Tests of the run directories among what a shell makes of ``runs/*``."""

import json
import shutil

import pytest
from run_fixtures import make_run

from thalnet_mtl import cli
from thalnet_mtl.errors import UserError
from thalnet_mtl.runs.names import run_folders
from thalnet_mtl.runs.records import read_runs
from thalnet_mtl.runs.summaries import read_summaries


@pytest.fixture
def runs(tmp_path):
    """A run, an unfinished one, a sweep of two, a link to a run, a file and an empty folder."""
    runs = tmp_path / "runs"
    make_run(runs / "a")
    make_run(runs / "b", finished=False)
    for seed in ("seed0", "seed1"):
        make_run(runs / "sweep" / seed)
    (runs / "latest").symlink_to("a")
    (runs / "empty").mkdir()
    (runs / "notes.txt").write_text("")
    return runs


def test_what_is_no_run_is_left_out_and_named_and_a_run_counts_once(runs, capsys):
    paths = sorted(runs.iterdir())
    folders, notes = run_folders(paths)
    assert [run.name for run in read_runs(folders)] == ["a", "b", "seed0", "seed1"]
    assert notes == [
        f"left out: {runs / 'empty'} is no run directory: it has no config.yaml, nor has a folder "
        "in it",
        f"left out: {runs / 'notes.txt'} is no run directory: it is a file",
    ]
    for words in (["compare"], ["report", "--out", str(runs / "x.html")]):
        assert cli.main([*words, *map(str, paths)]) == 0
        assert capsys.readouterr().err.count("note: left out:") == 2


def test_a_damaged_run_among_others_is_refused(runs, capsys):
    (runs / "sweep" / "seed1" / "result.json").write_text("{")
    assert cli.main(["compare", *map(str, sorted(runs.iterdir()))]) == 2
    *notes, line = capsys.readouterr().err.splitlines()
    assert len(notes) == 2 and "seed1/result.json is damaged" in line


@pytest.mark.parametrize("name", ["empty", "notes.txt", "nowhere", "a/result.json"])
def test_without_any_run_one_line_says_so(runs, capsys, name):
    assert cli.main(["compare", str(runs / name)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert name in line and "run directory" in line


def test_runs_by_which_a_tuning_chose_are_left_out_unless_they_are_named(tmp_path):
    tuning = tmp_path / "all" / "tuned"
    config = {"task": {"name": "toy"}, "train": {"seed": 0}}
    for part in ("trials", "former_winners", "winners"):
        folder = tuning / part / "trial00-seed0"
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(json.dumps(config))
    plain = tmp_path / "all" / "trials" / "a"  # of no tuning
    plain.mkdir(parents=True)
    (plain / "config.yaml").write_text(json.dumps(config))
    (tuning / "tuning.json").write_text("{}")
    winner = tuning / "winners" / "trial00-seed0"
    for path, expected in ((tuning, [winner]), (tmp_path, [plain, winner])):
        for read in (run_folders, lambda paths: _paths(*read_summaries(paths))):
            found, notes = read([path])
            assert sorted(found) == expected
            assert [note.lower() for note in notes] == [
                f"left out: {tuning} is a tuning: 2 runs of its trials, or of former winners, "
                f"chose the settings; they are in {tuning / 'trials'}"
            ]
    trial = tuning / "trials" / "trial00-seed0"
    for path in (trial, trial.parent):
        assert run_folders([path]) == ([trial], [])
        assert [run.path for run in read_summaries([path])[0]] == [trial]
    shutil.rmtree(tuning / "winners")
    for read in (run_folders, read_summaries):
        with pytest.raises(UserError, match=r"is a tuning: 2 runs of its trials.* are in .*trials"):
            read([tuning])


def _paths(runs, notes):
    return [run.path for run in runs], notes
