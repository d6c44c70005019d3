"""Runs are forked from a process that has imported PyTorch, and are no less processes of their own.

The bits of a run are those of the same run alone, stopped and resumed as well.
"""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from thalnet_mtl.config.load import load_config
from thalnet_mtl.sweep import workers
from thalnet_mtl.sweep.devices import Slots
from thalnet_mtl.training.trainer import train

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="runs are forked on Linux only")

ENDS = """
import ctypes, json, os, random, signal, sys, time
imported = "torch" in sys.modules
import numpy.random, torch
from thalnet_mtl.signals import end_with_parent

def wait():
    end = []

    def save(*_):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        print("saved", flush=True)
        end.append(time.monotonic() + 10)  # unless a second signal comes

    end_with_parent()
    signal.signal(signal.SIGTERM, save)
    print("ready", flush=True)
    while not end or time.monotonic() < end[0]:
        time.sleep(0.01)

def facts():
    print(json.dumps({
        "imported": imported,
        "words": sys.argv[1:],
        "main": __name__,
        "session": os.getsid(0) == os.getpid() == os.getpgid(0),
        "threads": len(os.listdir("/proc/self/task")),
        "cpus": torch.get_num_threads(),
        "files": sorted(set(os.listdir("/proc/self/fd")) - {"0", "1", "2"}, key=int)[1:],
        "cuda": torch.cuda.is_initialized() or torch.cuda._is_in_bad_fork(),
        "seeds": [torch.initial_seed(), numpy.random.rand(), random.random()],
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "left": hasattr(torch, "left_behind"),
        "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
    }))
    torch.manual_seed(3), numpy.random.seed(3), random.seed(3)
    torch.set_num_threads(7)
    torch.use_deterministic_algorithms(True)
    torch.left_behind = True
    os.environ["OMP_NUM_THREADS"] = "9"

ends = {
    "facts": facts,
    "wait": wait,
    "exit": lambda: os._exit(7),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "crash": lambda: ctypes.string_at(0),
    "raise": lambda: 1 / 0,
    "say": lambda: sys.exit("the reason"),
}
ends[sys.argv[1]]()
"""


