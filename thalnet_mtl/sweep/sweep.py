"""A sweep: all its runs, so many at a time, and a record of what became of each.

``sweep.json`` holds every run that was ever planned for its folder, as plain data. The same call
again goes on where it stopped; a longer plan over the same keys adds to what is there.
"""

import json
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from thalnet_mtl.config.load import dump_config
from thalnet_mtl.config.schema import Config
from thalnet_mtl.console import Console, duration
from thalnet_mtl.errors import RunError, UserError
from thalnet_mtl.files import FolderLock, read_fields, read_json, require, write_text
from thalnet_mtl.metrics.metric import METRICS
from thalnet_mtl.registry import lookup
from thalnet_mtl.runs.directory import check_same
from thalnet_mtl.signals import StopRequest, stop_signals
from thalnet_mtl.sweep.plan import PlannedRun, configure
from thalnet_mtl.sweep.workers import LOG, LocalWorkers, ProcessResult, RayTasks
from thalnet_mtl.training.setup import make_network, make_tasks
from thalnet_mtl.training.weighting import make_weighting


@dataclass
class SweepEntry:
    """A run in ``sweep.json``; its status is waiting, done, failed or stopped."""

    run: str
    values: dict[str, Any]
    seed: int
    status: str = "waiting"
    exit_status: int | None = None
    error: str = ""
    seconds: float = 0.0  # of all its processes


