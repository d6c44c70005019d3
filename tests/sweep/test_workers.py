"""Jobs run several at a time, and end when they are asked to."""

import os
import runpy
import signal
import subprocess
import sys
import time
from contextlib import closing

import pytest

from thalnet_mtl import cli, signals
from thalnet_mtl.signals import StopRequest
from thalnet_mtl.sweep import workers
from thalnet_mtl.sweep.jobs import LOG


def test_a_second_signal_ends_the_runs_at_once(tmp_path, monkeypatch):
    made, script = workers.LocalWorkers(1), tmp_path / "script.py"
    script.write_text(
        "import signal, sys\n"
        "signal.signal(signal.SIGTERM, lambda *_: (signal.signal(15, signal.SIG_DFL),"
        " print('saving', flush=True)))\n"
        "print('ready', flush=True)\n"
        "while True:\n    signal.pause()\n"
    )
    command = [sys.executable, str(script)]
    monkeypatch.setattr(workers.TrainingJob, "command", property(lambda job: command))
    made.submit(workers.TrainingJob("one", tmp_path))
    for word in ("ready", "saving"):
        while word not in (tmp_path / LOG).read_text():
            assert made.poll() == [], (tmp_path / LOG).read_text()
        pid = made._processes["one"][0].process.pid
        assert os.getsid(pid) != os.getsid(0)  # no Ctrl+C from a terminal
        made.stop()
    ends = []
    while made.running:
        ends += made.poll()
    assert [(end.name, end.status) for end in ends] == [("one", -signal.SIGTERM)]


def test_runs_are_asked_to_save_and_end_when_the_process_that_started_them_is_killed(tmp_path):
    child = (
        "import signal, sys, time\n"
        "from thalnet_mtl.signals import end_with_parent\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('saved', flush=True), sys.exit()))\n"
        "end_with_parent()\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from thalnet_mtl.sweep import workers\n"
        "command = [sys.executable, '-c', sys.argv[1]]\n"
        "workers.TrainingJob.command = property(lambda job: command)\n"
        "local = workers.LocalWorkers(2)\n"
        "for name in 'ab':\n"
        "    local.submit(workers.TrainingJob(name, Path(sys.argv[2], name)))\n"
        "time.sleep(60)\n"
    )
    logs = [tmp_path / name / LOG for name in "ab"]

    def wait_for(text: str) -> None:
        end = time.monotonic() + 30
        while not all(log.exists() and log.read_text() == text for log in logs):
            assert time.monotonic() < end, [log.read_text() for log in logs if log.exists()]
            time.sleep(0.02)

    with subprocess.Popen([sys.executable, "-c", parent, child, tmp_path]) as process:
        wait_for("ready\n")
        process.kill()
        wait_for("ready\nsaved\n")


def test_the_command_of_a_run_watches_the_process_that_started_it(monkeypatch):
    calls = []
    monkeypatch.setattr(signals, "end_with_parent", lambda: calls.append("watch"))
    monkeypatch.setattr(sys.modules[f"{cli.__name__}.main"], "main", lambda: calls.append("main"))
    with pytest.raises(SystemExit):
        runpy.run_module("thalnet_mtl.cli", run_name="__main__")
    assert calls == ["watch", "main"]


def test_jobs_are_commands_of_thalnet_train_with_a_log_of_their_own(tmp_path):
    jobs = [
        workers.TrainingJob(
            f"job{n}", tmp_path / "runs" / f"job{n}", ["no_such_config"], tmp_path / f"{n}.log"
        )
        for n in range(3)
    ]
    with closing(workers.LocalWorkers(2)) as local:
        results = list(workers.run_jobs(iter(jobs), local))
    assert sorted(result.name for result in results) == ["job0", "job1", "job2"]
    assert all(result.status == 2 and result.seconds > 0 for result in results)
    assert "no_such_config" in (tmp_path / "0.log").read_text()


def test_jobs_are_taken_one_by_one_and_none_is_taken_after_a_request_to_stop(tmp_path):
    class Slow(workers.LocalWorkers):
        running, stops = 0, 0

        def submit(self, job):
            self.running += 1

        def poll(self):
            self.running -= 1
            return [workers.ProcessResult("job", 0, 0.0)]

        def stop(self):
            self.stops += 1

    taken, stop, slow = [], StopRequest(), Slow(2)

    def jobs():
        for n in range(9):
            taken.append(n)
            yield workers.TrainingJob(str(n), tmp_path)

    results = workers.run_jobs(jobs(), slow, stop)
    next(results)
    assert taken == [0, 1]
    next(results)
    assert taken == [0, 1, 2]
    stop.count += 1
    assert len(list(results)) == 1 and taken == [0, 1, 2] and slow.stops == 1


def test_processes_beside_each_other_share_the_cores(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert [workers.thread_environment(count)["OMP_NUM_THREADS"] for count in (1, 2, 3, 9)] == list(
        "8421"
    )
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert workers.thread_environment(2) == dict(os.environ)