class Ending(workers.TrainingJob):
    """A job that ends in a way of its own: the first of its arguments."""

    @property
    def command(self):
        return [sys.executable, "-m", "ends", *self.arguments]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working directory with the module ``ends``."""
    folder = tmp_path_factory.mktemp("forking")
    (folder / "ends.py").write_text(ENDS)
    before = Path.cwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)


@pytest.fixture(scope="module")
def local(folder):
    with closing(workers.LocalWorkers(2)) as local:
        yield local


def results_of(local, jobs):
    return {result.name: result for result in workers.run_jobs(jobs, local)}


def wait_for(log: Path, text: str) -> None:
    end = time.monotonic() + 60
    while not log.exists() or text not in log.read_text():
        assert time.monotonic() < end, log.read_text() if log.exists() else "no log"
        time.sleep(0.01)


def test_whatever_ends_a_run_ends_no_other(local, folder):
    names = ["facts", "exit", "kill", "crash", "raise", "say"]
    jobs = [Ending(name, folder / name, [name, "a b"]) for name in names]
    results = results_of(local, [*jobs, Ending("again", folder / "again", ["facts", "a b"])])
    ends = {"facts": 0, "exit": 7, "kill": -9, "crash": -11, "raise": 1, "say": 1, "again": 0}
    assert {name: result.status for name, result in results.items()} == ends
    assert not any(result.lost for result in results.values())
    assert "ZeroDivisionError" in (folder / "raise" / "log.txt").read_text()
    assert (folder / "say" / "log.txt").read_text() == "the reason\n"
    shown = [json.loads((folder / name / "log.txt").read_text()) for name in ("facts", "again")]
    seeds = [facts.pop("seeds") for facts in shown]
    assert all(first != second for first, second in zip(*seeds, strict=True))
    assert shown[0] == shown[1] == {
        "imported": True,
        "words": ["facts", "a b"],
        "main": "__main__",
        "session": True,
        "threads": 1,
        "cpus": int(workers.thread_environment(2)["OMP_NUM_THREADS"]),
        "files": [],
        "cuda": False,
        "deterministic": False,
        "left": False,
        "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
    }  # fmt: skip


def test_every_run_has_one_gpu(local, folder, monkeypatch):
    monkeypatch.setattr(local, "slots", Slots(2, ("5", "GPU-a")))
    jobs = [Ending(name, folder / name, ["facts"]) for name in ("on_a", "on_b", "on_c")]
    assert {result.status for result in results_of(local, jobs).values()} == {0}
    logs = [folder / job.name / "log.txt" for job in jobs]
    gpus = [json.loads(log.read_text())["gpus"] for log in logs]
    assert gpus[:2] == ["5", "GPU-a"] and gpus[2] in gpus[:2]


def values(folder: Path) -> list[dict[str, object]]:
    """Return what a run has logged, without times."""
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def test_a_forked_run_has_the_bits_of_the_same_run_alone_stopped_or_not(local, folder):
    steps = {"a": 300, "b": 3}
    jobs = {
        name: workers.TrainingJob(
            name, folder / name, ["digits", f"--train.steps={n}", "--evaluate.every=100"]
        )
        for name, n in steps.items()
    }
    local.submit(jobs["a"])
    wait_for(jobs["a"].log_path, "backend: ")
    local.stop()
    [result] = workers.run_jobs([], local)
    assert result.status == 1 and "resume with" in jobs["a"].log_path.read_text()
    assert (folder / "a" / "checkpoint" / "last.pt").exists()
    assert not (folder / "a" / "result.json").exists()
    assert {r.status for r in results_of(local, jobs.values()).values()} == {0}
    for name, n in steps.items():
        alone = folder / f"{name}-alone"
        train(load_config("digits", train={"steps": n}, evaluate={"every": 100}), alone)
        model = Path("model") / "model.safetensors"
        assert (folder / name / model).read_bytes() == (alone / model).read_bytes()
        assert values(folder / name) == values(alone)


def test_when_the_server_is_killed_its_runs_save_and_the_next_ones_get_another(local, folder):
    local.submit(Ending("first", folder / "first", ["wait"]))
    wait_for(folder / "first" / "log.txt", "ready")
    server = local._server
    os.kill(server._process.pid, signal.SIGKILL)
    [result] = workers.run_jobs([], local)
    assert result.status == -signal.SIGTERM
    assert result.lost == "the process that starts runs has ended: exit status -9"
    wait_for(folder / "first" / "log.txt", "saved")
    server.close()
    job = Ending("second", folder / "second", ["wait"])
    local.submit(job)
    for word in ("ready", "saved"):  # the second signal ends it
        wait_for(job.log_path, word)
        local.stop()
    [result] = workers.run_jobs([], local)
    assert (result.status, result.lost) == (-signal.SIGTERM, "")


def test_runs_save_when_the_process_that_has_the_workers_is_killed(folder):
    parent = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from thalnet_mtl.sweep import workers\n"
        "command = [sys.executable, '-m', 'ends', 'wait']\n"
        "workers.TrainingJob.command = property(lambda job: command)\n"
        "local = workers.LocalWorkers(2)\n"
        "for name in ('left', 'right'):\n"
        "    local.submit(workers.TrainingJob(name, Path(name)))\n"
        "time.sleep(600)\n"
    )
    logs = [folder / name / "log.txt" for name in ("left", "right")]
    with subprocess.Popen([sys.executable, "-c", parent]) as process:
        for log in logs:
            wait_for(log, "ready")
        process.kill()
        for log in logs:
            wait_for(log, "saved")


def test_a_server_that_cannot_start_says_why(tmp_path, monkeypatch):
    (tmp_path / "torch.py").write_text("raise ImportError('libtorch is missing')\n")
    monkeypatch.chdir(tmp_path)
    with closing(workers.LocalWorkers(1)) as local:
        [result] = workers.run_jobs([Ending("a", tmp_path / "a", ["facts"])], local)
    assert result.lost.endswith("has ended: ImportError: libtorch is missing")