class Sweep:
    """The folder of a sweep, locked for one process.

    Raises:
        UserError: a run cannot be built, or the folder holds something else.
    """

    def __init__(self, out: Path, bases: Mapping[str, Config], plan: Sequence[PlannedRun]):
        self.out, self.plan = out, plan
        for one in {(one.run, repr(one.values)): one for one in plan}.values():
            _rehearse(one.config)
        if (out / "config.yaml").exists():
            raise UserError(f"{out} is the directory of a run, not of a sweep. Give --out DIR.")
        self.lock = FolderLock(out)
        self.keys = list(plan[0].values)
        try:
            self.entries = self._read(bases)
            for one in plan:
                self._look(one)
        except UserError:
            self.close()
            raise

    def close(self) -> None:
        self.lock.release()

    def _look(self, one: PlannedRun) -> None:
        """Whether a run is done already; what failed or was stopped is tried again."""
        check_same(self.out / one.name, one.config)
        entry = self.entries.setdefault(one.name, SweepEntry(one.run, one.values, one.seed))
        result = self.out / one.name / "result.json"
        if not result.exists():
            entry.status, entry.exit_status, entry.error = "waiting", None, ""
        elif entry.status != "done":  # it ended when nobody was there to record it
            entry.status, entry.exit_status, entry.error = "done", None, ""
            entry.seconds = entry.seconds or read_json(result)["seconds"]

    def _read(self, bases: Mapping[str, Config]) -> dict[str, SweepEntry]:
        """What was recorded before, if it is part of the same sweep."""
        path = self.out / "sweep.json"
        if not path.exists():
            return {}
        content = read_fields(path)
        require(content, ("keys", "runs"), str(path))
        if content["keys"] != self.keys:
            there, here = (
                ", ".join(keys) or "seeds alone" for keys in (content["keys"], self.keys)
            )
            raise UserError(f"{self.out} holds a sweep over {there}, not {here}. Give --out DIR.")
        entries = {}
        for name, about in content["runs"].items():
            require(about, SweepEntry.__dataclass_fields__, f"{path}: {name}")
            entries[name] = entry = SweepEntry(**about)
            if entry.run not in bases:
                raise UserError(f"{self.out} holds another sweep, with '{name}'. Give --out DIR.")
            check_same(self.out / name, configure(bases[entry.run], entry.values, entry.seed))
        return entries

    def write(self) -> None:
        runs = {name: asdict(entry) for name, entry in self.entries.items()}
        text = json.dumps({"keys": self.keys, "runs": runs}, indent=1, ensure_ascii=False)
        write_text(self.out / "sweep.json", text + "\n")

    @property
    def status(self) -> dict[str, str]:
        """Of every run of the plan."""
        return {one.name: self.entries[one.name].status for one in self.plan}

    @property
    def failures(self) -> list[str]:
        """Of every run of the plan that failed: why, and where to look."""
        return [
            f"{name} failed: {self.entries[name].error}\n  all it said: {self.out / name / LOG}"
            for name, status in self.status.items()
            if status == "failed"
        ]

    def run(self, workers: LocalWorkers | RayTasks) -> None:
        """Train what is not done yet.

        Raises:
            RunError: on Ctrl+C, SIGTERM or SIGHUP, after the runs that were going have ended.
        """
        waiting = [one for one in self.plan if self.status[one.name] != "done"]
        total, found, begin = len(self.plan), len(self.plan) - len(waiting), time.monotonic()
        screen = Console()
        if found:
            screen.print(f"{found} of {total} runs are done already")
        self.write()
        said: dict[str, int] = {}  # bytes in the log of a run before it was started
        with screen.progress("runs", found, total), _stop_signals(screen) as stop:
            passed_on = 0
            while workers.going or (waiting and not stop.requested()):
                while waiting and workers.going < workers.count and not stop.requested():
                    one = waiting.pop(0)
                    said[one.name] = self._prepare(one)
                    workers.submit(one.name, self.out.resolve() / one.name)
                if passed_on < stop.count:
                    passed_on = stop.count
                    workers.stop()
                for end in workers.ended():
                    self._record(end, said[end.name], stop.requested())
                    self.write()
                    pace = (time.monotonic() - begin) / max(1, self.count("done", "failed") - found)
                    left = f"  {duration(pace * len(waiting))} left" if waiting else ""
                    about = self._line(end.name) + left * (not stop.requested())
                    screen.print(f"{self.count('done', 'failed')}/{total}  {about}")
                failed = f", {self.count('failed')} failed" * bool(self.count("failed"))
                screen.set_status(self.count("done", "failed"), f"{workers.going} going{failed}")
        if stop.requested() and self.count("stopped", "waiting"):
            raise RunError(f"stopped, {self.count('done')} of {total} runs are done")

    def count(self, *status: str) -> int:
        """Runs of the plan of which this is the status."""
        return sum(one in status for one in self.status.values())

    def _prepare(self, one: PlannedRun) -> int:
        """Write down what is to be trained; how much the log of the run holds already."""
        folder = self.out / one.name
        if not (folder / "config.yaml").exists():
            write_text(folder / "config.yaml", dump_config(one.config))
        log = folder / LOG
        return log.stat().st_size if log.exists() else 0

    def _record(self, end: ProcessResult, before: int, stopping: bool) -> None:
        entry = self.entries[end.name]
        entry.exit_status = end.status
        entry.seconds = round(entry.seconds + end.seconds, 2)
        entry.status = "done" if end.status == 0 else "stopped" if stopping else "failed"
        log = self.out / end.name / LOG
        said = log.read_bytes()[before:] if log.exists() else b""
        entry.error = "" if end.status == 0 else end.lost or _error(end.status, said)

    def _line(self, name: str) -> str:
        """How a run ended, for people."""
        entry = self.entries[name]
        if entry.status != "done":
            return f"{name}  {entry.status}, {entry.error}"
        tasks, scores = read_json(self.out / name / "result.json")["tasks"], []
        for task, about in tasks.items():
            metric, which = METRICS[about["metric"]], f"{task} " if len(tasks) > 1 else ""
            value = metric.format(about["validation"][metric.name])
            scores.append(f"{which}validation {metric.name} {value}")
        return f"{name}  done in {duration(entry.seconds)}, {', '.join(scores)}"


def _rehearse(config: Config) -> None:
    """Build what a configuration names, or raise: not only when its turn comes."""
    tasks = make_tasks(config)
    make_network(config, tasks)
    weights = {name: task.weight for name, task in config.named_tasks.items()}
    make_weighting(config.train.combine, weights)
    lookup("strategy", config.train.strategy)


def _error(status: int | None, said: bytes) -> str:
    """Exit status or signal, and the last line that a process said."""
    if status is not None and status < 0:
        return f"ended by {signal.Signals(-status).name}"
    lines = said.decode(errors="replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "nothing was said")
    return f"exit status {status}, {last.removeprefix('thalnet: ')}"


def _stop_signals(screen: Console) -> AbstractContextManager[StopRequest]:
    """Count Ctrl+C, SIGTERM and SIGHUP, but for those ignored (as under nohup).

    The runs are in sessions of their own, so that the sweep has to pass the signals on to them.
    """

    def announce(count: int) -> None:
        hint = "; press Ctrl+C again to abort them" if count == 1 else ""
        screen.print(f"stopping: the runs in progress are saved and end{hint}")

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    caught = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    return stop_signals(announce, caught, abort=False)
