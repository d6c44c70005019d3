"""Sweeps are submitted to SLURM as job arrays; programs on PATH stand for it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from toy_tasks import TOY

from thalnet_mtl import cli
from thalnet_mtl.errors import UserError
from thalnet_mtl.sweep.slurm import check_sbatch

# ``sbatch`` notes its words; ``squeue`` shows ``queue.txt``; refusals are in files.
SBATCH = """#!/bin/bash
if [ -e refused ] && [ $(wc -l < submitted.txt) -ge $(cat refused) ]; then
  echo "sbatch: error: Batch job submission failed:
  Job violates accounting/QOS policy" >&2; exit 1
fi
printf '%s\\t' "$@" >> submitted.txt; echo >> submitted.txt
echo "Submitted batch job $(wc -l < submitted.txt)"
"""
SQUEUE = """#!/bin/bash
[ "$*" = "--me --noheader --array --format=%K %j" ] || exit 9
[ ! -e down ] || { echo "slurm_load_jobs error: Unable to contact slurm controller" >&2; exit 1; }
cat queue.txt
"""
SCONTROL = """#!/bin/bash
echo "MaxArraySize            = 3"
"""
PYTHON = """#!/bin/bash
echo "began with $*"
[ ! -e kill ] || { echo "step 7"; kill -9 $$; }
for word in "$@"; do printf '%s\\t' "$word" >> trained.txt; done; echo >> trained.txt
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A folder with a cluster whose arrays hold at most 3 runs."""
    monkeypatch.chdir(tmp_path)
    programs = {"sbatch": SBATCH, "squeue": SQUEUE, "scontrol": SCONTROL, "python": PYTHON}
    for name, text in programs.items():
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    for name in ("queue.txt", "submitted.txt", "trained.txt"):
        Path(name).touch()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return tmp_path


def sweep(capsys, *words):
    capsys.readouterr()
    status = cli.main(["sweep", *TOY, "--out", "a folder", *words])
    output = capsys.readouterr()
    return status, output.out, output.err


SEEDS = ["--seeds", "0", "1", "2", "3", "4", "--on", "slurm"]


def submitted():
    return [
        line.rstrip("\t").split("\t") for line in Path("submitted.txt").read_text().splitlines()
    ]


def elements():
    """Return the runs of all submitted elements, in order: name of the job, index, first run."""
    found = []
    for job, array, script, first in submitted():
        assert script == str(Path("a folder").resolve() / "slurm.sh")
        last = array.removeprefix("--array=0-").partition("%")[0]
        found += [(job.partition("=")[2], n, first) for n in range(int(last) + 1)]
    return found


def start_element(index, first, script=None):
    """Run an element as SLURM does, but for the training; return its exit status."""
    Path("trained.txt").write_text("")
    env = os.environ | {"SLURM_ARRAY_TASK_ID": str(index)}
    script = script or Path("a folder/slurm.sh").resolve()
    return subprocess.run(["bash", script, first], env=env, cwd="/").returncode


def run_element(index, first, script=None):
    """Run an element, then train what it would train, in this process."""
    assert start_element(index, first, script) == 0
    [line] = Path("trained.txt").read_text().splitlines()
    _, module, *words = line.rstrip("\t").split("\t")
    assert module == "thalnet_mtl.cli"
    return cli.main(words), Path(words[-1]).name


def test_every_run_is_an_element_and_only_what_is_left_is_submitted_again(
    capsys, slurm, monkeypatch
):
    monkeypatch.setattr(sys, "executable", str(slurm / "bin" / "python"))
    options = "--gpus=1 --time=4:00:00"
    status, out, err = sweep(capsys, *SEEDS, "--sbatch", options, "--jobs", "2")
    assert status == 0 and err == ""
    assert "0 of 5 runs are done, 0 queued or running" in out
    assert "Submitted batch job 1: 3 runs\nSubmitted batch job 2: 2 runs" in out
    assert [words[1] for words in submitted()] == ["--array=0-2%2", "--array=0-1%2"]
    script = Path("a folder/slurm.sh").read_text()
    assert f"\n#SBATCH {options}\n" in script
    assert subprocess.run(["bash", "-n", "a folder/slurm.sh"]).returncode == 0

    jobs = elements()
    assert len({name for name, _, _ in jobs}) == 2
    queued, (_, *fourth) = jobs[0], jobs[3]
    assert run_element(*fourth) == (0, "seed3")  # in any order
    Path("kill").touch()
    assert start_element(1, "0") == -9  # no shell stands between SLURM and the run
    Path("kill").unlink()
    Path("a folder/seed2/log.txt").write_text("thalnet: saved at step 5 of 20; resume with: …\n")
    Path("a folder/seed4/log.txt").write_text("thalnet: training has diverged\n")
    Path("queue.txt").write_text(f"{queued[1]} {queued[0]}\nN/A other\n0 other-job\n")

    before = (Path("a folder/seed3") / "result.json").stat().st_mtime_ns
    Path("submitted.txt").write_text("")
    status, out, err = sweep(capsys, *SEEDS)
    assert status == 1 and err == ""
    assert "1 of 5 runs are done, 1 queued or running" in out
    assert "1 stopped before the end, and saved; they go on" in out and "seed2 failed" not in out
    assert "seed1 failed: ended early, after: step 7" in out
    assert "seed4 failed: training has diverged" in out
    again = elements()
    assert len(again) == 3 and not {job for job, _, _ in again} & {job for job, _, _ in jobs}
    assert sorted(run_element(n, first) for _, n, first in again) == [
        (0, "seed1"), (0, "seed2"), (0, "seed4"),
    ]  # fmt: skip
    assert (Path("a folder/seed3") / "result.json").stat().st_mtime_ns == before
    assert "began with -m thalnet_mtl.cli train" in Path("a folder/seed2/log.txt").read_text()

    Path("submitted.txt").write_text("")
    status, out, _ = sweep(capsys, *SEEDS)
    assert status == 0 and "4 of 5 runs are done, 1 queued or running" in out and submitted() == []
    assert "failed" not in out
    Path("queue.txt").write_text("")
    sweep(capsys, *SEEDS)
    [(_, index, first)] = elements()
    assert run_element(index, first) == (0, "seed0")
    assert sweep(capsys, *SEEDS)[0] == 0 and len(submitted()) == 1


def test_a_full_queue_keeps_what_it_has_accepted(capsys, slurm):
    Path("refused").write_text("1")
    status, out, err = sweep(capsys, *SEEDS)
    assert status == 1 and err.count("\n") == 1
    assert "failed: Job violates accounting/QOS policy; 3 of 5 runs were submitted" in err
    assert "submit the rest with: thalnet sweep" in err
    Path("refused").unlink()
    first = [(job, n) for job, n, _ in elements()]
    Path("queue.txt").write_text("".join(f"{n} {job}\n" for job, n in first))
    Path("submitted.txt").write_text("")
    status, out, _ = sweep(capsys, *SEEDS)
    assert status == 0 and "0 of 5 runs are done, 3 queued or running" in out
    assert [words[1] for words in submitted()] == ["--array=0-1"]


def test_nothing_is_submitted_again_while_slurm_does_not_answer(capsys, slurm):
    sweep(capsys, *SEEDS)
    Path("submitted.txt").write_text("")
    Path("down").touch()
    status, _, err = sweep(capsys, *SEEDS)
    assert status == 1 and err.count("\n") == 1 and "Unable to contact slurm controller" in err
    assert submitted() == []


def test_without_sbatch_the_script_is_written(capsys, slurm, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    for _ in range(2):
        status, out, err = sweep(capsys, *SEEDS)
        assert status == 0 and err == "" and "no sbatch on this machine" in out
    lines = Path("a folder/slurm.sh").read_text().splitlines()
    assert lines[2].startswith("#   sbatch --job-name=") and "--array=0-4" in lines[2]


def test_a_record_that_is_damaged_is_one_line(capsys, slurm):
    sweep(capsys, *SEEDS)
    Path("a folder/slurm.json").write_text(json.dumps({"job": 3}))
    status, _, err = sweep(capsys, *SEEDS)
    assert status == 2 and err.count("\n") == 1 and "slurm.json is damaged" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--seeds 0 --sbatch --time=1", "--sbatch is for SLURM: give --on slurm as well."),
        ("--seeds 0 --on slurm --per-gpu 2", "--per-gpu is not for SLURM: ask for a GPU by"),
        ("--seeds 0 --on slurm --jobs 0", "--jobs must be at least 1, got 0"),
        ("--seeds 0 --on slurm --sbatch --array=0-3", "--sbatch --array: the sweep itself sets it"),
        ("--seeds 0 --on slurm --sbatch -Jname", "--sbatch -Jname: the sweep itself sets it"),
        ("--seeds 0 --on slurm --sbatch gpu", "--sbatch 'gpu': expected options, as in"),
        ("--seeds 0 --on slurm --sbatch", "--sbatch: expected one argument"),
        (
            "--on slurm --trials 2 --sampler tpe --sample train.clip=1,2",
            "--sampler tpe needs the scores of earlier trials, which SLURM trains later: leave it",
        ),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_written(capsys, slurm, words, message):
    before = sorted(slurm.iterdir())
    status, out, err = sweep(capsys, *words.split())
    assert status == 2 and out == "" and err.count("\n") == 1 and message in err
    assert sorted(slurm.iterdir()) == before


def test_options_that_are_no_line_are_refused():
    for text in ("--time=1\nrm", "--comment='a"):
        with pytest.raises(UserError, match="--sbatch"):
            check_sbatch(text)


def test_winners_are_submitted_once_all_trials_have_ended(capsys, slurm, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(slurm / "bin" / "python"))
    words = [
        "--grid",
        "model.reading=linear,weight_norm",
        "--trials",
        "2",
        "--sample",
        "train.learning_rate=log:0.001,0.01",
    ]
    words += ["--confirm", "1", "--on", "slurm"]
    status, out, err = sweep(capsys, *words)
    assert status == 0 and err == ""
    assert "0 of 4 trial runs are done" in out and "the same command chooses the winners" in out
    script = Path("a folder/trials/slurm.sh").resolve()
    arrays = submitted()
    assert [words[2] for words in arrays] == [str(script)] * 2
    for _, array, _, first in arrays[:1]:
        for index in range(int(array[-1]) + 1):
            run_element(index, first, script)
    last = Path("a folder/trials/reading=weight_norm-trial01-seed0")
    assert not (last / "result.json").exists()
    (last / "log.txt").write_text("thalnet: training has diverged at step 3\n")

    Path("submitted.txt").write_text("")
    status, out, err = sweep(capsys, *words)
    assert status == 0 and err == "" and "3 of 4 trial runs are done" in out
    winners = Path("a folder/winners/slurm.sh").resolve()
    [(_, array, path, first)] = submitted()
    assert path == str(winners) and array == "--array=0-1"
    for index in (0, 1):
        run_element(index, first, winners)
    Path("submitted.txt").write_text("")
    status, out, err = sweep(capsys, *words)
    assert status == 0 and submitted() == [] and "2 of 2 runs are done" in out
    record = json.loads(Path("a folder/tuning.json").read_text())
    assert record["arms"]["reading=weight_norm"]["winner"] == 0
    assert {entry["status"] for entry in record["winner_runs"].values()} == {"done"}


def test_a_trial_that_was_killed_is_submitted_again_before_a_winner_is_chosen(capsys, slurm):
    words = ["--trials", "2", "--sample", "train.learning_rate=log:0.001,0.01", "--on", "slurm"]
    sweep(capsys, *words)
    Path("a folder/trials/trial00-seed0/log.txt").write_text("step 3\n")
    Path("submitted.txt").write_text("")
    status, out, _ = sweep(capsys, *words)
    assert status == 1 and "trial00-seed0 failed: ended early, after: step 3" in out
    assert len(submitted()) == 1
    assert json.loads(Path("a folder/tuning.json").read_text())["arms"][""]["winner"] is None
