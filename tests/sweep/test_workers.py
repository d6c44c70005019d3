"""Jobs run several at a time, and end when they are asked to."""

import os
import signal
from contextlib import closing

from thalnet_mtl.signals import StopRequest
from thalnet_mtl.sweep import workers


def test_a_second_signal_ends_the_runs_at_once(tmp_path, monkeypatch):
    made = workers.LocalWorkers(1)
    for path in ("config.yaml", "thalnet_mtl/__init__.py"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text("")
    (tmp_path / "thalnet_mtl" / "cli.py").write_text(
        "import signal, sys\n"
        "signal.signal(signal.SIGTERM, lambda *_: (signal.signal(15, signal.SIG_DFL),"
        " print('saving', flush=True)))\n"
        "print('ready', flush=True)\n"
        "while True:\n    signal.pause()\n"
    )
    monkeypatch.chdir(tmp_path)
    made.submit(workers.TrainingJob("one", tmp_path))
    for word in ("ready", "saving"):
        while word not in (tmp_path / workers.LOG).read_text():
            assert made.poll() == [], (tmp_path / workers.LOG).read_text()
        assert os.getsid(made._processes["one"][0].pid) != os.getsid(0)  # no Ctrl+C from a terminal
        made.stop()
    ends = []
    while made.running:
        ends += made.poll()
    assert [(end.name, end.status) for end in ends] == [("one", -signal.SIGTERM)]


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
