"""The run directory and the screen: everything that a run writes down or shows."""

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from thalnet_mtl import config as configs
from thalnet_mtl import data
from thalnet_mtl.config import Config, UserError
from thalnet_mtl.files import read_json, write_text
from thalnet_mtl.metrics import Metric

PACKAGES = ("thalnet-mtl", "torch", "torchvision", "numpy", "datasets", "avalanche-lib")


class RunDirectory:
    """``config.yaml``, ``metrics.jsonl``, ``environment.json``, … of one run, for one process."""

    def __init__(self, folder: Path, config: Config):
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.lock = FileLock(folder / ".lock")
            self.lock.acquire(timeout=0)
        except Timeout:
            raise UserError(f"another process is writing to {folder}.") from None
        except OSError as error:
            raise UserError(f"cannot write to {folder}: {error.strerror}.") from error
        try:
            check_same(folder, config)
        except UserError:
            self.lock.release()
            raise
        write_text(folder / "config.yaml", configs.dump(config))
        self._metrics = (folder / "metrics.jsonl").open("ab")
        self._board: Any = None

    def rewind(self, size: int, anew: bool = False) -> None:
        """Forget what was logged after the metrics had this many bytes.

        ``anew`` says that to forget all is meant, and not the loss of a checkpoint.
        """
        path, found = self.folder / "metrics.jsonl", self.size
        if found < size:
            raise UserError(f"{path} has lost lines: {found} bytes of {size} are left.")
        lines = path.read_bytes().splitlines() if size == 0 and not anew else []
        if any(b'"step": 0,' not in line for line in lines):
            raise UserError(
                f"{self.folder} has lost its checkpoint. Put checkpoint/last.pt back, or delete "
                f"the folder to start again."
            )
        self._metrics.truncate(size)

    @property
    def size(self) -> int:
        """Bytes of metrics so far, all of them on disk."""
        self._metrics.flush()
        os.fsync(self._metrics.fileno())
        return os.fstat(self._metrics.fileno()).st_size

    def log(self, step: int, task: str, split: str, values: dict[str, float], **more: Any) -> None:
        """One line a value, and the same to TensorBoard."""
        for metric, value in values.items():
            line = {"step": step, "task": task, "split": split, "metric": metric, "value": value}
            self._metrics.write((json.dumps(line | more) + "\n").encode())
            self.board(step).add_scalar(f"{task}/{metric}/{split}", value, step)
        self._metrics.flush()

    def board(self, step: int) -> Any:
        """The TensorBoard writer, opened at the first use; later steps of an earlier life go."""
        if self._board is None:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(self.folder / "tensorboard", purge_step=step)
        return self._board

    def record_resumed(self, about: dict[str, Any], step: int) -> None:
        """Where a run goes on in another environment, say in which and from which step."""
        first = read_json(self.folder / "environment.json")
        lives = first.pop("resumed", [])
        latest = {key: value for key, value in (lives or [first])[-1].items() if key != "step"}
        if about != latest:
            lives.append({"step": step} | about)
            self.write_json("environment.json", first | {"resumed": lives})

    def write_json(self, name: str, content: Any) -> None:
        write_text(self.folder / name, json.dumps(content, indent=2) + "\n")

    def close(self) -> None:
        self._metrics.close()
        if self._board is not None:
            self._board.close()
        self.lock.release()


def check_same(folder: Path, config: Config) -> None:
    """Raise if the folder holds a run of another configuration, and say what differs."""
    if not (folder / "config.yaml").exists():
        return
    before = configs.load_run(folder)
    there, here = configs.flatten(before), configs.flatten(config)
    different = [
        f"{key} {here.get(key, 'absent')}, there {there.get(key, 'absent')}"
        for key in here | there
        if here.get(key) != there.get(key)
    ]
    if not different and configs.in_order(before) != configs.in_order(config):
        different = ["tasks or modules in another order"]
    if different:
        raise UserError(
            f"{folder} holds a run of another configuration: {'; '.join(different[:3])}. Give "
            f"--out DIR, or delete that folder."
        )


def environment(device: torch.device, data: dict[str, Any]) -> dict[str, Any]:
    """Versions, hardware, commit, and where the data came from."""
    return {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "commit": _commit(),
        "data": data,
    }


class PatientConsole(Console):
    """Goes silent when whoever read its output has left, instead of ending the run."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Screen:
    """Progress for people: a bar on a terminal, plain lines elsewhere."""

    def __init__(self, console: Console | None = None):
        self.console = console or PatientConsole(highlight=False, soft_wrap=True)
        self._bar: Progress | None = None
        self._job: Any = None

    @contextmanager
    def progress(self, title: str, done: int, total: int) -> Iterator[None]:
        """Show a bar for the while, if there is a terminal."""
        self._title, self._total, self._begin = title, total, (time.monotonic(), done)
        if not self.console.is_terminal:
            yield
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=16),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[status]}"),
        )
        with Progress(*columns, console=self.console, transient=True) as self._bar:
            self._job = self._bar.add_task(title, completed=done, total=total, status="")
            yield
        self._bar = None

    def advance(self, step: int) -> None:
        if self._bar is not None:
            self._bar.update(self._job, completed=step)

    def beside(self, done: int, text: str) -> None:
        """How far it is, and a few words beside the bar, if there is one."""
        if self._bar is not None:
            self._bar.update(self._job, completed=done, status=text)

    def status(self, step: int, losses: Mapping[str, float]) -> None:
        """The current loss of every task, and the rate; a line where there is no bar."""
        seconds, done = time.monotonic() - self._begin[0], step - self._begin[1]
        rate = done / max(seconds, 1e-9)
        brief = " ".join(f"{loss:.3f}" for loss in losses.values())
        full = f"{next(iter(losses.values())):.4f}"
        if len(losses) > 1:
            full = " ".join(f"{name} {loss:.4f}" for name, loss in losses.items())
        if self._bar is not None:
            self._bar.update(self._job, completed=step, status=f"{rate:.3g}/s loss {brief}")
        else:
            left = (self._total - step) / max(rate, 1e-9)
            self.line(
                f"{self._title}  step {step:,}/{self._total:,}  loss {full}  "
                f"{rate:.3g} steps/s  {duration(left)} left"
            )

    def score(self, step: int, which: str, metric: Metric, value: float) -> None:
        """A score on validation; ``which`` names the task and a space, if there are several."""
        self.line(f"  step {step:,}  {which}validation {metric.name} {metric.format(value)}")

    def fetch(self, name: str) -> None:
        """Have a data set fetched if it is missing, and show the bytes."""
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=16),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(compact=True),
        )
        with Progress(*columns, console=self.console, disable=not self.console.is_terminal) as bar:
            jobs: dict[str, Any] = {}

            def report(description: str, done: int, total: int) -> None:
                if description not in jobs:
                    jobs[description] = bar.add_task(description, total=total)
                    if not self.console.is_terminal:
                        self.line(f"{description} …")
                bar.update(jobs[description], completed=done, total=total)

            data.fetch(name, report)

    def line(self, text: str) -> None:
        self.console.print(text, markup=False)


def duration(seconds: float) -> str:
    """For people: minutes and seconds, and hours if there are."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(": ")[1] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration, IndexError):
        return platform.processor()


def _commit() -> str | None:
    """The commit of the checkout that this package runs from, with + if it was changed."""
    top = Path(__file__).parents[1]
    if not (top / ".git").exists():
        return None
    command = ["git", "-C", str(top), "describe", "--always", "--dirty=+", "--abbrev=40"]
    try:
        done = subprocess.run([*command, "--exclude=*"], capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
