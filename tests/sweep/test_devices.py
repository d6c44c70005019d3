"""A sweep uses all GPUs, several runs on each; the lists of GPUs are made up."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from contextlib import closing

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from thalnet_mtl.errors import UserError
from thalnet_mtl.sweep import devices, workers
from thalnet_mtl.sweep.devices import make_slots
from thalnet_mtl.training.devices import visible_gpus

RUN = """
import os, signal, sys, time
def say(word):
    with open({events!r}, "a") as file:
        file.write(f"{{word}} {{os.environ['CUDA_VISIBLE_DEVICES']}}\\n")
say("begin")
deadline = time.monotonic() + 30
while open({events!r}).read().count("begin") < 4 and time.monotonic() < deadline:
    time.sleep(0.02)  # until all places have been taken at the same time
say("end")
if sys.argv[1] == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
sys.exit(int(sys.argv[1]))
"""


class Script(workers.TrainingJob):
    """A job that is no run of ``thalnet train``."""

    @property
    def command(self):
        return [sys.executable, "-S", "gpu_run.py", *self.arguments]


@pytest.fixture
def events(tmp_path, monkeypatch):
    """A file to which every run writes when it begins and ends, and its GPU."""
    path = tmp_path / "events.txt"
    (tmp_path / "gpu_run.py").write_text(RUN.format(events=str(path)))
    monkeypatch.chdir(tmp_path)
    return path


def check_events(text: str, gpus: set[str], per_gpu: int) -> None:
    """Check that all GPUs had ``per_gpu`` runs at times, and none ever had more."""
    running, most = Counter(), Counter()
    for line in text.splitlines():
        word, gpu = line.split()
        running[gpu] += 1 if word == "begin" else -1
        most[gpu] = max(most[gpu], running[gpu])
    assert most == dict.fromkeys(gpus, per_gpu)


def test_every_run_has_one_gpu_and_a_lost_run_frees_its_place(events, tmp_path):
    statuses = ["0", "killed", "3", "0", "killed", "0", "0", "0", "1", "0"]
    jobs = [Script(str(n), tmp_path / str(n), [status]) for n, status in enumerate(statuses)]
    with closing(workers.LocalWorkers(per_gpu=2, find_gpus=lambda: ("5", "GPU-a"))) as local:
        assert local.count == 4 and str(local.slots) == "4 at a time on 2 GPUs"
        results = {result.name: result.status for result in workers.run_jobs(jobs, local)}
        assert local._gpus == {}
    expected = {str(n): -9 if s == "killed" else int(s) for n, s in enumerate(statuses)}
    assert results == expected
    check_events(events.read_text(), {"5", "GPU-a"}, 2)


@given(st.integers(1, 9), st.integers(1, 5), st.lists(st.integers(0, 99), max_size=60), st.data())
def test_no_gpu_ever_has_more_runs_than_its_places(gpus, per_gpu, ends, data):
    jobs = data.draw(st.none() | st.integers(1, gpus * per_gpu))
    slots = make_slots(jobs, per_gpu, tuple(map(str, range(gpus))), 1)
    taken: list[str] = []
    for end in ends:
        if len(taken) == slots.count:
            taken.pop(end % len(taken))
        taken.append(slots.free_gpu(taken))
        assert max(Counter(taken).values()) <= per_gpu
    assert slots.count == (jobs or gpus * per_gpu)


@pytest.mark.parametrize(
    ("jobs", "per_gpu", "gpus", "count"),
    [
        (None, None, 0, 6),  # one for each core
        (2, None, 0, 2),
        (None, None, 4, 4),
        (None, 3, 4, 12),
        (2, None, 4, 2),
        (9, None, 4, 9),  # 3, 2, 2 and 2
        (5, 3, 4, 5),
    ],
)
def test_runs_at_a_time(jobs, per_gpu, gpus, count):
    assert make_slots(jobs, per_gpu, tuple("abcd"[:gpus]), 6).count == count


@pytest.mark.parametrize(
    ("jobs", "per_gpu", "gpus", "message"),
    [
        (None, 2, 0, "--per-gpu: no GPU that PyTorch can use. --jobs N sets runs at a time."),
        (9, 2, 4, "--jobs 9 and --per-gpu 2: 4 GPUs train at most 8 runs at a time."),
        (9, 2, 1, "--jobs 9 and --per-gpu 2: 1 GPU trains at most 2 runs at a time."),
    ],
)
def test_more_than_there_is_is_refused(jobs, per_gpu, gpus, message):
    with pytest.raises(UserError) as error:
        make_slots(jobs, per_gpu, tuple("abcd"[:gpus]), 6)
    assert str(error.value) == message


def test_gpus_are_those_that_are_visible_already(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv(devices.VISIBLE, raising=False)
    assert visible_gpus() == ("0", "1")
    monkeypatch.setenv(devices.VISIBLE, "7, GPU-a,-1,3")  # CUDA ends the list at -1
    assert visible_gpus() == ("7", "GPU-a")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setenv(devices.VISIBLE, "")
    assert visible_gpus() == ()


def test_the_process_that_forks_asks_nothing_of_cuda():
    """A process that has counted its GPUs leaves its forks without any, on PyTorch with CUDA."""
    code = (
        "import torch\n"
        "def used(*_): raise AssertionError('CUDA is used')\n"
        "for name in ('device_count', 'is_available', 'init', '_lazy_init', 'current_device',\n"
        "             'get_device_properties', 'get_device_capability'):\n"
        "    assert hasattr(torch.cuda, name)\n"
        "    setattr(torch.cuda, name, used)\n"
        "from thalnet_mtl.cli import fork_server\n"
        "fork_server.preload()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


RAY = """
import json, os, sys, ray
from contextlib import closing
from pathlib import Path
from thalnet_mtl.sweep import ray_tasks, workers

class Run(workers.TrainingJob):
    command = property(lambda self: [sys.executable, "-S", "gpu_run.py", *self.arguments])

init = ray.init
ray.init = lambda *args, **options: init(*args, **options, num_gpus=2)
statuses = ["0", "killed", "lost", "0", "0", "0"]
def train(job, original=ray_tasks.train_remotely):
    if job.arguments == ["lost"]:
        os.kill(os.getpid(), 9)
    return original(job)
ray_tasks.train_remotely = train
jobs = [Run(str(n), Path(str(n)), [s]) for n, s in enumerate(statuses)]
with closing(workers.RayTasks(4, per_gpu=2, on_gpus=True)) as tasks:
    results = {r.name: r.status for r in workers.run_jobs(jobs, tasks)}
    print(json.dumps([str(tasks.slots), results]))
"""


def test_on_ray_a_run_takes_its_share_of_a_gpu(events):
    pytest.importorskip("ray")
    env = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    done = subprocess.run(
        [sys.executable, "-c", RAY], capture_output=True, text=True, env=env, timeout=120
    )
    assert done.returncode == 0, done.stderr
    results = {"0": 0, "1": -9, "2": None, "3": 0, "4": 0, "5": 0}
    assert json.loads(re.search(r"^\[\".*", done.stdout, re.MULTILINE)[0]) == [
        "4 at a time on 2 GPUs",
        results,
    ]
    check_events(events.read_text(), {"0", "1"}, 2)
